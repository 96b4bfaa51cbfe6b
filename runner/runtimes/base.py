"""What the workers of both runtimes have in common: counting, random numbers by name, and the parts of a centre."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch

from algorithms.worker import Group, Vector
from runner.checkpoint import decode, encode
from runner.clock import Split
from runner.optimizer import LocalOptimizer
from runner.randomness import stream_seed
from runner.runtimes.gradients import STAND_IN, StandIn

S = TypeVar("S")
Saved = dict[str, Any]


class Member:
    """A worker or a server: see `algorithms.worker.Worker` for what an algorithm may ask.

    Args:
        everyone: all of the run's workers; shared by them, for it may be large.
        per_node: workers on each node.
        servers: of a parameter server; their ranks follow the workers'.
        per_epoch: mini-batches of a worker in an epoch.
        seed: of the run.
    """

    counters: ClassVar[tuple[str, ...]] = ("draw",)
    """What is counted of this worker, by attribute."""

    def __init__(self, rank: int, everyone: Group, per_node: int, servers: int, per_epoch: int, seed: int) -> None:
        self.rank, self.size, self.everyone = rank, len(everyone.ranks), everyone
        self.per_node, self.per_epoch, self.seed = per_node, per_epoch, seed
        self.is_server = rank >= self.size
        self.servers = tuple(range(self.size, self.size + servers))
        self.split = Split()
        self.draw = 0
        """How far training has got: mini-batches per worker. A server's is that of the furthest worker it heard of."""

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
        return {"state": encode(self.state), "counters": counters, "optimizer": optimizer, "buffers": self.buffers()}

    def load(self, saved: Saved) -> None:
        """Take up from there; before the algorithm runs."""
        self.saved = saved
        for name, value in saved["counters"].items():
            setattr(self, name, value)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(saved["optimizer"])
        self.set_buffers(saved["buffers"])

    def buffers(self) -> list[dict[str, torch.Tensor]]:
        """Copies of the problem's buffers, one set for each GPU that this stands for."""
        raise NotImplementedError

    def set_buffers(self, buffers: list[dict[str, torch.Tensor]]) -> None:
        raise NotImplementedError

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
