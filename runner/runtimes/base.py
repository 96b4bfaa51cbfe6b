"""What the workers of both runtimes have in common: counting, random numbers by name, and the parts of a centre."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from algorithms.topology import Graph
from algorithms.worker import Group, Vector
from runner.clock import Split
from runner.encoding import decode, encode
from runner.optimizer import LocalOptimizer
from runner.randomness import stream_seed
from runner.runtimes.gradients import STAND_IN, StandIn

S = TypeVar("S")
Saved = dict[str, Any]


class Claims(Protocol):
    """Mini-batches that the workers take from one another: whoever is faster does more."""

    def take(self) -> int | None:
        """The number of the next one; None when all are taken."""


class Member(ABC):
    """A worker or a server: see `algorithms.worker.Worker` for what an algorithm may ask.

    Args:
        everyone: all of the run's workers; shared by them, for it may be large.
        per_node: workers on each node.
        servers: of a parameter server; their ranks follow the workers'.
        per_epoch: mini-batches of a worker in an epoch.
        seed: of the run.
        graph: None for a method that uses none.
        claims: from which the workers take mini-batches, where they do not have equal shares.
    """

    counters: ClassVar[tuple[str, ...]] = ("draw",)
    """What is counted of this worker, by attribute."""

    def __init__(
        self,
        rank: int,
        everyone: Group,
        per_node: int,
        servers: int,
        per_epoch: int,
        seed: int,
        graph: Graph | None,
        claims: Claims | None,
    ) -> None:
        self.rank, self.size, self.everyone = rank, len(everyone.ranks), everyone
        self.per_node, self.per_epoch, self.seed = per_node, per_epoch, seed
        self.is_server = rank >= self.size
        self.servers = tuple(range(self.size, self.size + servers))
        self.split = Split()
        self.draw = 0
        """How far training has got: mini-batches per worker. A server's is that of the furthest worker it heard of."""

        self._graph, self.claims = graph, claims
        self.claim: int | None = None
        self.gradients = 0  # of those claimed
        self.optimizer: LocalOptimizer | None = None
        self.state: Any = None
        self.saved: Saved | None = None

    def restore(self, state: S) -> S:
        self.state = state if self.saved is None else decode(self.saved["state"])
        restored: S = self.state
        return restored

    def save(self) -> Saved:
        """All that this worker is between two steps, as tensors and plain containers."""
        counters = {name: getattr(self, name) for name in self.counters}
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        return {
            "state": encode(self.state),
            "counters": counters,
            "optimizer": optimizer,
            "buffers": self.buffers(),
            "split": self.split.state(),
        }

    def load(self, saved: Saved) -> None:
        """Take up from there; before the algorithm runs."""
        self.saved = saved
        for name, value in saved["counters"].items():
            setattr(self, name, value)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(saved["optimizer"])
        self.set_buffers(saved["buffers"])
        self.split.load(saved["split"])

    @abstractmethod
    def buffers(self) -> list[dict[str, torch.Tensor]]:
        """Copies of the problem's buffers, one set for each GPU that this stands for."""

    @abstractmethod
    def set_buffers(self, buffers: list[dict[str, torch.Tensor]]) -> None:
        """Give it these."""

    @property
    def graph(self) -> Graph:
        assert self._graph is not None, "an algorithm that uses a graph declares so in `topology`"
        return self._graph

    @property
    def node(self) -> Group:
        first = self.rank // self.per_node * self.per_node
        return Group(tuple(range(first, first + self.per_node)))

    @property
    def progress(self) -> int:
        return self.draw

    @property
    def epoch(self) -> float:
        return self.draw / self.per_epoch

    def random(self, purpose: str, *keys: int) -> random.Random:
        return random.Random(stream_seed(self.seed, purpose, *keys))

    def has_claim(self) -> bool:
        """Whether there is a mini-batch for this worker among those that are shared."""
        if self.claim is None:
            assert self.claims is not None
            self.claim = self.claims.take()
        return self.claim is not None

    def next_batch(self) -> tuple[int, int]:
        """(slot, draw) of the mini-batch that is due: whose, were the shares equal, and which of those."""
        if self.claims is None:
            self.draw += 1
            return self.rank, self.draw - 1
        assert self.claim is not None, "there is no work left, or has_work() was not asked"
        draw, slot = divmod(self.claim, self.size)
        self.claim, self.draw = None, draw + 1
        self.gradients += 1
        self.move_schedule(draw)
        return slot, draw

    def hear(self, draw: int) -> None:
        """Of how far another one is: a server's schedule moves so."""
        if self.is_server and draw > self.draw:
            self.draw = draw
            self.move_schedule(draw - 1)

    def move_schedule(self, step: int) -> None:
        if self.optimizer is not None:
            self.optimizer.go_to(step)

    def forget(self) -> None:
        if self.optimizer is not None:
            self.optimizer.forget()

    def merged(self, age: int) -> None:
        self.split.staleness[age] += 1

    def shards(self, x: Vector) -> dict[int, Vector]:
        if len(self.servers) == 1:
            return {self.servers[0]: x}
        return dict(zip(self.servers, parts_of(x, len(self.servers)), strict=True))

    def joined(self, parts: Mapping[int, Vector]) -> Vector:
        if len(self.servers) == 1:
            return parts[self.servers[0]]
        pieces = [parts[server] for server in self.servers]
        return STAND_IN if isinstance(pieces[0], StandIn) else torch.cat(pieces)

    def own_part(self, x: Vector) -> Vector:
        """What this server keeps of a vector; all of it on a worker."""
        return self.shards(x)[self.rank] if self.is_server else x


def parts_of(x: Vector, parts: int) -> Sequence[Vector]:
    """A vector cut into so many parts, the first ones longer by one where it does not go evenly."""
    if isinstance(x, StandIn):
        return [StandIn(1 / parts)] * parts
    return x.tensor_split(parts)


def share_of(part: object, dimension: int) -> float:
    """How much of a vector of that dimension a part of a message is; 0 for a number."""
    if isinstance(part, StandIn):
        return part.share
    return part.numel() / dimension if isinstance(part, torch.Tensor) else 0.0
