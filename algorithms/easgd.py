"""Elastic averaging around a centre: EASGD and EAMSGD. Zhang, Choromanska, LeCun, NeurIPS 2015, arXiv:1412.6651.

Asynchronous, with the centre c on a parameter server, after the authors' code; t counts a worker's own steps:

    if t % tau == 0:  pull c ;  e = alpha (x - c) at the x before this step ;  the server: c <- c + e
    EASGD    x <- x - lr step(g(x)) ;  x <- x - e
    EAMSGD   v <- delta v ;  x <- x + v ;  g = grad(x) ;  x <- x - lr g ;  v <- v - lr g ;  x <- x - e

alpha = beta / p. v is local, never reset or sent; torch's Nesterov stores the look-ahead point instead, and the elastic
pull acts on the stored iterate, so EAMSGD is written out here and wants a local optimiser without momentum.
Jin et al. (arXiv:1611.04581) use the same exchange with beta = 0.8. The server forms e itself, from the x that it is
sent, and answers with the c from before: one round trip, and no other worker in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from algorithms.stepwise import Stepwise
from algorithms.worker import Vector, Worker


@dataclass
class State:
    x: Vector
    v: Vector | None = None  # None: 0
    k: int = 0


@dataclass
class Centre:
    x: Vector
    k: int = 0  # exchanges
    met: dict[int, int] = field(default_factory=dict)  # by worker: how many there had been after its last one


@dataclass
class EASGD:
    """Asynchronous EASGD, and EAMSGD with delta > 0.

    Args:
        tau: a worker's steps between exchanges with the centre.
        beta: alpha times the number of workers.
        delta: momentum of EAMSGD; 0 is EASGD.
    """

    tau: int = 4
    beta: float = 0.8
    delta: float = 0.0

    topology: ClassVar[Literal["none"]] = "none"
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self.tau, self.beta)
        if not 0 <= self.delta < 1:
            raise ValueError(f"algorithm.delta={self.delta}: momentum is from 0 to below 1")

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(State(worker.initial()))
        while await worker.has_work():
            e = await self.pull(worker, s.x) if s.k % self.tau == 0 else None
            y, v = s.x, s.v
            if self.delta > 0 and v is not None:
                v = self.delta * v
                y = y + v
            x = worker.descend(y, await worker.gradient(y))
            if self.delta > 0:
                s.v = x - y if v is None else v + (x - y)
            s.x = x if e is None else x - e
            s.k += 1
            yield s.x
        await worker.leave()

    async def pull(self, worker: Worker, x: Vector) -> Vector:
        """E, which the centre has gained."""
        parts = worker.shards(x)
        for server, part in parts.items():
            worker.send(server, "elastic", (part,))
        for server, part in parts.items():
            answer = await worker.receive(server, "centre", like=(part,))
            parts[server] = part if answer is None else answer[0]
        return (self.beta / worker.size) * (x - worker.joined(parts))

    async def serve(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(Centre(worker.initial()))
        async for sender, (x,) in worker.messages("elastic", like=(s.x,)):
            worker.send(sender, "centre", (s.x,))
            s.x = s.x + (self.beta / worker.size) * (x - s.x)
            worker.merged(s.k - s.met.get(sender, 0))  # exchanges of others since they met
            s.k += 1
            s.met[sender] = s.k
            yield s.x


def check(tau: int, beta: float) -> None:
    if tau < 1:
        raise ValueError(f"algorithm.tau={tau}: steps between exchanges with the centre are 1 or more")
    if not 0 <= beta <= 1:
        raise ValueError(f"algorithm.beta={beta}: must be from 0 (never pulled) to 1")


@dataclass
class SyncState:
    x: Vector
    c: Vector
    k: int = 0


@dataclass
class SyncEASGD(Stepwise):
    """Synchronous EASGD, every worker with a copy of the centre:

        c <- (1 - beta) c + beta mean_j x_j ;  x <- (1 - alpha) x + alpha c - lr step(g(x)),  with x and c from before

    Args:
        tau: steps between exchanges with the centre.
        beta: alpha times the number of workers.
    """

    tau: int = 4
    beta: float = 0.9

    def __post_init__(self) -> None:
        check(self.tau, self.beta)

    def begin(self, worker: Worker, x: Vector) -> SyncState:
        return SyncState(x, x)

    async def step(self, worker: Worker, s: SyncState) -> None:
        x, elastic = s.x, s.k % self.tau == 0
        mean = await worker.all_reduce(x, worker.everyone) if elastic else None
        s.x = worker.descend(x, await worker.gradient(x))
        if mean is not None:
            s.x = torch.sub(s.x, x - s.c, alpha=self.beta / worker.size)
            s.c = torch.lerp(s.c, mean, self.beta)
        s.k += 1

    def centre(self, s: SyncState) -> Vector:
        """The copy that each worker has."""
        return s.c

    def move(self, s: SyncState, x: Vector) -> None:
        s.x = s.c = x
