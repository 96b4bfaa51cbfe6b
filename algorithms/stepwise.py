"""Synchronous methods as a repeated step: what lets them be combined.

A method that gives its step, instead of the whole loop, can be the inner part of another: SlowMo over SGP
(`algorithms.blocks`), or one method after another (`algorithms.switch`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from algorithms.worker import Vector, Worker


@dataclass
class State:
    """What most methods need: the iterate (d,), and the steps taken."""

    x: Vector
    k: int = 0


class Stepwise(ABC):
    """The loop around a step. A subclass is a dataclass of its paper's hyper-parameters."""

    topology: ClassVar[Literal["none", "column_stochastic", "doubly_stochastic"]] = "none"
    synchronous: ClassVar[bool] = True

    def check(self, workers: int) -> None:  # noqa: B027 - most settings fit any number
        """Refuse, with ValueError, a number of workers that the settings do not fit."""

    def begin(self, worker: Worker, x: Vector) -> Any:
        """The state at x, before the first step."""
        return State(x)

    @abstractmethod
    async def step(self, worker: Worker, s: Any) -> None:
        """One mini-batch."""

    async def settle(self, worker: Worker, s: Any) -> bool:
        """Take in what is still under way, or left over of an interval; whether the iterate has changed."""
        return False

    def iterate(self, s: Any) -> Vector:
        """Where the gradient is taken, and the model that is evaluated."""
        x: Vector = s.x
        return x

    def mass(self, s: Any) -> Vector:
        """What averaging conserves: for push-sum its numerator x, not z = x / w."""
        x: Vector = s.x
        return x

    def replace(self, s: Any, x: Vector) -> None:
        """Stand at x in the place of another worker, of whose state s is a copy without what was under way."""
        s.x = x

    def move(self, s: Any, x: Vector) -> None:
        """Go on from x, which all workers hold alike; nothing is under way."""
        s.x = x

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(self.begin(worker, worker.initial()))
        while await worker.has_work():
            await self.step(worker, s)
            yield self.iterate(s)
        if await self.settle(worker, s):
            yield self.iterate(s)


@dataclass
class LocalSteps(Stepwise):
    """Each worker by itself: x <- x - lr step(g(x)). The inner part of methods that average now and then."""

    async def step(self, worker: Worker, s: State) -> None:
        g = await worker.gradient(s.x)
        s.x = worker.descend(s.x, g)
