"""Where the command is typed makes no difference to the code that runs, and the code there is found all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commandline import SMALL, content, the_run, type_in

from runner.config import conf_dir

pytestmark = pytest.mark.multiproc

IMPORTED = 'from pathlib import Path\nPath(__file__).with_name("imported").touch()\n'


def test_inside_another_checkout(tmp_path: Path) -> None:
    """Its packages bear the same names."""
    packages = [tmp_path / name for name in ("runner", "algorithms", "models")]
    for package in packages:
        package.mkdir()
        (package / "__init__.py").write_text(IMPORTED)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: my_network.build\n")
    (tmp_path / "my_network.py").write_text("import models\n\n\ndef build(**task):\n    return models.mlp(**task)\n")
    done = type_in("model=mine", "nodes=2", *SMALL[:2], "--config-dir", "conf", cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")
    assert content(the_run(tmp_path) / "summary.json")["model"] == "mine"
    assert not [package for package in packages if (package / "imported").exists()]


def test_options_in_a_folder_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "conf/algorithm/mine").mkdir(parents=True)
    shutil.copy(conf_dir() / "algorithm/sgp.yaml", tmp_path / "conf/algorithm/mine/copied.yaml")
    done = type_in("algorithm=mine/copied", "nodes=2", *SMALL, "--config-dir", "conf", cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")
    assert len(list(tmp_path.glob("results/runs/mine/copied/*/summary.json"))) == 1
    done = type_in("table", cwd=tmp_path, command="experiments")
    assert (done.status, done.stderr) == (0, "")
    assert "mine/copied" in done.stdout
