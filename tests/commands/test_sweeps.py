"""Sweeps (-m): what is finished is skipped, what failed runs again, and one cell stops no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import SMALL, Done, content, runs, type_in
from conftest import SWEEP

pytestmark = pytest.mark.multiproc

FRAGILE = """
import os
from algorithms.allreduce import AllReduce

class Fragile(AllReduce):
    async def run(self, worker):
        if not os.path.exists("mended"):
            raise RuntimeError("not mended yet")
        async for x in super().run(worker):
            yield x
"""


@pytest.fixture
def copy(swept: tuple[Path, Done], tmp_path: Path) -> Path:
    """A current directory that holds the finished sweep, to be changed."""
    shutil.copytree(swept[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_every_cell_runs(swept: tuple[Path, Done]) -> None:
    folder, done = swept
    assert done.status == 0
    assert done.stderr == ""
    assert len(runs(folder)) == 6
    ends = [line for line in done.lines if "(mean model)" in line]
    assert [line[:5] for line in ends] == [f"[{i}/6]" for i in range(1, 7)]
    for line, run in zip(ends, runs(folder), strict=True):
        summary = content(run / "summary.json")
        assert f"top-1 {100 * summary['top1_mean_model']:.2f} %" in line
        assert f"{summary['epoch_time_s']:.3g} s per epoch" in line
        assert line.endswith(str(run.relative_to(folder)))


def test_typed_again_each_cell_is_skipped_with_a_line(copy: Path, here: Callable[..., Done]) -> None:
    done = here(*SMALL, *SWEEP)
    assert done.status == 0
    skipped = [line for line in done.lines if "already finished, skipped" in line]
    assert [line[:5] for line in skipped] == [f"[{i}/6]" for i in range(1, 7)]
    assert all("rerun=true" in line for line in skipped)
    assert not list(copy.rglob(".earlier"))


def test_a_rerun_keeps_the_earlier_attempt(copy: Path) -> None:
    cell = ("algorithm=sgp", "nodes=2", "gpus_per_node=1", *SWEEP[-2:])
    identities = {run.name for run in runs(copy)}
    before = {run.name: (run / "summary.json").read_text() for run in runs(copy)}
    done = type_in(*SMALL, *cell, "rerun=true", cwd=copy)
    assert done.status == 0
    assert "skipped" not in done.stdout
    assert {run.name for run in runs(copy)} == identities
    [earlier] = copy.glob("results/runs/sgp/.earlier/*")
    identity = earlier.name.removesuffix("-1")
    assert (earlier / "summary.json").read_text() == before[identity]
    again = content(copy / "results/runs/sgp" / identity / "summary.json")
    assert again["top1_mean_model"] == content(earlier / "summary.json")["top1_mean_model"]


def test_a_failed_cell_stops_no_other_and_runs_again(tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    (tmp_path / "conf/algorithm").mkdir(parents=True)
    (tmp_path / "conf/algorithm/fragile.yaml").write_text("_target_: fragile.Fragile\n")
    sweep = (*SMALL, "-m", "algorithm=fragile,allreduce", "nodes=2", "--config-dir", "conf")
    first = type_in(*sweep, cwd=tmp_path)
    assert first.status == 1
    assert {run.parent.name: content(run / "state.json")["status"] for run in runs(tmp_path)} == {
        "fragile": "failed",
        "allreduce": "finished",
    }
    (tmp_path / "mended").touch()
    second = type_in(*sweep, cwd=tmp_path)
    assert second.status == 0
    assert "[2/2] allreduce 2 nodes seed 0: already finished, skipped" in second.stdout
    assert all(content(run / "state.json")["status"] == "finished" for run in runs(tmp_path))
    [attempt] = tmp_path.glob("results/runs/fragile/.earlier/*")
    assert content(attempt / "state.json")["status"] == "failed"
