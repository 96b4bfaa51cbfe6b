"""Hier-AVG: local averages inside groups, global ones more rarely. Zhou & Cong 2019, arXiv:1903.05133.

P learners in groups of S; names after the paper, the order of the lines unverified:

    K1 times:  w_j <- w_j - lr step(g(w_j))          at the learner's own parameters
    w_j <- mean of w_i over j's group                every K1 steps
    w_j <- mean of w_i over all                      every K2 steps, in place of the local average

The count of local steps starts again at a global average, so K2 need not be a multiple of K1. With S=1 or K1=K2 this
is K-AVG(K2), with S=P K-AVG(K1), with K1=K2=1 synchronous SGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from algorithms.stepwise import State, Stepwise
from algorithms.worker import Group, Worker


@dataclass
class HierAVG(Stepwise):
    """See the module.

    Args:
        K1: steps between local averages.
        K2: steps between global ones.
        S: learners in a group, of adjacent ranks; null: those of a node.
        momentum: of the local optimiser at an average; what the paper does is unknown.
    """

    K1: int = 4
    K2: int = 8
    S: int | None = None
    momentum: Literal["keep", "reset"] = "keep"

    def __post_init__(self) -> None:
        for name in ("K1", "K2"):
            if getattr(self, name) < 1:
                raise ValueError(f"algorithm.{name}={getattr(self, name)}: steps between averages are 1 or more")
        if self.K2 < self.K1:
            raise ValueError(f"algorithm.K2={self.K2}: global averages are rarer than local ones, K1={self.K1}")

    def check(self, workers: int) -> None:
        check_groups(workers, self.S)

    async def step(self, worker: Worker, s: State) -> None:
        g = await worker.gradient(s.x)
        s.x = worker.descend(s.x, g)
        s.k += 1
        if s.k % self.K2 == 0:
            await self.average(worker, s, worker.everyone)
        elif s.k % self.K2 % self.K1 == 0:
            await self.average(worker, s, group_of(worker, self.S))

    async def average(self, worker: Worker, s: State, group: Group) -> None:
        s.x = await worker.all_reduce(s.x, group)
        if self.momentum == "reset":
            worker.forget()

    async def settle(self, worker: Worker, s: State) -> bool:
        if s.k % self.K2 == 0:
            return False
        await self.average(worker, s, worker.everyone)
        s.k = 0
        return True


def check_groups(workers: int, S: int | None) -> None:
    if S is not None and (S < 1 or workers % S != 0):
        raise ValueError(f"algorithm.S={S}: the workers of a group must divide all of them, {workers}")


def group_of(worker: Worker, S: int | None) -> Group:
    """The S workers of adjacent ranks that this one belongs to; without S, those of its node."""
    if S is None:
        return worker.node
    first = worker.rank // S * S
    return Group(tuple(range(first, first + S)))
