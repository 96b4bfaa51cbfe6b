"""Asynchronous decentralized parallel SGD. Lian, Zhang, Zhang, Liu, ICML 2018, arXiv:1710.06952.

On a bipartite graph: workers of even rank are active, those of odd rank passive. Gradients and averages run side by
side on the same x:

    gradient:             g = grad(snapshot of x) ;  x <- x - lr step(g)      x may have been averaged meanwhile
    averaging (active):   send x (remembered as x_sent) ;  receive x_j ;  x <- x + (x_j - x_sent) / 2
    averaging (passive):  on request from j: reply x ;  x <- (x + x_j) / 2

The active side's form equals the paper's (x + x_j) / 2 where no gradient lands in between, and it conserves the sum
always. An active worker begins an average with each step, as in the paper's Algorithm 1, and takes the answer in at the
end of the first step by which it has arrived: it never waits for it before the end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from algorithms.worker import Handle, Payload, Vector, Worker


@dataclass
class State:
    x: Vector
    sent: Vector | None = None  # x_sent, of the average under way
    answer: Handle[Payload | None] | None = None
    begun: int = 0
    averages: int = 0
    k: int = 0


@dataclass
class ADPSGD:
    """See the module."""

    topology: ClassVar[Literal["bipartite"]] = "bipartite"
    synchronous: ClassVar[bool] = False

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(State(worker.initial()))
        active = worker.rank % 2 == 0
        if not active:
            worker.beside(self.reply(worker, s))
        while await worker.has_work():
            if active and s.answer is None:
                # Slot by slot, however long an average takes: by the step, some pairs might never meet.
                [peer] = worker.graph.at(s.begun).outgoing[worker.rank]
                s.begun += 1
                s.sent = s.x
                worker.send(peer, "active", (s.x,))
                s.answer = worker.receive(peer, "passive", like=(s.x,))
            averages = s.averages
            g = await worker.gradient(s.x)
            s.x = worker.descend(s.x, g)
            worker.merged(s.averages - averages)
            if s.answer is not None and s.answer.arrived:
                await self.take(s)
            s.k += 1
            yield s.x
        if s.answer is not None:
            await self.take(s)
        await worker.leave()
        yield s.x  # a passive worker may have been averaged since

    async def take(self, s: State) -> None:
        """The active side's half."""
        assert s.answer is not None
        answer, s.answer = await s.answer, None
        if answer is not None:
            s.x = torch.add(s.x, answer[0] - s.sent, alpha=0.5)
            s.averages += 1

    async def reply(self, worker: Worker, s: State) -> None:
        """The passive side's half."""
        async for j, (x,) in worker.messages("active", like=(s.x,)):
            worker.send(j, "passive", (s.x,))
            s.x = (s.x + x) / 2
            s.averages += 1
