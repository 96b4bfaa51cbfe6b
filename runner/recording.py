"""What is written down while training goes on: rows per worker and iteration, rows per evaluation, totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from runner.clock import Split
from runner.config import Config
from runner.results import Row, RowWriter, finite

COUNTERS = ("compute_s", "wait_s", "data_s", "bytes_sent")
"""Written as what was added since the row before."""

KEPT = (
    "recorded",
    "recorded_s",
    "next_draw",
    "warm_s",
    "warm_draw",
    "last_draw",
    "last_s",
    "end_s",
    "wait_s",
    "data_s",
)
"""Of a recorder, in a checkpoint."""

SAMPLE = 100
"""With `record_every` unset, a virtual worker writes a row every so many iterations, and at the end of each epoch."""


class Clock(Protocol):
    def now(self) -> float:
        """Seconds of training so far."""


class Recorded(Protocol):
    """What a recorder reads of a worker, of either runtime."""

    @property
    def rank(self) -> int: ...
    @property
    def draw(self) -> int: ...
    @property
    def split(self) -> Split: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def loss(self) -> Tensor | None:
        """() of the last mini-batch; None where there are no numbers."""

    @property
    def lr(self) -> float:
        """Of the next step."""


class Journal:
    """The files of one process: rank-<process>.jsonl; process 0 has evaluations.jsonl and TensorBoard's files too.

    Args:
        saved: `state()` of an earlier part of the run; what was written after it goes.
    """

    def __init__(self, folder: Path, process: int, tensorboard: bool, saved: Row | None = None) -> None:
        kept = saved or {"rows": 0, "evaluations": 0, "step": None}
        self.rows = RowWriter(folder / f"rank-{process:05d}.jsonl", kept=kept["rows"])
        self.evaluations: RowWriter | None = None
        if process == 0:
            self.evaluations = RowWriter(folder / "evaluations.jsonl", flush_s=0.0, kept=kept["evaluations"])
        self.board: Any = None
        if tensorboard and process == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=kept["step"])

    def state(self, step: int) -> Row:
        """What a checkpoint keeps of it."""
        evaluations = 0 if self.evaluations is None else self.evaluations.size()
        return {"rows": self.rows.size(), "evaluations": evaluations, "step": step + 1}

    def row(self, row: Row) -> None:
        self.rows.write(row)
        if self.board is not None and row["worker"] == 0:
            self._show({"loss/training": row["loss"], "lr": row["lr"]}, row["step"])

    def evaluation(self, row: Row, scores: Row) -> None:
        self.rows.flush()  # whoever follows finds the rows that led here
        if self.evaluations is not None:
            self.evaluations.write({**row, **scores})
        if self.board is not None:
            self._show({f"evaluation/{name}": value for name, value in scores.items()}, row["step"])

    def _show(self, values: Row, step: int) -> None:
        for name, value in values.items():
            if value is not None:
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.rows.close()
        if self.evaluations is not None:
            self.evaluations.close()
        if self.board is not None:
            self.board.close()


class Recorder:
    """Turns the counters of one worker into rows and totals.

    Args:
        clock: its name, `wall` or `virtual`.
    """

    def __init__(self, journal: Journal, config: Config, worker: Recorded, per_epoch: int, clock: str) -> None:
        self.journal, self.worker, self.per_epoch, self.clock = journal, worker, per_epoch, clock
        self.every, self.warmup = config["record_every"], config["warmup_iterations"]
        self.global_batch_size = config["nodes"] * config["gpus_per_node"] * config["batch_size"]
        self.recorded_s = 0.0
        self.next_draw = self._next(0)
        self.recorded: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self.warm_s = 0.0 if self.warmup == 0 else None  # when the warm-up was over, and at which draw
        self.warm_draw = 0
        self.last_s, self.last_draw = 0.0, 0  # of the last iteration
        self.end_s = self.wait_s = self.data_s = 0.0  # at the last yield, which may come after it, with late messages

    def state(self) -> Row:
        """What a checkpoint keeps of it."""
        return {name: getattr(self, name) for name in KEPT}

    def load(self, saved: Row) -> None:
        for name in KEPT:
            setattr(self, name, saved.get(name, getattr(self, name)))  # a checkpoint may be older than a name

    def _next(self, draw: int) -> int:
        """The draw after which the next row is due."""
        if self.every is not None:
            return draw + int(self.every)
        epoch_end = (draw // self.per_epoch + 1) * self.per_epoch
        offset = self.worker.rank % SAMPLE  # not all workers at once
        return min(epoch_end, draw + SAMPLE - (draw - offset) % SAMPLE)

    def step(self) -> None:
        """After each yield of the algorithm."""
        draw, split = self.worker.draw, self.worker.split
        self.end_s, self.wait_s, self.data_s = self.worker.clock.now(), split.wait_s, split.data_s
        if draw > self.last_draw:
            self.last_s, self.last_draw = self.end_s, draw
        if self.warm_s is None and draw >= self.warmup:
            self.warm_s, self.warm_draw = self.end_s, draw
        if draw >= self.next_draw:
            self._write(draw)

    def _write(self, draw: int) -> None:
        loss = self.worker.loss
        row: Row = {
            "clock": self.clock,
            "time_s": round(self.end_s, 6),
            "worker": self.worker.rank,
            **self._place(draw),
            "loss": None if loss is None else finite(float(loss)),
            "lr": None if loss is None else self.worker.lr,
        }
        totals = self._counters()
        for counter in COUNTERS:
            row[counter] = round(totals[counter] - self.recorded[counter], 7)
        self.recorded, self.recorded_s, self.next_draw = totals, self.end_s, self._next(draw)
        self.journal.row(row)

    def _place(self, draw: int) -> Row:
        return {"step": draw, "epoch": draw / self.per_epoch, "samples": draw * self.global_batch_size}

    def _counters(self) -> dict[str, float]:
        compute_s = self.end_s - self.wait_s - self.data_s
        bytes_sent = self.worker.split.bytes_sent
        return {"compute_s": compute_s, "wait_s": self.wait_s, "data_s": self.data_s, "bytes_sent": bytes_sent}

    def evaluation(self, scores: Row, draw: int | None = None, time_s: float | None = None) -> Row:
        """After each evaluation, of where the worker is or was; returns its scores."""
        place = self._place(self.worker.draw if draw is None else draw)
        time_s = self.end_s if time_s is None else time_s
        self.journal.evaluation({**place, "time_s": round(time_s, 6), "clock": self.clock}, scores)
        return scores

    def totals(self) -> list[float]:
        """Seconds to the end of the last step, steady seconds per iteration, then the counters."""
        draw = self.worker.draw
        if self.warm_s is not None and draw > self.warm_draw:
            iteration_s = (self.last_s - self.warm_s) / (draw - self.warm_draw)
        else:  # shorter than its warm-up
            iteration_s = self.last_s / max(draw, 1)
        return [self.end_s, iteration_s, *self._counters().values()]

    def close(self) -> None:
        if self.end_s > self.recorded_s:  # steps since the last row, or messages collected at the end
            self._write(self.worker.draw)
