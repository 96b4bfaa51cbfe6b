"""One method, then another from a given epoch on.

Post-local SGD (Lin, Stich, Patel, Jaggi, ICLR 2020, arXiv:1808.07217): synchronous SGD, then Local SGD. The hybrids of
Assran et al. (arXiv:1811.10792; secondary): AllReduce SGD for the first 30 epochs or so, then SGP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from algorithms.allreduce import AllReduce
from algorithms.blocks import Blocks
from algorithms.local_sgd import LocalSGD
from algorithms.stepwise import Stepwise
from algorithms.worker import Vector, Worker


@dataclass
class State:
    x: Vector
    inner: Any  # the state of the method at work
    switched: bool = False
    k: int = 0


@dataclass
class Switch(Stepwise):
    """See the module.

    Args:
        epoch: from which on `then` takes the steps.
        first: a method of steps.
        then: another.
        average: average the workers at the switch; needed where `first` leaves them apart and `then` begins at one
            point, as all that work in blocks do.
        momentum: of the local optimiser, at the switch.
    """

    epoch: float = 5
    average: bool = False
    momentum: Literal["keep", "reset"] = "keep"
    first: Stepwise = field(default_factory=AllReduce)
    then: Stepwise = field(default_factory=LocalSGD)

    def __post_init__(self) -> None:
        needs = {self.first.topology, self.then.topology} - {"none"}
        if len(needs) > 1:
            raise ValueError("algorithm.first and algorithm.then need different kinds of topology: " + ", ".join(needs))
        if isinstance(self.then, Blocks) and not (self.average or isinstance(self.first, AllReduce)):
            raise ValueError(
                "algorithm.average=false: algorithm.first leaves the workers apart, and algorithm.then works in "
                "blocks, which all workers begin at one point; use average=true"
            )
        self.topology = needs.pop() if needs else "none"  # type: ignore[misc]

    def check(self, workers: int) -> None:
        self.first.check(workers)
        self.then.check(workers)

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, self.first.begin(worker, x))

    async def step(self, worker: Worker, s: State) -> None:
        if not s.switched and worker.epoch >= self.epoch:
            await self.first.settle(worker, s.inner)
            x = self.first.iterate(s.inner)
            if self.average:
                x = await worker.all_reduce(x, worker.everyone)
            s.inner, s.switched = self.then.begin(worker, x), True
            if self.momentum == "reset":
                worker.forget()
        await self.at_work(s).step(worker, s.inner)
        s.k += 1
        s.x = self.iterate(s)

    async def settle(self, worker: Worker, s: State) -> bool:
        changed = await self.at_work(s).settle(worker, s.inner)
        s.x = self.iterate(s)
        return changed

    def mass(self, s: State) -> Vector:
        return self.at_work(s).mass(s.inner)

    def replace(self, s: State, x: Vector) -> None:
        s.x = x
        self.at_work(s).replace(s.inner, x)

    def iterate(self, s: State) -> Vector:
        return self.at_work(s).iterate(s.inner)

    def move(self, s: State, x: Vector) -> None:
        self.at_work(s).move(s.inner, x)

    def at_work(self, s: State) -> Stepwise:
        return self.then if s.switched else self.first
