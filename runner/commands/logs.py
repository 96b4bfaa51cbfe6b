"""The log of a rank, or of the job around it; on request until the run has ended."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from pathlib import Path

from runner.commands import status
from runner.commands.options import ASK_SLURM_S, say, settled
from runner.report.runs import ACTIVE, Run, read_run

POLL_S = 0.3


def path_of(run: Run, rank: int | None, *, submission: bool) -> Path:
    """The file that is meant: of the rank, or of the one that failed first, or of rank 0.

    Raises:
        ValueError: the run was not submitted to SLURM, or has no such rank.
    """
    if submission:
        from runner import jobs

        job = jobs.of(run.folder)
        if job is None:
            raise ValueError(f"--submission: {run.folder} is no job of SLURM; leave it out")
        return jobs.errors(run.folder, job)
    if rank is None:
        rank = (status.first_rank(run) if run.status == "failed" else None) or 0
    path = run.folder / "log" / f"rank-{rank:05d}.log"
    there = sorted(int(log.stem[5:]) for log in path.parent.glob("rank-*.log"))
    if there and rank not in there and (run.status not in ACTIVE or rank > there[-1]):
        raise ValueError(f"--rank {rank}: has no log in {path.parent}; there are ranks {there[0]} to {there[-1]}")
    return path


def show(run: Run, path: Path, lines: int | None, *, follow: bool) -> None:
    """Print the file's last lines, or all; then, with `follow`, what is added to it until the run has ended."""
    say(f"==> {os.path.relpath(path)} <==")
    offset = _print(path, lines)
    if follow:
        run = _follow(run, path, offset)
    if path.parent == run.folder / "log" and run.status == "failed":
        _print_traceback(run, path)
    if not path.exists() or not path.stat().st_size:
        say("nothing in it" if path.exists() else "it is not there yet" if run.status in ACTIVE else "it is not there")
    where = f" ({run.state['reason'].splitlines()[0]})" if run.state.get("reason") else ""
    say(f"==> {run.status}{where} <==")


def _print(path: Path, lines: int | None) -> int:
    """Where the next byte comes from."""
    try:
        with path.open("rb") as file:
            for line in deque(file, lines) if lines is not None else file:
                _out(line)
            return file.tell()
    except FileNotFoundError:
        return 0


def _follow(run: Run, path: Path, offset: int) -> Run:
    asked = -ASK_SLURM_S
    while True:
        if run.unsettled and time.monotonic() - asked >= ASK_SLURM_S:
            [run], _ = settled([run])
            asked = time.monotonic()
        else:
            run = read_run(run)
        over = run.status not in ACTIVE  # asked before the last look at the file
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset if path.stat().st_size >= offset else 0)
                for line in file:
                    _out(line)
                offset = file.tell()
        if over:
            return run
        time.sleep(POLL_S)


def _print_traceback(run: Run, path: Path) -> None:
    """What the rank has reported, unless its log ends with it."""
    from runner.results import read_json

    report = read_json(path.with_suffix(".error.json"))
    if report is None:
        return
    text = f"{report.get('traceback') or report.get('error')}".rstrip()
    if text.splitlines()[-1] not in path.read_text(errors="replace"):
        _out(text.encode() + b"\n")


def _out(line: bytes) -> None:
    sys.stdout.write(line.decode(errors="replace"))
    sys.stdout.flush()
