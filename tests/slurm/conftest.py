"""Tests on a real SLURM, such as `scripts/slurm_box start` makes. Without one they are skipped, but on CI they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("slurm")
            item.add_marker("multiproc")


@pytest.fixture(scope="session", autouse=True)
def a_slurm_that_answers() -> None:
    if reason := _why_not():
        if os.environ.get("CI"):
            pytest.fail(f"{reason} On CI these tests run: .ci/run starts a SLURM for them.")
        pytest.skip(reason)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for a test's results. Whatever job writes its output below it is cancelled at the test's end."""
    folder = tmp_path / "results"
    folder.mkdir()
    yield folder
    if left := _jobs_writing_below(folder):
        subprocess.run(["scancel", *left], check=True)
        while _jobs_writing_below(folder):  # SLURM ends them for good after KillWait
            time.sleep(0.2)


def _why_not() -> str | None:
    """The reason why these tests cannot run here; None where they can."""
    hint = "`scripts/slurm_box start` (as root) starts one."
    if shutil.which("sbatch") is None:
        return f"There is no SLURM here: no sbatch. {hint}"
    try:
        done = subprocess.run(["sinfo"], check=False, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return f"No SLURM answers: sinfo takes more than 30 s. {hint}"
    return f"No SLURM answers: {done.stderr.strip()}. {hint}" if done.returncode != 0 else None


def _jobs_writing_below(folder: Path) -> list[str]:
    fields = "--Format=JobID:20,STDOUT:400"  # the raw id: of an array, one for each element that has begun
    done = subprocess.run(["squeue", "--noheader", fields], check=True, capture_output=True, text=True)
    rows = (line.partition(" ")[::2] for line in done.stdout.splitlines())
    return [job for job, output in rows if Path(output.strip()).is_relative_to(folder)]
