"""Progress of a run on the terminal, read from the run's own records: nothing is asked of the workers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from runner.results import Row

POLL_S = 0.2
SILENCE_S = 10.0
"""Where there is no bar: after so long without a line there is one, later at longer intervals."""


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
    """Show the run in `folder` while the block runs: a live bar on a terminal, elsewhere a line per evaluation.

    Where evaluations are far apart, or there are none, a line comes from time to time.
    """
    done = threading.Event()
    live = console.is_terminal
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}"),
        TextColumn("{task.fields[left]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not live,
    )
    task = progress.add_task(title, total=epochs, words="starting", left="left")

    def say(words: str) -> None:
        if not live:
            console.print(f"{title}  {words}", highlight=False, markup=False, soft_wrap=True)

    def follow() -> None:
        rows, evaluations = Tail(folder / "rank-00000.jsonl"), Tail(folder / "evaluations.jsonl")
        view, silence = View(epochs), Silence(time.monotonic())
        while True:
            last = done.wait(POLL_S)
            evaluated = evaluations.new()
            trained = rows.new()  # read after them: a rank writes its rows before its evaluation
            for evaluation in evaluated:
                view.trained([row for row in trained if row["step"] <= evaluation["step"]])
                trained = [row for row in trained if row["step"] > evaluation["step"]]
                view.evaluated(evaluation)
                say(view.words())
                silence.broken(time.monotonic())
            view.trained(trained)
            if view.row and not last and silence.is_long(time.monotonic()):
                say(view.words())
                silence.broken(time.monotonic())
            left = "wall time left" if view.virtual else "left"
            progress.update(task, completed=view.row.get("epoch", 0), words=view.words(), left=left)
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


class Silence:
    """Since when nothing was said, and whether that is long: SILENCE_S, or a twentieth of the time since `began`."""

    def __init__(self, began: float) -> None:
        self.began = self.since = began

    def broken(self, now: float) -> None:
        self.since = now

    def is_long(self, now: float) -> bool:
        return now - self.since >= max(SILENCE_S, (now - self.began) / 20)


class View:
    """The few numbers that are shown."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.row: dict[str, Any] = {}
        self.top1: float | None = None
        self.rate = 0.0

    @property
    def virtual(self) -> bool:
        return self.row.get("clock") == "virtual"

    def evaluated(self, row: Row) -> None:
        self.top1 = row["top1_mean_model"]
        self.row |= {key: row[key] for key in ("clock", "time_s", "step", "epoch", "samples")}

    def trained(self, rows: list[Row]) -> None:
        """Rows in the order of writing; those of all virtual workers are in one file, some behind the others."""
        before = self.row or {"step": 0, "samples": 0, "time_s": 0.0}
        last = max(rows, key=lambda row: float(row["step"]), default=before)
        if last["step"] <= before["step"]:
            return
        passed_s = last["time_s"] - before["time_s"]
        if passed_s > 0:
            self.rate = (last["samples"] - before["samples"]) / passed_s
        losses = [row["loss"] for row in rows if row["step"] == last["step"] and row["loss"] is not None]
        self.row = last | {"loss": sum(losses) / len(losses) if losses else None}

    def words(self) -> str:
        if not self.row:
            return "starting"
        parts = [f"epoch {self.row['epoch']:.1f}/{self.epochs}"]
        if self.row.get("loss") is not None:
            parts.append(f"loss {self.row['loss']:.3f}")
        if self.top1 is not None:
            parts.append(f"top-1 {100 * self.top1:.1f} %")
        if self.virtual:
            parts.append(f"virtual time {duration(self.row['time_s'])}")
        elif self.rate:
            parts.append(f"{self.rate:,.0f} samples/s")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """A time as people read it, in the unit that suits it.

    >>> duration(0.0123), duration(43.45), duration(5000), duration(36000)
    ('0.0123 s', '43.5 s', '83.3 min', '10.0 h')
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
