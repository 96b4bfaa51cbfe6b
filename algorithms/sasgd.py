"""SASGD: aggregation of gradients that is sparse in time. Cong, Bhardwaj, Feng, ICPP 2017 (no arXiv number).

The structure is unverified:

    x' <- x ;  gs <- 0
    T times:  g <- grad(x'; batch) ;  gs <- gs + g ;  x' <- x' - lr g         at the local rate
    gs <- sum over all learners of gs
    x  <- x - lr_p gs ;  x' <- x ;  gs <- 0                                   at the global rate

With lr_p = lr / p this is K-AVG(T) (cf. arXiv:1708.01012) for plain SGD at a constant rate. The hierarchical follow-up
(Cong & Bhardwaj, ICMLA 2017) aggregates inside groups more often than among all; its details are unverified:

    every T_local steps:  y <- y - lr_s (sum of gs over the group) ;  x' <- y
    every T steps:        x <- x - lr_p (sum over all of what was summed since the last time) ;  x' <- y <- x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from algorithms.hier_avg import check_groups, group_of
from algorithms.stepwise import Stepwise
from algorithms.worker import Vector, Worker


@dataclass
class State:
    x: Vector  # x', the learner's own
    anchor: Vector  # x
    group_anchor: Vector  # y
    gs: Vector | None = None  # since the last global aggregation; None: 0
    group_gs: Vector | None = None  # since the last one of any kind
    lr: float = 0.0  # of the last step
    k: int = 0


@dataclass
class SASGD(Stepwise):
    """See the module.

    Args:
        T: steps between global aggregations.
        global_rate: lr_p; null: lr / p, of the step at hand.
        sums: `gradients` (the paper's), or the local optimiser's `steps` divided by lr: the same for plain SGD, and
            what its momentum makes of them otherwise.
        T_local: steps between aggregations inside a group; null: none (ICPP 2017).
        local_rate: lr_s; null: lr / S.
        S: learners in a group, of adjacent ranks; null: those of a node.
        momentum: of the local optimiser, at an aggregation; the paper's has none.
    """

    T: int = 8
    global_rate: float | None = None
    sums: Literal["gradients", "steps"] = "gradients"
    T_local: int | None = None
    local_rate: float | None = None
    S: int | None = None
    momentum: Literal["keep", "reset"] = "keep"

    def __post_init__(self) -> None:
        for name in ("T", "T_local"):
            interval = getattr(self, name)
            if interval is not None and interval < 1:
                raise ValueError(f"algorithm.{name}={interval}: steps between aggregations are 1 or more")

    def check(self, workers: int) -> None:
        check_groups(workers, self.S)

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, x, x)

    async def step(self, worker: Worker, s: State) -> None:
        s.lr, before = worker.lr, s.x
        g = await worker.gradient(s.x)
        s.x = worker.descend(s.x, g)
        if self.sums == "steps" and s.lr > 0:
            g = (before - s.x) / s.lr
        s.gs = g if s.gs is None else s.gs + g
        s.k += 1
        if s.k % self.T == 0:
            await self.aggregate(worker, s)
        elif self.T_local is not None:
            s.group_gs = g if s.group_gs is None else s.group_gs + g
            if s.k % self.T % self.T_local == 0:
                group = group_of(worker, self.S)
                rate = s.lr if self.local_rate is None else self.local_rate * len(group.ranks)
                mean = await worker.all_reduce(s.group_gs, group)
                s.x = s.group_anchor = torch.sub(s.group_anchor, mean, alpha=rate)
                s.group_gs = None
                self.treat_momentum(worker)

    async def aggregate(self, worker: Worker, s: State) -> None:
        # lr / p times the sum is lr times the mean.
        rate = s.lr if self.global_rate is None else self.global_rate * worker.size
        mean = await worker.all_reduce(s.gs, worker.everyone)  # type: ignore[arg-type]
        self.move(s, torch.sub(s.anchor, mean, alpha=rate))
        self.treat_momentum(worker)

    def treat_momentum(self, worker: Worker) -> None:
        if self.momentum == "reset":
            worker.forget()

    async def settle(self, worker: Worker, s: State) -> bool:
        if s.gs is None:
            return False
        await self.aggregate(worker, s)
        return True

    def replace(self, s: State, x: Vector) -> None:
        s.x, s.gs, s.group_gs = x, None, None  # the sums are each learner's own, the anchors are common

    def move(self, s: State, x: Vector) -> None:
        s.x = s.anchor = s.group_anchor = x
        s.gs = s.group_gs = None
