"""Waiting for runs to end: bars on a terminal, elsewhere a line whenever one of them changes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from runner.commands import status
from runner.commands.options import ASK_SLURM_S, settled
from runner.report.runs import ACTIVE, Run, read_run

if TYPE_CHECKING:
    from runner.launchers.queue import Job

POLL_S = 1.0
MOST_BARS = 8
WIDE = 100  # characters of a terminal with room for bars
TIMED_OUT = 124  # as timeout(1)


class View(Protocol):
    def show(self, rows: Sequence[status.Row]) -> None:
        """Where the runs are now."""


def wait(runs: Sequence[Run], queue: Mapping[str, Job], timeout_s: float | None) -> int:
    """Come back when no run is queued or running.

    Returns:
        The exit status: 0 if all have finished, 1 if not, 124 if time has run out.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    asked = time.monotonic()
    with _view() as view:
        while True:
            rows = status.describe(runs, queue)
            view.show(rows)
            if not any(row["status"] in ACTIVE for row in rows):
                break
            if deadline is not None and time.monotonic() >= deadline:
                print(f"after {timeout_s:g} s: {status.summary(row['status'] for row in rows)}")
                return TIMED_OUT
            time.sleep(POLL_S)
            runs = [again for run in runs if (again := _again(run)) is not None]
            if time.monotonic() - asked >= ASK_SLURM_S:
                runs, queue = settled(runs)
                asked = time.monotonic()
    print(status.summary(row["status"] for row in rows))
    return 0 if all(row["status"] == "finished" for row in rows) else 1


def _again(run: Run) -> Run | None:
    if run.status not in ACTIVE:
        return run
    try:
        return read_run(run)
    except FileNotFoundError:  # set aside by a launcher, which makes it anew
        return run if run.folder.parent.exists() else None


@contextlib.contextmanager
def _view() -> Iterator[View]:
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column

    console = Console(highlight=False)
    what = Column(no_wrap=True, overflow="ellipsis", ratio=1)  # gives way; how far it is must be seen
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False, table_column=what)]
    if console.width >= WIDE:
        columns.append(BarColumn(bar_width=16))
    columns.append(TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True)))
    with Progress(*columns, console=console, expand=True) as progress:
        yield Bars(progress)


class Lines:
    """A line per change of a run's status."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def show(self, rows: Sequence[status.Row]) -> None:
        for row in rows:
            if self.told.get(row["folder"]) != row["status"]:
                self.told[row["folder"]] = row["status"]
                print(f"{time.strftime('%H:%M:%S')}  {row['identity']}  {row['run']}: {words(row)}", flush=True)


class Bars:
    """A bar for all runs together, and one for each that is running, up to so many."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.all = progress.add_task("", words="")
        self.tasks: dict[str, Any] = {}
        self.told: dict[str, str] = {}

    def show(self, rows: Sequence[status.Row]) -> None:
        over = sum(row["status"] not in ACTIVE for row in rows)
        told = status.summary(row["status"] for row in rows)
        self.progress.update(self.all, total=len(rows), completed=over, description=told)
        running = {row["folder"]: row for row in rows if row["status"] == "running"}
        for folder in self.tasks.keys() - running.keys():
            self.progress.remove_task(self.tasks.pop(folder))
        for folder, row in running.items():
            if folder not in self.tasks and len(self.tasks) < MOST_BARS:
                self.tasks[folder] = self.progress.add_task(row["run"], total=row["epochs"], words="")
            if folder in self.tasks:
                self.progress.update(self.tasks[folder], completed=row["epoch"] or 0, words=pace(row))
        for row in rows:
            if row["status"] in status.STOPPED and self.told.get(row["folder"]) != row["status"]:
                self.progress.console.print(f"{row['run']}: {words(row)}", markup=False, highlight=False)
            self.told[row["folder"]] = row["status"]


def pace(row: status.Row) -> str:
    """How far a run is: `epoch 3.2/10  top-1 91.2 %  8.7 min left`."""
    told = status.for_people(row)
    epoch = f"epoch {told['epoch']}" if told["epoch"] else "starting"
    top1 = f"top-1 {100 * row['top1']:.1f} %" if row["top1"] is not None else None
    left = f"{told['left']} left" if told["left"] else None
    return "  ".join(filter(None, [epoch, top1, left]))


def words(row: status.Row) -> str:
    """A run's state in a few words."""
    if row["status"] == "queued":
        where = f"({row['where']})" if row["where"] else None
        return " ".join(filter(None, ["queued", f"as job {row['job']}" if row["job"] else None, where]))
    if row["status"] == "running":
        return "  ".join(filter(None, ["running", pace(row), f"on {row['where']}" if row["where"] else None]))
    if row["status"] == "finished" and row["top1"] is not None:
        return f"finished, top-1 {100 * row['top1']:.2f} %"
    return f"{row['status']}: {row['reason']}" if row["reason"] else str(row["status"])
