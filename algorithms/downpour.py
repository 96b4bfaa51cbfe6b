"""Downpour SGD: gradients go to a parameter server, parameters come back. Dean et al., NeurIPS 2012 (no arXiv number).

Unverified (cf. the comparison in arXiv:1412.6651). A worker's t-th step:

    g = grad(x) ;  a <- a + g ;  x <- x - lr step(g)
    every n_push steps:   push a ;  a <- 0              the server: x~ <- x~ - lr step(a), at once
    every n_fetch steps:  x <- x~

With n_push = n_fetch = 1 this is asynchronous SGD as Jin et al. (arXiv:1611.04581) compare it. What the server's step
is, is the optimiser's choice: Dean et al. recommend Adagrad (optimizer=adagrad). Pushes are not waited for; a fetch is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from algorithms.worker import Vector, Worker


@dataclass
class State:
    x: Vector
    a: Vector | None = None  # None: 0
    versions: dict[int, int] = field(default_factory=dict)  # of each server, at the last fetch
    k: int = 0


@dataclass
class Centre:
    x: Vector
    version: int = 0  # how many pushes it has applied


@dataclass
class Downpour:
    """See the module.

    Args:
        n_push: steps between pushes.
        n_fetch: steps between fetches.
    """

    n_push: int = 4
    n_fetch: int = 4

    topology: ClassVar[Literal["none"]] = "none"
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("n_push", "n_fetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"algorithm.{name}={getattr(self, name)}: an interval is 1 step or more")

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(State(worker.initial()))
        while await worker.has_work():
            g = await worker.gradient(s.x)
            s.a = g if s.a is None else s.a + g
            s.k += 1
            fetches, pushes = s.k % self.n_fetch == 0, s.k % self.n_push == 0
            if pushes:
                self.push(worker, s, fetches)
            elif fetches:
                for server in worker.servers:
                    worker.send(server, "fetch", (float(s.k),))
            if fetches:
                await self.fetch(worker, s)
            else:
                s.x = worker.descend(s.x, g)
            yield s.x
        if s.a is not None:
            self.push(worker, s, False)
        await worker.leave()

    def push(self, worker: Worker, s: State, fetches: bool) -> None:
        for server, part in worker.shards(s.a).items():  # type: ignore[arg-type]
            worker.send(server, "push", (part, float(s.versions.get(server, 0)), float(fetches)))
        s.a = None

    async def fetch(self, worker: Worker, s: State) -> None:
        parts = worker.shards(s.x)
        for server, part in parts.items():
            answer = await worker.receive(server, "parameters", like=(part, 0.0))
            if answer is not None:
                parts[server], version = answer
                s.versions[server] = int(version)
        s.x = worker.joined(parts)

    async def serve(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(Centre(worker.initial()))
        worker.beside(self.answer(worker, s))
        async for sender, (a, version, fetches) in worker.messages("push", like=(s.x, 0.0, 0.0)):
            s.x = worker.descend(s.x, a)
            worker.merged(s.version - int(version))
            s.version += 1
            if fetches:
                worker.send(sender, "parameters", (s.x, float(s.version)))
            yield s.x

    async def answer(self, worker: Worker, s: Centre) -> None:
        async for sender, _ in worker.messages("fetch", like=(0.0,)):
            worker.send(sender, "parameters", (s.x, float(s.version)))
