"""What a rank writes down while it trains: rows per iteration, rows per evaluation, totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.config import Config
from runner.results import Row, RowWriter, finite
from runner.runtimes.processes import Mesh, ProcessWorker

COUNTERS = ("compute_s", "wait_s", "data_s", "bytes_sent")
"""Written as what was added since the row before."""


class Recorder:
    """Writes rank-<rank>.jsonl and, on rank 0, evaluations.jsonl (and TensorBoard's event files on request)."""

    def __init__(self, folder: Path, config: Config, mesh: Mesh, worker: ProcessWorker, per_epoch: int) -> None:
        self.worker, self.mesh, self.per_epoch = worker, mesh, per_epoch
        self.every, self.warmup = config["record_every"], config["warmup_iterations"]
        self.batch_size, self.ranks = config["batch_size"], mesh.ranks
        self.rows = RowWriter(folder / f"rank-{mesh.rank:05d}.jsonl")
        self.evaluations = RowWriter(folder / "evaluations.jsonl", flush_s=0.0) if mesh.rank == 0 else None
        self.board: Any = None
        if config["tensorboard"] and mesh.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))
        self.recorded_draw, self.recorded_s = 0, 0.0
        self.recorded: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self.warm_s = 0.0 if self.warmup == 0 else None  # when the warm-up was over, and at which draw
        self.warm_draw = 0
        self.end_s = 0.0

    def step(self) -> None:
        """After each yield of the algorithm."""
        draw = self.worker.draw
        self.end_s = self.worker.clock.now()
        if self.warm_s is None and draw >= self.warmup:
            self.warm_s, self.warm_draw = self.end_s, draw
        if draw - self.recorded_draw >= self.every:
            self._write(draw)

    def _write(self, draw: int) -> None:
        row: Row = {
            "clock": "wall",
            "time_s": round(self.end_s, 6),
            "worker": self.worker.rank,
            **self._place(draw),
            "loss": finite(float(self.worker.loss)),
            "lr": self.worker.optimizer.lr,
        }
        totals = self._counters()
        for counter in COUNTERS:
            row[counter] = round(totals[counter] - self.recorded[counter], 7)
        self.recorded = totals
        self.recorded_draw, self.recorded_s = draw, self.end_s
        self.rows.write(row)
        if self.board is not None:
            for name, value in (("loss/training", row["loss"]), ("lr", row["lr"])):
                if value is not None:
                    self.board.add_scalar(name, value, draw)

    def _place(self, draw: int) -> Row:
        return {"step": draw, "epoch": draw / self.per_epoch, "samples": draw * self.batch_size * self.ranks}

    def _counters(self) -> dict[str, float]:
        split = self.worker.split
        compute_s = self.end_s - split.wait_s - split.data_s
        return {"compute_s": compute_s, "wait_s": split.wait_s, "data_s": split.data_s, "bytes_sent": split.bytes_sent}

    def evaluation(self, scores: Row) -> Row:
        """After each evaluation; returns its scores."""
        draw = self.worker.draw
        self.rows.flush()  # whoever follows finds the rows that led here
        if self.evaluations is not None:
            self.evaluations.write({**self._place(draw), "time_s": round(self.end_s, 6), "clock": "wall", **scores})
        if self.board is not None:
            for name, value in scores.items():
                if value is not None:
                    self.board.add_scalar(f"evaluation/{name}", value, draw)
        return scores

    def totals(self) -> list[float]:
        """Training seconds, steady seconds per iteration, then the counters."""
        draw = self.worker.draw
        if self.warm_s is not None and draw > self.warm_draw:
            iteration_s = (self.end_s - self.warm_s) / (draw - self.warm_draw)
        else:  # shorter than its warm-up
            iteration_s = self.end_s / max(draw, 1)
        return [self.end_s, iteration_s, *self._counters().values()]

    def close(self) -> None:
        if self.end_s > self.recorded_s:  # steps since the last row, or messages collected at the end
            self._write(self.worker.draw)
        self.rows.close()
        if self.evaluations is not None:
            self.evaluations.close()
        if self.board is not None:
            self.board.close()
