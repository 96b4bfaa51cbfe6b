"""Progress of a run on the terminal, read from the run's own records: nothing is asked of the workers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from runner.results import Row

if TYPE_CHECKING:
    from rich.progress import TaskID

POLL_S = 0.2


class Tail:
    """The rows that have been added to a .jsonl file since the last look."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def new(self) -> list[Row]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def shown(folder: Path, title: str, epochs: int, console: Console) -> Iterator[None]:
    """Show the run in `folder` while the block runs: a live bar on a terminal, else a line per evaluation."""
    done = threading.Event()
    live = console.is_terminal
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not live,
    )
    task = progress.add_task(title, total=epochs, words="starting")

    def follow() -> None:
        rows, evaluations = Tail(folder / "rank-00000.jsonl"), Tail(folder / "evaluations.jsonl")
        view = View(progress, task, epochs)
        while True:
            last = done.wait(POLL_S)
            evaluated = evaluations.new()
            trained = rows.new()  # read after them: a rank writes its rows before its evaluation
            for evaluation in evaluated:
                view.trained([row for row in trained if row["step"] <= evaluation["step"]])
                view.evaluated(evaluation)
                if not live:
                    console.print(f"{title}  {view.words()}", highlight=False, markup=False, soft_wrap=True)
            view.trained([row for row in trained if row["step"] > view.row.get("step", 0)])
            if last:
                return

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    with progress:
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class View:
    """The few numbers that the bar shows."""

    def __init__(self, progress: Progress, task: TaskID, epochs: int) -> None:
        self.progress, self.task, self.epochs = progress, task, epochs
        self.row: dict[str, Any] = {}
        self.top1: float | None = None
        self.rate = 0.0
        self.since = time.monotonic()

    def evaluated(self, row: Row) -> None:
        self.top1 = row["top1_mean_model"]
        self.row = {**self.row, "epoch": row["epoch"]}

    def trained(self, rows: list[Row]) -> None:
        if not rows:
            return
        first, last = self.row or {"samples": 0, "time_s": 0.0}, rows[-1]
        passed_s = last["time_s"] - first.get("time_s", 0.0)
        if passed_s > 0:
            self.rate = (last["samples"] - first.get("samples", 0)) / passed_s
        self.row = last
        self.progress.update(self.task, completed=last["epoch"], words=self.words())

    def words(self) -> str:
        parts = [f"epoch {self.row.get('epoch', 0):.1f}/{self.epochs}"]
        if self.row.get("loss") is not None:
            parts.append(f"loss {self.row['loss']:.3f}")
        if self.top1 is not None:
            parts.append(f"top-1 {100 * self.top1:.1f} %")
        if self.rate:
            parts.append(f"{self.rate:,.0f} samples/s")
        return "  ".join(parts)
