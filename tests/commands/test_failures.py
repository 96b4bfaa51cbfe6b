"""A worker raises, is killed or leaves: the run has failed, the first rank to fail is named, nobody stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import SMALL, Done, content, runs, type_in
from omegaconf import OmegaConf
from PIL import Image

pytestmark = pytest.mark.multiproc

BREAKS = """
import os, signal, sys
from dataclasses import dataclass
from algorithms.allreduce import AllReduce

@dataclass
class Breaks(AllReduce):
    how: str = "never"

    async def run(self, worker):
        step = 0
        async for x in super().run(worker):
            yield x
            step += 1
            if worker.rank == 1 and step == 3:
                print("last words")
                if self.how == "raises":
                    raise RuntimeError("the disk is full")
                if self.how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.how == "leaves":
                    os._exit(3)
                if self.how == "pretends":  # to have come to its end
                    os._exit(0)
                if self.how == "exits":
                    sys.exit()
"""
HOW = ["raises", "killed", "leaves", "pretends", "exits", "never"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A sweep over the ways in which rank 1 may end, the last a good one. (`finish` sees that no process is left.)"""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "breaks.py").write_text(BREAKS)
    (folder / "conf/algorithm").mkdir(parents=True)
    (folder / "conf/algorithm/breaks.yaml").write_text("_target_: breaks.Breaks\nhow: never\n")
    sweep = ("-m", "algorithm=breaks", f"algorithm.how={','.join(HOW)}", "nodes=3", "--config-dir", "conf")
    return folder, type_in(*SMALL, *sweep, cwd=folder)


def told(broken: tuple[Path, Done], how: str) -> tuple[Path, str, list[str]]:
    """Of one way to end: the run's folder, the reason in its state, and what the terminal said."""
    folder, done = broken
    [run] = [run for run in runs(folder) if OmegaConf.load(run / "config.yaml").algorithm.how == how]
    state = content(run / "state.json")
    assert state["status"] == "failed"
    assert not (run / "summary.json").exists()
    here = f"[{HOW.index(how) + 1}/6]"
    first = next(n for n, line in enumerate(done.lines) if line.startswith(here) and "failed" in line)
    assert done.lines[first].endswith(str(run.relative_to(folder)))
    after = [n for n, line in enumerate(done.lines) if n > first and line.startswith("[")]
    return run, state["reason"], done.lines[first + 1 : after[0]]


def test_one_that_raises_is_named_with_its_traceback(broken: tuple[Path, Done]) -> None:
    run, reason, lines = told(broken, "raises")
    assert reason.startswith("rank 1: RuntimeError: the disk is full\nTraceback (most recent call last):")
    assert lines == reason.splitlines()
    assert any("breaks.py" in line for line in lines)
    error = content(run / "log/rank-00001.error.json")
    assert error["rank"] == 1
    assert error["error"] == "RuntimeError: the disk is full"
    assert "breaks.py" in error["traceback"]
    assert "last words" in (run / "log/rank-00001.log").read_text()


def test_one_that_is_killed_is_named_with_its_last_words(broken: tuple[Path, Done]) -> None:
    _, reason, lines = told(broken, "killed")
    # Elastic launch may first see a neighbour, whose connection broke.
    assert reason.startswith(("rank 1 was killed by SIGKILL\nlast words", "rank 1 ended without an exception, or was"))
    assert lines == reason.splitlines()


@pytest.mark.parametrize("how", ["leaves", "pretends"])
def test_one_that_leaves_silently_is_named(broken: tuple[Path, Done], how: str) -> None:
    run, reason, lines = told(broken, how)
    assert reason.startswith(("rank 1 ended with exit code 3", "rank 1 ended without an exception"))
    assert reason.endswith(f"see {run.relative_to(broken[0])}/log")
    assert lines == [reason]


def test_one_that_exits_early_has_failed(broken: tuple[Path, Done]) -> None:
    _, reason, _ = told(broken, "exits")
    assert reason.startswith("rank 1: SystemExit")


def test_the_sweep_goes_on(broken: tuple[Path, Done]) -> None:
    folder, done = broken
    assert done.status == 1
    assert done.stderr == ""
    assert "[6/6]" in done.lines[-1]
    assert "(mean model)" in done.lines[-1]
    assert sorted(content(run / "state.json")["status"] for run in runs(folder)) == ["failed"] * 5 + ["finished"]


@pytest.mark.parametrize("method", ["easgd", "allreduce"])
def test_one_whose_image_cannot_be_read_leaves_no_loader_behind(method: str, tmp_path: Path) -> None:
    """Read on demand, and read ahead."""
    for part in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / "images" / part / label).mkdir(parents=True)
            for number in range(16):
                Image.new("RGB", (40, 40)).save(tmp_path / "images" / part / label / f"{number}.JPEG")
    (tmp_path / "images/train/b/3.JPEG").write_bytes(b"no image")
    data = (
        "dataset=imagenet",
        "dataset.root=images",
        "dataset.crop=32",
        "dataset.resize=36",
        "dataset.loader_processes=2",
    )
    done = type_in(f"algorithm={method}", "nodes=2", "batch_size=4", *data, *SMALL, cwd=tmp_path)
    assert done.status == 1
    assert "3.JPEG cannot be read as an image" in content(runs(tmp_path)[0] / "state.json")["reason"]
