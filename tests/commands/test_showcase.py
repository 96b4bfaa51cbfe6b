"""scripts/showcase.py keeps what has finished, and loses nothing where something has not."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from runner.report.runs import Run

ROOT = Path(__file__).parents[2]
RUNS, TUNING = Path("runs/slowmo/virtual"), Path("runs/slowmo/tuning_virtual")


@pytest.fixture(scope="module")
def showcase() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        import showcase

        return showcase


def keep(showcase: ModuleType, monkeypatch: pytest.MonkeyPatch, results: Path, place: Path) -> None:
    arguments = ["slowmo", "virtual", "--results-dir", str(results), "--showcase", str(place)]
    monkeypatch.setattr(sys, "argv", ["showcase.py", *arguments])
    showcase.main()


def timed(folder: Path, begun: float, ended: float) -> Run:
    """A run that began and ended at these seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"cpus": 2, "python": "3.11", "torch": "2", "platform": "Linux"}
    for name, content, at in (("environment.json", environment, begun), ("summary.json", {}, ended)):
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps(content))
        os.utime(folder / name, (at, at))
    return Run(folder, "", "finished")


def test_what_has_finished_is_kept_and_nothing_else(
    showcase: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, place = tmp_path / "results", tmp_path / "showcase"
    for preset in (RUNS, TUNING):
        shutil.copytree(ROOT / "results/showcase" / preset, results / preset)
        for folder in (results / preset).iterdir():
            timed(folder, 0, 60)
    (place / RUNS / "of a study that is no more").mkdir(parents=True)
    keep(showcase, monkeypatch, results, place)
    kept = {path.name for path in (place / RUNS).iterdir()}
    assert kept == {path.name for path in (results / RUNS).iterdir()}
    assert {path.name for path in (place / RUNS / min(kept)).iterdir()} == set(showcase.FILES)
    told = json.loads((place / "measured/slowmo-virtual.json").read_text())
    number = len(kept) + len(list((place / TUNING).iterdir()))
    assert told["runs"] == str(number)
    assert told["time of all runs"] == f"1.0 minutes, up to {number} side by side"

    shutil.rmtree(results / RUNS / min(kept))
    with pytest.raises(SystemExit, match=r"nothing is kept: run-experiment experiment=slowmo/\w+ scale=virtual"):
        keep(showcase, monkeypatch, results, place)
    assert {path.name for path in (place / RUNS).iterdir()} == kept


def test_the_time_is_that_in_which_any_run_was_going(showcase: ModuleType, tmp_path: Path) -> None:
    spans = [(0, 60), (30, 90), (40, 50), (300, 330)]
    told = showcase.measured([timed(tmp_path / str(i), *span) for i, span in enumerate(spans)])
    assert told["time of all runs"] == "2.0 minutes, up to 3 side by side"
    assert told["cores"] == "2"
