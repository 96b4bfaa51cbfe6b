"""Gossiping SGD, asynchronous. Jin, Yuan, Iandola, Keutzer 2016, arXiv:1611.04581; after the released framework.

    PULL  x <- x - lr step(g(x)) ;  publish x ;  j ~ Uniform{0..p-1}, itself included
          if j != i:  x <- (x + x_j) / 2                    one-directional: j is not changed
          R rounds:   x <- (x + sum_r x_{j_r}) / (R + 1)
    PUSH  x <- x - lr step(g(x)) ;  j ~ Uniform{0..p-1} ;  if j != i:  send x to j
          S = sum of the m models received since the last step
          m = 0: unchanged ;  else  x <- (S + c x) / (m + c),  c = 2 if j == i else 1

Both every comm_interval of a worker's own steps. The local step is torch's: with its Nesterov momentum what is
published and averaged is the look-ahead point, where the released framework keeps x itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from algorithms.worker import Vector, Worker


@dataclass
class Gossip:
    """What both have in common.

    Args:
        comm_interval: a worker's steps between communications.
    """

    comm_interval: int = 1

    topology: ClassVar[Literal["none"]] = "none"
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.comm_interval < 1:
            raise ValueError(f"algorithm.comm_interval={self.comm_interval}: must be 1 step or more")

    def peers(self, worker: Worker, k: int, rounds: int) -> list[int]:
        random = worker.random("gossip peers", worker.rank, k)
        return [random.randrange(worker.size) for _ in range(rounds)]


@dataclass
class PullState:
    x: Vector
    published: Vector  # the last x before an average
    published_at: int = 0  # how far training was
    k: int = 0


@dataclass
class GossipPull(Gossip):
    """See the module.

    Args:
        rounds: R, models pulled at a time.
    """

    rounds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise ValueError(f"algorithm.rounds={self.rounds}: models pulled at a time are 1 or more")

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(PullState(worker.initial(), worker.initial()))
        worker.beside(self.publish(worker, s))
        while await worker.has_work():
            s.x = worker.descend(s.x, await worker.gradient(s.x))
            s.k += 1
            if s.k % self.comm_interval == 0:
                s.published, s.published_at = s.x, worker.progress
                s.x = await self.pull(worker, s)
            yield s.x
        await worker.leave()

    async def pull(self, worker: Worker, s: PullState) -> Vector:
        peers = self.peers(worker, s.k, self.rounds)
        others = [j for j in peers if j != worker.rank]
        if not others:
            return s.x
        for j in others:
            worker.send(j, "pull", (float(s.k),))
        answers = [worker.receive(j, "model", like=(s.x, 0.0)) for j in others]
        total, models = (1 + len(peers) - len(others)) * s.x, 1 + len(peers) - len(others)
        for each in answers:
            answer = await each
            if answer is not None:
                total, models = total + answer[0], models + 1
                worker.merged(max(0, worker.progress - int(answer[1])))
        return total / models

    async def publish(self, worker: Worker, s: PullState) -> None:
        async for j, _ in worker.messages("pull", like=(0.0,)):
            worker.send(j, "model", (s.published, float(s.published_at)))


@dataclass
class PushState:
    x: Vector
    k: int = 0
    inbox: list[tuple[Vector, float]] = field(
        default_factory=list
    )  # models, and how far training was, since the last merge
    ended: bool = False  # its own steps


@dataclass
class GossipPush(Gossip):
    """See the module."""

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(PushState(worker.initial()))
        worker.beside(self.collect(worker, s))
        while await worker.has_work():
            s.x = worker.descend(s.x, await worker.gradient(s.x))
            s.k += 1
            if s.k % self.comm_interval == 0:
                [j] = self.peers(worker, s.k, 1)
                if j != worker.rank:
                    worker.send(j, "push", (s.x, float(worker.progress)))
                self.merge(worker, s, 2 if j == worker.rank else 1)
            yield s.x
        s.ended = True
        self.merge(worker, s, 1)
        await worker.leave()
        yield s.x

    def merge(self, worker: Worker, s: PushState, c: int) -> None:
        received, s.inbox = s.inbox, []
        if not received:
            return
        total = c * s.x if c > 1 else s.x
        for x, sent in received:
            total = total + x
            worker.merged(max(0, worker.progress - int(sent)))
        s.x = total / (len(received) + c)

    async def collect(self, worker: Worker, s: PushState) -> None:
        async for _, message in worker.messages("push", like=(s.x, 0.0)):
            s.inbox.append((message[0], message[1]))
            if s.ended:  # each as it comes: a mean of all would count the others' next steps as much as their last
                self.merge(worker, s, 1)
