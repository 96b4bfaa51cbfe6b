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

from algorithms.blocks import Blocks, BlockState
from algorithms.worker import Vector, Worker


@dataclass
class State(BlockState):
    m: Vector | None = None  # None: 0


@dataclass
class NoLoCo(Blocks):
    """See the module.

    Args:
        period: H, inner steps in a block (the paper: 50).
        momentum: of the inner optimiser, at the end of a block.
        base: who takes the inner steps.
        outer_momentum: a.
        outer_lr: b.
    """

    outer_momentum: float = 0.5
    outer_lr: float = 0.7

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, self.base.begin(worker, x))

    async def meet(self, worker: Worker, s: State) -> Vector:
        partner = partner_of(worker, s.k)
        mine = (self.base.mass(s.inner) - s.x, s.x)
        met = await worker.exchange(dict.fromkeys(partner, mine), partner, like=mine)
        delta, p = mine
        for their_delta, their_p in met.values():
            delta, p = (delta + their_delta) / 2, (p + their_p) / 2
        m = self.outer_lr * (delta + (p - s.x))
        s.m = m if s.m is None else torch.add(m, s.m, alpha=self.outer_momentum)
        return s.x + s.m


def partner_of(worker: Worker, k: int) -> Sequence[int]:
    """Whom a worker meets in the random pairing of step k: one rank, or none."""
    ranks = list(range(worker.size))
    worker.random("pairs", k).shuffle(ranks)
    place = ranks.index(worker.rank)
    return ranks[place ^ 1 : (place ^ 1) + 1]
