"""What the ranks of a run leave behind when it fails: who failed first, and how it says so.

When one process goes, its neighbours soon report a broken connection. The one to name was killed, or reports another
exception, or has left without a word.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from runner.results import Row, read_json

LAST_LINES = 15
LOST_CONNECTION = re.compile("(closed|reset) by peer|[Bb]roken pipe|Socket closed|remote process exited|recvBytes")
"""In what a rank reports when another one is gone (gloo, NCCL, the store)."""


def reports(log: Path, since: float = 0.0) -> list[Row]:
    """What the ranks have reported into a run's log/ since a time, the first one first: see `process.main_rank`."""
    found = [report for path in log.glob("rank-*.error.json") if (report := read_json(path)) is not None]
    return sorted((report for report in found if report["time"] >= since), key=lambda report: report["time"])


def causes(found: list[Row]) -> list[Row]:
    """Of these reports, the ones that do not merely tell of a lost connection."""
    return [report for report in found if not LOST_CONNECTION.search(report["error"])]


def told(report: Row) -> str:
    """A rank's report: the rank and its exception in the first line, then the traceback."""
    who = f"rank {report['rank']}: " if report["traceback"] else ""
    return f"{who}{report['error']}\n{report['traceback']}".rstrip()


def killed(log: Path, rank: int, how: str) -> str:
    """That a rank was killed, with the last words of its log."""
    path = log / f"rank-{rank:05d}.log"  # missing where the process never began
    words = path.read_text(errors="replace").splitlines()[-LAST_LINES:] if path.exists() else []
    return "\n".join([f"rank {rank} {how}", *words])


def first_failure(log: Path, rank: int, exit_code: int) -> str:
    """What to tell of a failed run: the rank that failed first, and its traceback or its last words.

    Args:
        log: the run's log/.
        rank: a process that has failed, perhaps not the first: elastic launch names one, stops the others with
            SIGTERM, and does not know the order.
        exit_code: of that process; of one that was killed, minus the signal.
    """
    if exit_code < 0:
        return killed(log, rank, f"was killed by {signal.Signals(-exit_code).name}")
    found = reports(log)
    known = {report["rank"] for report in found}
    if rank not in known:
        return f"rank {rank} ended with exit code {exit_code}; see {os.path.relpath(log)}"
    if not causes(found):
        silent = {int(path.stem[5:]) for path in log.glob("rank-*.log") if not _was_stopped(path)} - known
        if silent:
            return f"rank {min(silent)} ended without an exception, or was killed; see {os.path.relpath(log)}"
    return told((causes(found) or found)[0])


def _was_stopped(log: Path) -> bool:
    """Whether a rank's log ends with where it stood when it was stopped by SIGTERM: see `process.main_rank`."""
    text = log.read_text(errors="replace")
    return "(most recent call first)" in text and "Fatal Python error" not in text
