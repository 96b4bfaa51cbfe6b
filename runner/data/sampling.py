"""Which sample when: a pure function of (seed, rank, draw).

A draw is the number of a batch in a rank's run, from 0; it does not start again at an epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from runner.randomness import generator, stream_seed


class Sampler(ABC):
    """The base of all: an epoch is train_size // G batches of each rank, G = ranks x batch_size; the tail is dropped.

    Args:
        train_labels: (train_size,) int64 labels of the training set; most samplers look at their number only.
        seed: of the run.
        ranks: number of processes, nodes x gpus_per_node.
        batch_size: samples per rank and draw.

    Raises:
        ValueError: a global batch is larger than the training set.
    """

    iterations_per_epoch: int

    def __init__(self, train_labels: Tensor, seed: int, ranks: int, batch_size: int) -> None:
        size = len(train_labels)
        if ranks * batch_size > size:
            limit = size // ranks
            remedy = f"use batch_size={limit} or less" if limit else f"at most {size} processes fit"
            raise ValueError(
                f"batch_size={batch_size}: {ranks} processes (nodes x gpus_per_node) need {ranks * batch_size} samples "
                f"per iteration, but the training set has {size}, {limit} per process; {remedy}; or take fewer nodes"
            )
        self.seed, self.ranks, self.batch_size = seed, ranks, batch_size
        self.iterations_per_epoch = size // (ranks * batch_size)

    def epoch_of(self, draw: int) -> int:
        """The epoch that a draw belongs to, from 0."""
        return draw // self.iterations_per_epoch

    @abstractmethod
    def indices(self, rank: int, draw: int) -> Tensor:
        """(batch_size,) int64 numbers of training samples, on the CPU."""


class GlobalBatches(Sampler):
    """Epoch e permutes all training samples by (seed, e); rank r takes the r-th slice of each global batch.

    Global batch t is positions [tG, (t+1)G) of the permutation, which does not depend on the number of ranks: k ranks
    and one rank with k times the batch see the same samples.
    """

    def __init__(self, train_labels: Tensor, seed: int, ranks: int, batch_size: int) -> None:
        super().__init__(train_labels, seed, ranks, batch_size)
        self._size = len(train_labels)
        # Two epochs, because ranks that share a sampler need not cross into the next one together.
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> Tensor:
        return torch.randperm(self._size, generator=generator(self.seed, "permutation", epoch))

    def indices(self, rank: int, draw: int) -> Tensor:
        epoch, step = divmod(draw, self.iterations_per_epoch)
        first = (step * self.ranks + rank) * self.batch_size
        return self._permutation(epoch)[first : first + self.batch_size]


class Claims(Sampler):
    """Mini-batches by the number of a claim: claim c is what worker c mod W would have had in its draw c div W.

    For workers that take mini-batches from one another; a `rank` counts the processes of one worker.

    Args:
        base: says which samples those are.
        per_worker: processes of a worker.
    """

    def __init__(self, base: Sampler, per_worker: int) -> None:
        self.base, self.per_worker, self.workers = base, per_worker, base.ranks // per_worker
        self.iterations_per_epoch = base.iterations_per_epoch * self.workers

    def indices(self, rank: int, draw: int) -> Tensor:
        turn, worker = divmod(draw, self.workers)
        return self.base.indices(worker * self.per_worker + rank % self.per_worker, turn)


class ShardWithReplacement(Sampler):
    """Each rank draws uniformly, with replacement, from a fixed shard of its own.

    Jin, Yuan, Iandola, Keutzer, "How to scale distributed deep learning?", arXiv:1611.04581. The shards split a
    permutation of all training samples by the seed; their sizes differ by one at most. A sample that is drawn twice in
    an epoch is augmented alike both times.
    """

    def __init__(self, train_labels: Tensor, seed: int, ranks: int, batch_size: int) -> None:
        super().__init__(train_labels, seed, ranks, batch_size)
        order = torch.randperm(len(train_labels), generator=generator(seed, "shards"))
        self.shards = order.tensor_split(ranks)

    def indices(self, rank: int, draw: int) -> Tensor:
        shard = self.shards[rank]
        stream = generator(self.seed, "draw with replacement", rank, draw)
        return shard[torch.randint(len(shard), (self.batch_size,), generator=stream)]


class LabelSkew(Sampler):
    """Shards of equal size whose label proportions are Dirichlet(alpha); each epoch permutes each rank's shard.

    Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    arXiv:1909.06335: rank after rank draws proportions q ~ Dirichlet(alpha, ..., alpha) over the classes, then its
    train_size // ranks samples one by one without replacement, each from a class drawn by q. A class that is used up
    leaves q, and the rest of q is scaled to sum to 1: that keeps the sizes equal, and means that the last ranks take
    what the others left. (Hsu et al. write Dirichlet(alpha p); their alpha is ours times the number of classes.)

    Args:
        train_labels: as for `Sampler`.
        seed: as for `Sampler`.
        ranks: as for `Sampler`.
        batch_size: as for `Sampler`.
        alpha: concentration; towards 0 each rank has one class only, towards infinity all have the same mixture.

    Raises:
        ValueError: alpha is not positive, or the batch is larger than a shard.
    """

    def __init__(self, train_labels: Tensor, seed: int, ranks: int, batch_size: int, *, alpha: float = 0.5) -> None:
        super().__init__(train_labels, seed, ranks, batch_size)
        if not 0 < alpha < float("inf"):
            raise ValueError(f"sampling.alpha={alpha}: must be a positive number; 0.1 is strong skew, 100 hardly any")
        self.shards = _dirichlet_shards(train_labels.cpu().numpy(), ranks, alpha, stream_seed(seed, "label skew"))
        self._permutation = lru_cache(maxsize=2 * ranks)(self._permute)

    def _permute(self, rank: int, epoch: int) -> Tensor:
        shard = self.shards[rank]
        return shard[torch.randperm(len(shard), generator=generator(self.seed, "permutation of a shard", rank, epoch))]

    def indices(self, rank: int, draw: int) -> Tensor:
        epoch, step = divmod(draw, self.iterations_per_epoch)
        return self._permutation(rank, epoch)[step * self.batch_size : (step + 1) * self.batch_size]


def _dirichlet_shards(labels: np.ndarray, ranks: int, alpha: float, seed: int) -> list[Tensor]:
    random = np.random.default_rng(seed)
    pools = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    left = np.array([len(pool) for pool in pools])
    shards = []
    for _ in range(ranks):
        q = random.dirichlet(np.full(len(pools), alpha))
        want, shard = len(labels) // ranks, []
        while want:
            open_classes = np.where(left > 0, q, 0)
            if open_classes.sum() == 0:  # q was all on classes that are used up
                open_classes = (left > 0).astype(float)
            # Drawing `want` labels at once and redrawing the excess has the same distribution as one by one.
            take = np.minimum(random.multinomial(want, open_classes / open_classes.sum()), left)
            for pool, rest, count in zip(pools, left, take, strict=True):
                shard.append(pool[rest - count : rest])
            left -= take
            want -= int(take.sum())
        shards.append(torch.from_numpy(np.concatenate(shard)))
    return shards
