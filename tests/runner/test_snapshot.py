"""The copy of the code that a job runs: all of the program, and what the user has brought along."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from runner.launchers import snapshot


def test_the_copy_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "my work"
    (here / "own_package").mkdir(parents=True)
    (here / "own_package/__init__.py").write_text("from own_package.inner import VALUE\n")
    (here / "own_package/inner.py").write_text("VALUE = 1\n")
    (here / "own_package/later.py").write_text("VALUE = 1\n")  # nobody has imported it yet
    (here / "own_module.py").write_text("VALUE = 1\n")
    (here / "not_imported.py").write_text("VALUE = 1\n")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    for name in ("own_module", "own_package"):
        importlib.import_module(name)
    code = snapshot.take(tmp_path / "place")
    assert {"runner", "algorithms", "models", "conf", "own_package", "own_module.py"} == {
        path.name for path in code.iterdir()
    }
    assert not list(code.rglob("__pycache__"))
    for path in here.rglob("*.py"):
        path.write_text("VALUE = 2\n")
    ask = (
        "import own_module, own_package, own_package.later, runner.config, algorithms, models\n"
        "print(own_module.VALUE, own_package.VALUE, own_package.later.VALUE)\n"
        "print(runner.config.conf_dir())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask],
        env={"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"},
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["1 1 1", str(code / "conf")]
    for name in ("own_module", "own_package", "own_package.inner"):
        monkeypatch.delitem(sys.modules, name)


def test_in_the_checkout_nothing_else_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(snapshot.HOME / "runner")
    assert {path.name for path in snapshot.take(tmp_path).iterdir()} == set(snapshot.CODE)
