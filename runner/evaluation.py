"""Evaluation during training: every worker's own model, the mean model, and how far apart the workers are.

All processes take part, while the training clock stands still. Each worker scores its own model on the whole test set
(its processes share the work); the mean model, summed in rank order in float64, is scored by all processes together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from runner.data.dataset import Batch, Batches, Dataset
from runner.problem import Problem, Score
from runner.results import Row, finite
from runner.runtimes.mesh import Mesh

RECALIBRATION_BATCHES = 20
NOTHING = Score(correct=0, loss=0.0, samples=0)
"""Of a model that is not scored this time."""


class Evaluator:
    """Scores iterates.

    Args:
        batches: this process's training mini-batches, for recalibration.
        settings: the `evaluation` node. `batch_norm` says what the mean model's BatchNorm buffers are: worker 0's
            `own`, their `average`, or statistics `recalibrate`d on training data at the mean model. A worker's own
            model always has its own buffers. `own` says whether it is scored `always` or at the `end` alone.
    """

    def __init__(
        self, mesh: Mesh, problem: Problem, dataset: Dataset, batches: Batches, settings: dict[str, Any]
    ) -> None:
        self.mesh, self.problem, self.dataset, self.batches = mesh, problem, dataset, batches
        self.batch_norm, self.batch_size = settings["batch_norm"], settings["batch_size"]
        self.own_always = settings["own"] == "always"

    def evaluate(self, x: Tensor, centre: Tensor | None = None, last: bool = False) -> Row:
        """Collective over the training processes. Fractions, mean losses and distances; the same row on all of them.

        Args:
            x: (d,), this worker's iterate.
            centre: (d,), of a method that has one.
            last: whether this is the run's last evaluation.
        """
        mean = self.mean_over_workers(x)
        distance = float(torch.linalg.vector_norm(x.double() - mean))
        own = NOTHING
        if self.own_always or last:
            own = self.problem.evaluate(x, self._part(self.mesh.lane, self.mesh.per_worker))
        kept = {name: buffer.clone() for name, buffer in self.problem.buffers().items()}
        self._set_mean_buffers(mean.to(x.dtype))
        together = self.problem.evaluate(mean.to(x.dtype), self._part(self.mesh.rank, self.mesh.ranks))
        if centre is not None:
            centred = self.problem.evaluate(centre, self._part(self.mesh.rank, self.mesh.ranks))
        for name, buffer in self.problem.buffers().items():
            buffer.copy_(kept[name])
        row = fold(gather(scores(distance, own, together), self.mesh.training), self.mesh.per_worker)
        if centre is not None:
            correct, samples = gather([centred.correct, centred.samples], self.mesh.training).sum(0).tolist()
            row["top1_centre"] = correct / samples
        return row

    def _part(self, part: int, parts: int) -> Iterator[Batch]:
        return self.dataset.test_batches(self.batch_size, part, parts)

    def mean_over_workers(self, x: Tensor) -> Tensor:
        """Mean of the workers' vectors, summed in rank order in float64, (d,), the same on every process."""
        return self._mean_over(x, range(0, self.mesh.ranks, self.mesh.per_worker))

    def _mean_over(self, x: Tensor, ranks: range) -> Tensor:
        return mean_in_order(self._of(x, rank) for rank in ranks)

    def _of(self, x: Tensor, rank: int) -> Tensor:
        """The x of one process, on every process."""
        turn = x.clone() if rank == self.mesh.rank else torch.empty_like(x)
        turn = turn.to(self.mesh.home(x.device))
        dist.broadcast(turn, src=rank, group=self.mesh.training)
        return turn.to(x.device)

    def _set_mean_buffers(self, mean: Tensor) -> None:
        buffers = self.problem.buffers()
        if not buffers:
            return
        if self.batch_norm == "recalibrate":
            self.problem.recalibrate(mean, (self.batches(draw) for draw in range(RECALIBRATION_BATCHES)))
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers.values()])
        if self.batch_norm == "own":
            flat = self._of(flat, 0)
        else:
            flat = self._mean_over(flat, range(self.mesh.ranks)).to(flat.dtype)
        for buffer, piece in zip(buffers.values(), flat.split([b.numel() for b in buffers.values()]), strict=True):
            buffer.copy_(piece.view_as(buffer))


def mean_in_order(vectors: Iterable[Tensor]) -> Tensor:
    """The mean of one or more tensors of one shape, summed in their order in float64."""
    each, count = iter(vectors), 1
    first = next(each)
    total = torch.zeros_like(first, dtype=torch.float64) + first
    for vector in each:
        total += vector
        count += 1
    return total / count


def scores(distance: float, own: Score, together: Score) -> list[float]:
    """What one process contributes to an evaluation: a row for `fold`.

    Args:
        distance: of its worker's iterate to the mean over workers.
        own: its part of its worker's own model's score, or NOTHING.
        together: its part of the mean model's score.
    """
    return [distance, own.correct, own.loss, own.samples, together.correct, together.loss, together.samples]


def fold(table: Tensor, per_worker: int) -> Row:
    """The evaluation that rows of `scores` add up to: float64 (processes, 7), in rank order."""
    by_worker = table.view(-1, per_worker, table.shape[1])
    own = by_worker.sum(1)
    scored = bool(own[:, 3].any())
    top1, loss = own[:, 1] / own[:, 3], own[:, 2] / own[:, 3]
    mean_correct, mean_loss, samples = (float(value) for value in table[:, 4:].sum(0))
    distances = by_worker[:, 0, 0]
    return {
        "top1_mean_model": mean_correct / samples,
        "top1_workers_mean": float(top1.mean()) if scored else None,
        "top1_workers_std": float(top1.std(correction=0)) if scored else None,
        "top1_centre": None,
        "loss_mean_model": finite(mean_loss / samples),
        "loss_workers_mean": finite(float(loss.mean())) if scored else None,
        "consensus_distance": finite(float(distances.mean())),
        "consensus_distance_max": finite(float(distances.max())),
    }


def gather(row: list[float], group: dist.ProcessGroup | None = None) -> Tensor:
    """One row of numbers from every process of a group: float64 (ranks, len(row)), in rank order, on the CPU."""
    mine = torch.tensor(row, dtype=torch.float64)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, mine, group=group)
    return torch.stack(rows)


def everyones(staleness: Mapping[int, int]) -> dict[int, int]:
    """Collective: how often each age was merged, over all processes."""
    longest = int(gather([max(staleness, default=0)]).max())
    counts = gather([staleness.get(age, 0) for age in range(longest + 1)]).sum(0)
    return {age: int(count) for age, count in enumerate(counts.tolist()) if count}
