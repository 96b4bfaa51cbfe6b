"""The wheel holds all that a run needs, and trains away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commandline import PATIENCE_S, SMALL, content, environment, runs

pytestmark = pytest.mark.multiproc

ROOT = Path(__file__).parents[2]
ENTER = "import runner.main; print(runner.main.__file__); runner.main.main()"


def python(*arguments: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling, which is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    [wheel] = folder.glob("distsgd-*.whl")
    return wheel


def test_it_holds_what_a_run_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    tree = {f"runner/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(tree) > 40
    assert tree <= names
    assert {"runner/data/digits.csv.gz", "runner/ledger.yaml"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/runner/data/digits.LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"algorithms", "models", "runner"}
    assert "run-experiment = runner.main:main" in entry_points
    assert "experiments = runner.experiments:main" in entry_points


def test_it_trains_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    path = {"PYTHONPATH": str(site)}
    printed = python("-P", "-c", ENTER, *SMALL, "algorithm=sgp", "nodes=2", cwd=tmp_path, **path)
    assert printed.splitlines()[0] == str(site / "runner/main.py")
    [run] = runs(tmp_path)
    assert content(run / "summary.json")["top1_mean_model"] > 0.5
    listed = python("-P", "-c", "from runner.experiments import main; main()", "list", cwd=tmp_path, **path)
    assert "finished" in listed
