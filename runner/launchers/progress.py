"""Progress of a run on the terminal, read from the run's own records: nothing is asked of the workers."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from runner.evaluation_steps import EvaluationSteps
from runner.report.metrics import duration, top1_key
from runner.results import Row

POLL_S = 0.2
SILENCE_S = 10.0
"""Where there is no bar: after so long without a line there is one, later at longer intervals."""


class Tail:
    """The rows that have been added to a .jsonl file since the last look.

    Args:
        new_only: leave out those that are there already.
    """

    def __init__(self, path: Path, new_only: bool = False) -> None:
        self.path, self.offset = path, path.stat().st_size if new_only and path.exists() else 0

    def new(self) -> list[Row]:
        try:
            with self.path.open("rb") as file:
                self.offset = min(self.offset, file.seek(0, os.SEEK_END))  # a run that goes on drops its last rows
                file.seek(self.offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [row for line in whole.splitlines() if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    """None for what is left of a line whose beginning was dropped."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


@contextmanager
def bars(console: Console, runs: int) -> Iterator[Progress]:
    """Live bars on a terminal, one for each run that is `shown`, and one for all of a sweep; elsewhere nothing."""
    title, bar = console.width // 3, min(24, console.width // 10)
    words = max(10, console.width - title - bar - len("0:00:00 wall time left") - 4)  # what is cut is the end of texts
    progress = Progress(
        TextColumn("{task.description}", table_column=Column(max_width=title, no_wrap=True)),
        BarColumn(bar_width=bar),
        TimeRemainingColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[words]}", table_column=Column(max_width=words, no_wrap=True)),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        if runs > 1:
            progress.add_task("all runs", total=runs, words=f"0 of {runs}", left="left")
        yield progress


def count(progress: Progress, done: int) -> None:
    """On the bar of a sweep: so many of its runs are over."""
    for task in progress.tasks[:1]:
        progress.update(task.id, completed=done, words=f"{done} of {task.total:.0f}")


@contextmanager
def shown(folder: Path, title: str, view: View, progress: Progress) -> Iterator[None]:
    """Show the run in `folder` while the block runs: a bar of `bars` on a terminal, elsewhere a line per evaluation.

    Not more than one an epoch; where evaluations are far apart, or there are none, a line from time to time.
    """
    done = threading.Event()
    console = progress.console
    live = console.is_terminal
    task = progress.add_task(title, total=view.epochs, words="starting", left="left")

    def say(words: str) -> None:
        if not live:
            console.print(f"{title}  {words}", highlight=False, markup=False, soft_wrap=True)

    def follow() -> None:
        # What an earlier attempt has written is old news, and part of it goes.
        rows = Tail(folder / "rank-00000.jsonl", new_only=True)
        evaluations = Tail(folder / "evaluations.jsonl", new_only=True)
        silence, told = Silence(time.monotonic()), 0  # epochs
        while True:
            last = done.wait(POLL_S)
            evaluated = evaluations.new()
            trained = rows.new()  # read after them: a rank writes its rows before its evaluation
            for evaluation in evaluated:
                view.trained([row for row in trained if row["step"] <= evaluation["step"]])
                trained = [row for row in trained if row["step"] > evaluation["step"]]
                view.evaluated(evaluation)
                if evaluation["epoch"] >= told + 1:
                    told = math.floor(evaluation["epoch"])
                    say(view.words(evaluation))
                    silence.broken(time.monotonic())
            view.trained(trained)
            if view.row and not view.awaited and not last and silence.is_long(time.monotonic()):
                say(view.words())
                silence.broken(time.monotonic())
            left = "wall time left" if view.virtual else "left"
            progress.update(task, completed=view.row.get("epoch", 0), words=view.words(), left=left)
            if last:
                return

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        progress.remove_task(task)


class Silence:
    """Since when nothing was said, and whether that is long: SILENCE_S, or a twentieth of the time since `began`."""

    def __init__(self, began: float) -> None:
        self.began = self.since = began

    def broken(self, now: float) -> None:
        self.since = now

    def is_long(self, now: float) -> bool:
        return now - self.since >= max(SILENCE_S, (now - self.began) / 20)


class View:
    """The few numbers that are shown, of a run that is evaluated every so many epochs, by its mean model or centre."""

    def __init__(self, epochs: int, every: float = 1, model: str = "mean") -> None:
        self.epochs, self.every, self.model = epochs, every, model
        self.row: dict[str, Any] = {}
        self.losses: dict[int, dict[int, float | None]] = {}  # the last of each worker, by the next evaluation's step
        self.evaluation: Row | None = None
        self.rate = 0.0

    @property
    def virtual(self) -> bool:
        return self.row.get("clock") == "virtual"

    @property
    def awaited(self) -> bool:
        """Whether the run stands where its next evaluation is due: what the last one has found is of another place.

        Nobody waits where evaluations come after training: then none has followed the place before.
        """
        step, evaluated = int(self.row.get("step", 0)), self.evaluation["step"] if self.evaluation else 0
        if not step:
            return False
        steps = self._steps(self.row)
        return steps.is_due(step) and steps.before(step) == evaluated

    def evaluated(self, row: Row) -> None:
        self.evaluation = row
        if row["step"] >= self.row.get("step", 0):
            self.row |= {key: row[key] for key in ("clock", "time_s", "step", "epoch", "samples")}
        self.losses = {step: losses for step, losses in self.losses.items() if step >= row["step"]}

    def trained(self, rows: list[Row]) -> None:
        """Rows in the order of writing; those of all virtual workers are in one file, some behind the others."""
        for row in rows:
            self.losses.setdefault(self._due(row), {})[row["worker"]] = row["loss"]
        before = self.row or {"step": 0, "samples": 0, "time_s": 0.0}
        last = max(rows, key=lambda row: float(row["step"]), default=before)
        if last["step"] <= before["step"]:
            return
        passed_s = last["time_s"] - before["time_s"]
        if passed_s > 0:
            self.rate = (last["samples"] - before["samples"]) / passed_s
        self.row = last

    def _due(self, place: Row) -> int:
        """The step of the evaluation that comes then or next."""
        step = int(place["step"])
        return self._steps(place).after(step - 1) if step else 0

    def _steps(self, place: Row) -> EvaluationSteps:
        """Those of the run, of which a place tells how many make an epoch."""
        return EvaluationSteps.of(self.every, round(place["step"] / float(place["epoch"])), self.epochs)

    def loss(self, place: Row) -> float | None:
        """The mean over the workers of what each wrote last before the evaluation that comes then or next."""
        losses = list(self.losses.get(self._due(place), {}).values())
        known = [loss for loss in losses if loss is not None]
        return sum(known) / len(known) if known and len(known) == len(losses) else None

    def words(self, evaluation: Row | None = None) -> str:
        """Where the run is, or was at an evaluation."""
        place = evaluation or self.row
        if not place:
            return "starting"
        parts = [f"epoch {place['epoch']:.{1 if float(self.every).is_integer() else 2}f}/{self.epochs}"]
        if (loss := self.loss(place)) is not None:
            parts.append(f"loss {loss:.4g}")
        top1 = (self.evaluation or {}).get(top1_key(self.model))
        if top1 is not None and (evaluation is not None or not self.awaited):
            whose = "" if self.model == "mean" else f" ({self.model})"
            parts.append(f"top-1 {100 * top1:.1f} %{whose}")
        if self.virtual:
            parts.append(f"virtual time {duration(place['time_s'])}")
        elif self.rate:
            parts.append(f"{self.rate:,.0f} samples/s")
        return "  ".join(parts)
