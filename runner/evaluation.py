"""Evaluation during training: every worker's own model, the mean model, and how far apart the workers are.

All processes take part, while the training clock stands still. Each worker scores its own model on the whole test set
(its processes share the work); the mean model, summed in rank order in float64, is scored by all processes together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from runner.data.dataset import Batch, Batches, Dataset
from runner.problem import Problem, Score
from runner.results import Row, finite
from runner.runtimes.processes import Mesh

RECALIBRATION_BATCHES = 20


class Evaluator:
    """Scores iterates.

    Args:
        batches: this process's training mini-batches, for recalibration.
        settings: the `evaluation` node. `batch_norm` says what the mean model's BatchNorm buffers are: worker 0's
            `own`, their `average`, or statistics `recalibrate`d on training data at the mean model. A worker's own
            model always has its own buffers.
    """

    def __init__(
        self, mesh: Mesh, problem: Problem, dataset: Dataset, batches: Batches, settings: dict[str, Any]
    ) -> None:
        self.mesh, self.problem, self.dataset, self.batches = mesh, problem, dataset, batches
        self.batch_norm, self.batch_size = settings["batch_norm"], settings["batch_size"]

    def evaluate(self, x: Tensor) -> Row:
        """Collective. Fractions, mean losses and distances; the same row on every process."""
        mean = self.mean_over_workers(x)
        distance = float(torch.linalg.vector_norm(x.double() - mean))
        own = self.problem.evaluate(x, self._part(self.mesh.lane, self.mesh.per_worker))
        kept = {name: buffer.clone() for name, buffer in self.problem.buffers().items()}
        self._set_mean_buffers(mean.to(x.dtype))
        together = self.problem.evaluate(mean.to(x.dtype), self._part(self.mesh.rank, self.mesh.ranks))
        for name, buffer in self.problem.buffers().items():
            buffer.copy_(kept[name])
        return self._fold(distance, own, together)

    def _part(self, part: int, parts: int) -> Iterator[Batch]:
        return self.dataset.test_batches(self.batch_size, part, parts)

    def mean_over_workers(self, x: Tensor) -> Tensor:
        """Mean of the workers' vectors, summed in rank order in float64, (d,), the same on every process."""
        return self._mean_over(x, range(0, self.mesh.ranks, self.mesh.per_worker))

    def _mean_over(self, x: Tensor, ranks: range) -> Tensor:
        total = torch.zeros_like(x, dtype=torch.float64)
        for rank in ranks:
            turn = x.clone() if rank == self.mesh.rank else torch.empty_like(x)
            turn = turn.to(self.mesh.home(x.device))
            dist.broadcast(turn, src=rank)
            total += turn.to(x.device)
        return total / len(ranks)

    def _set_mean_buffers(self, mean: Tensor) -> None:
        buffers = self.problem.buffers()
        if not buffers:
            return
        if self.batch_norm == "recalibrate":
            self.problem.recalibrate(mean, (self.batches(draw) for draw in range(RECALIBRATION_BATCHES)))
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers.values()])
        if self.batch_norm == "own":
            first = flat.to(self.mesh.home(flat.device))
            dist.broadcast(first, src=0)
            flat = first.to(flat.device)
        else:
            flat = self._mean_over(flat, range(self.mesh.ranks)).to(flat.dtype)
        for buffer, piece in zip(buffers.values(), flat.split([b.numel() for b in buffers.values()]), strict=True):
            buffer.copy_(piece.view_as(buffer))

    def _fold(self, distance: float, own: Score, together: Score) -> Row:
        mine = [distance, own.correct, own.loss, own.samples, together.correct, together.loss, together.samples]
        table = gather(mine)  # (ranks, 7)
        workers = table.view(self.mesh.workers, self.mesh.per_worker, -1)
        scores = workers.sum(1)
        top1 = scores[:, 1] / scores[:, 3]
        mean_correct, mean_loss, samples = (float(value) for value in table[:, 4:].sum(0))
        distances = workers[:, 0, 0]
        return {
            "top1_mean_model": mean_correct / samples,
            "top1_workers_mean": float(top1.mean()),
            "top1_workers_std": float(top1.std(correction=0)),
            "top1_centre": None,
            "loss_mean_model": finite(mean_loss / samples),
            "loss_workers_mean": finite(float((scores[:, 2] / scores[:, 3]).mean())),
            "consensus_distance": finite(float(distances.mean())),
            "consensus_distance_max": finite(float(distances.max())),
        }


def gather(row: list[float]) -> Tensor:
    """One row of numbers from every process: float64 (ranks, len(row)), in rank order, on the CPU."""
    mine = torch.tensor(row, dtype=torch.float64)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return torch.stack(rows)
