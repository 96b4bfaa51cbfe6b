"""Blocks of local steps, at whose end the workers meet: what Local SGD and its descendants share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from algorithms.stepwise import LocalSteps, Stepwise
from algorithms.worker import Vector, Worker


@dataclass
class BlockState:
    x: Vector  # where the block began; the same on all workers where all of them meet
    inner: Any  # the state of the base method
    k: int = 0


@dataclass
class Blocks(Stepwise):
    """`period` steps of a base method, then the workers `meet`: all of them, unless a method says otherwise.

    Args:
        period: steps in a block.
        base: the method that takes them.
        momentum: what becomes of the local optimiser's memory at the end of a block.
    """

    period: int = 8
    momentum: Literal["keep", "reset"] = "keep"
    base: Stepwise = field(default_factory=LocalSteps)

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ValueError(f"algorithm.period={self.period}: a block has 1 step or more")
        self.topology = self.base.topology  # type: ignore[misc]

    def check(self, workers: int) -> None:
        self.base.check(workers)

    def begin(self, worker: Worker, x: Vector) -> BlockState:
        return BlockState(x, self.base.begin(worker, x))

    async def meet(self, worker: Worker, s: Any) -> Vector:
        """Where the next block begins: what `outer` makes of the mean over all workers."""
        return self.outer(worker, s, await worker.all_reduce(self.base.mass(s.inner), worker.everyone))

    def outer(self, worker: Worker, s: Any, mean: Vector) -> Vector:
        """Where the next block begins, from where this one did (s.x) and the mean of where it has ended."""
        return mean

    async def step(self, worker: Worker, s: Any) -> None:
        await self.base.step(worker, s.inner)
        s.k += 1
        if s.k % self.period == 0:
            await self.end_block(worker, s)

    async def end_block(self, worker: Worker, s: Any) -> None:
        await self.base.settle(worker, s.inner)
        s.x = await self.meet(worker, s)
        self.base.move(s.inner, s.x)
        if self.momentum == "reset":
            worker.forget()

    async def settle(self, worker: Worker, s: Any) -> bool:
        if s.k % self.period == 0:
            return False
        await self.end_block(worker, s)
        s.k = 0
        return True

    def iterate(self, s: Any) -> Vector:
        return self.base.iterate(s.inner)

    def mass(self, s: Any) -> Vector:
        return self.base.mass(s.inner)

    def replace(self, s: Any, x: Vector) -> None:
        self.base.replace(s.inner, x)  # where the block began is another worker's too

    def move(self, s: Any, x: Vector) -> None:
        s.x = x
        self.base.move(s.inner, x)
