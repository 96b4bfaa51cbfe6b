"""NoLoCo: DiLoCo without a collective; at the end of a block random pairs meet. Kolehmainen et al., arXiv:2506.10911.

    H inner steps (AdamW), from p ;  Delta = theta - p
    m <- a m + b mean(Delta) + b (mean(p) - p) ;  p <- p + m            means over the worker and its partner
    theta <- p

The pairs of a block are drawn anew, the same on all workers; with an odd number one of them stays alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from algorithms.stepwise import Stepwise
from algorithms.worker import Vector, Worker


@dataclass
class State:
    x: Vector
    p: Vector
    m: Vector | None = None  # None: 0
    k: int = 0


@dataclass
class NoLoCo(Stepwise):
    """See the module.

    Args:
        period: H, inner steps in a block (the paper: 50).
        outer_momentum: a.
        outer_lr: b.
    """

    period: int = 8
    outer_momentum: float = 0.5
    outer_lr: float = 0.7

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ValueError(f"algorithm.period={self.period}: a block has 1 step or more")

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, x)

    async def step(self, worker: Worker, s: State) -> None:
        g = await worker.gradient(s.x)
        s.x = worker.descend(s.x, g)
        s.k += 1
        if s.k % self.period == 0:
            await self.end_block(worker, s)

    async def end_block(self, worker: Worker, s: State) -> None:
        partner = partner_of(worker, s.k)
        mine = (s.x - s.p, s.p)
        met = await worker.exchange(dict.fromkeys(partner, mine), partner, like=mine)
        delta, p = mine
        for their_delta, their_p in met.values():
            delta, p = (delta + their_delta) / 2, (p + their_p) / 2
        m = self.outer_lr * (delta + (p - s.p))
        s.m = m if s.m is None else torch.add(m, s.m, alpha=self.outer_momentum)
        s.x = s.p = s.p + s.m

    async def settle(self, worker: Worker, s: State) -> bool:
        if s.k % self.period == 0:
            return False
        await self.end_block(worker, s)
        s.k = 0
        return True

    def move(self, s: State, x: Vector) -> None:
        s.x = s.p = x


def partner_of(worker: Worker, k: int) -> Sequence[int]:
    """Whom a worker meets in the random pairing of step k: one rank, or none."""
    ranks = list(range(worker.size))
    worker.random("pairs", k).shuffle(ranks)
    place = ranks.index(worker.rank)
    return ranks[place ^ 1 : (place ^ 1) + 1]
