"""Links and what crosses them: the time of a message, and of an all-reduce in closed form.

A message of n bytes leaves when the sender's egress is free, occupies it for n / bandwidth, and its head reaches the
receiver a latency later; there it waits for the ingress, which it occupies for n / bandwidth too. Alone it takes
latency + n / bandwidth; N messages to one receiver take latency + N n / bandwidth. Both directions of a link are
independent. What a parameter server suffers from is not modelled anywhere: it follows. Where a plan of failures changes
a link meanwhile, what has not crossed it yet goes on at the new pace; it is felt at both ends at the same time.

An all-reduce takes a closed form from its last member's arrival on (Thakur, Rabenseifner, Gropp 2005), and does not
compete with messages: no method here has both under way at once. It too goes on at the pace of the links of each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from runner.build import ConfigError

LEAST_BANDWIDTH = 1e5
"""Bytes per second. Whoever asks for less has another unit in mind."""
TOO_SLOW = "must be 1e5 or more, in bytes per second: 10 Gbit/s is 1.25e9"


def seconds_of(pace: Callable[[float], tuple[float, float]], begin_s: float) -> float:
    """How long some work takes that begins at a time.

    Args:
        pace: time -> (seconds that all of the work takes at the pace of that time, until when it keeps that pace).
    """
    now, left = begin_s, 1.0
    while True:
        whole_s, until_s = pace(now)
        if now + left * whole_s <= until_s:
            return now - begin_s + left * whole_s
        left = max(0.0, left - (until_s - now) / whole_s)
        now = until_s


@dataclass(frozen=True)
class Link:
    """One direction of a link.

    Args:
        latency_s: seconds until the first byte arrives.
        bandwidth: bytes per second.
        efficiency: the share of the bandwidth that payload gets (protocol overhead, a slow stack).
        loss: probability that a message never arrives.
        until_s: virtual time when it becomes `then`.

    Raises:
        ConfigError: a value is out of range.
    """

    latency_s: float
    bandwidth: float
    efficiency: float = 1.0
    loss: float = 0.0
    key: str = "cluster.link"  # where it stands in the configuration, for messages
    until_s: float = math.inf
    then: Link | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.latency_s) and 0 <= self.latency_s < math.inf):
            raise ConfigError(f"{self.key}.latency_s={self.latency_s}: must be seconds, 0 or more, e.g. 5e-5")
        if not (is_number(self.bandwidth) and self.bandwidth > 0):
            raise ConfigError(
                f"{self.key}.bandwidth={self.bandwidth}: must be positive, in bytes per second (1.25e9 is 10 Gbit/s)"
            )
        if not (is_number(self.efficiency) and 0 < self.efficiency <= 1):
            raise ConfigError(f"{self.key}.efficiency={self.efficiency}: must be above 0 and at most 1")
        if not (is_number(self.loss) and 0 <= self.loss <= 1):
            raise ConfigError(f"{self.key}.loss={self.loss}: must be a probability, between 0 and 1")

    def at(self, now: float) -> Link:
        """What it is at that time, not before it became what it is."""
        link = self
        while now >= link.until_s and link.then is not None:
            link = link.then
        return link

    def seconds(self, nbytes: float, begin_s: float = 0.0) -> float:
        """How long so many bytes occupy it that begin to cross it at that time."""
        whole_s = nbytes / (self.bandwidth * self.efficiency)
        if begin_s + whole_s <= self.until_s:
            return whole_s

        def pace(now: float) -> tuple[float, float]:
            link = self.at(now)
            return nbytes / (link.bandwidth * link.efficiency), link.until_s

        return seconds_of(pace, begin_s)


def make_link(node: Any, key: str, base: Link | None = None) -> Link:
    """A link from its configuration; what is left out is as in `base`."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key}={node}: must hold latency_s and bandwidth (bytes per second)")
    fields = ("latency_s", "bandwidth", "efficiency", "loss")
    settings = {} if base is None else {name: getattr(base, name) for name in fields}
    settings |= node
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise ConfigError(f"{key}.{unknown[0]}: a link has no such setting; known: {', '.join(fields)}")
    missing = sorted({"latency_s", "bandwidth"} - set(settings))
    if missing:
        raise ConfigError(f"{key}.{missing[0]}: is missing")
    link = Link(**settings, key=key)
    if link.bandwidth < LEAST_BANDWIDTH:
        raise ConfigError(f"{key}.bandwidth={link.bandwidth}: {TOO_SLOW}")
    return link


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is one: in YAML, true is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


LinkChange = Callable[[Link], Link]
"""A link as it is at time 0, with what it becomes: failures make such changes."""


@dataclass
class Network:
    """All links of a cluster of `nodes` nodes, with `workers_per_node` workers of `lanes` GPUs on each.

    Workers of different nodes share their nodes' network cards; workers of one node talk over its inner links, one
    each way per worker.

    Args:
        inter: between nodes.
        intra: between the GPUs of a node.
        overrides: links between two nodes, one way, that differ.
        core_bandwidth: bytes per second through a switch that all messages between nodes share; None: no limit.
        reduction: the form of an all-reduce.
        changes: what failures do to the link between two nodes, one way.
        reduction_link: the links between nodes as an all-reduce finds them, where its own stack (thread hand-overs,
            summing) makes them other than they are for messages; None: as `inter`.
        server_nodes: on which node each server runs, whose ranks follow the workers'; nodes beyond `nodes` are theirs.
    """

    nodes: int
    workers_per_node: int
    lanes: int
    inter: Link
    intra: Link
    overrides: Mapping[tuple[int, int], Link]
    core_bandwidth: float | None = None
    reduction: Literal["ring", "tree"] = "ring"
    changes: Mapping[tuple[int, int], LinkChange] | None = None
    reduction_link: Link | None = None
    server_nodes: Sequence[int] = ()

    def __post_init__(self) -> None:
        workers = self.nodes * self.workers_per_node
        self._node = [*(worker // self.workers_per_node for worker in range(workers)), *self.server_nodes]
        nodes = max(self._node) + 1
        self._egress, self._ingress = [0.0] * nodes, [0.0] * nodes
        self._inner_egress, self._inner_ingress = [0.0] * len(self._node), [0.0] * len(self._node)
        self._core = 0.0
        self._named = self._links_that_differ(self.inter)
        self._named_reducing = self._links_that_differ(self.reduction_link or self.inter)

    def _links_that_differ(self, base: Link) -> dict[tuple[int, int], Link]:
        changes = {ends: change(self.overrides.get(ends, base)) for ends, change in (self.changes or {}).items()}
        return {**self.overrides, **changes}

    def link(self, source: int, target: int, now: float) -> Link:
        """The link from one worker to another, as it is now."""
        a, b = self._node[source], self._node[target]
        if a == b:
            return self.intra
        return self._named.get((a, b), self.inter).at(now) if self._named else self.inter

    def latency_s(self, source: int, target: int) -> float:
        return (self.intra if self._node[source] == self._node[target] else self.inter).latency_s

    def leave(self, link: Link, source: int, nbytes: float, now: float) -> float:
        """Post a message now: when its head reaches the receiver (or the core switch before it)."""
        free, place = (self._inner_egress, source) if link is self.intra else (self._egress, self._node[source])
        start = max(now, free[place])
        free[place] = start + link.seconds(nbytes, start)
        return start + (link.latency_s if start < link.until_s else link.at(start).latency_s)

    def arrive(self, link: Link, target: int, nbytes: float, now: float) -> float:
        """The head of a message is there now: when all of it is. To be called in the order of the heads."""
        if link is self.intra:
            free, place = self._inner_ingress, target
        else:
            free, place = self._ingress, self._node[target]
        tail = now
        if self.core_bandwidth is not None and link is not self.intra:
            now = max(now, self._core)
            tail = self._core = now + nbytes / self.core_bandwidth
        start = max(now, free[place])
        free[place] = max(start + link.seconds(nbytes, start), tail)
        return free[place]

    @property
    def quiet_s(self) -> float:
        """When all that was sent has arrived."""
        return max(*self._ingress, *self._inner_ingress)

    def gather_s(self, nbytes: float) -> float:
        """Seconds in which the GPUs of one worker, each with its share of a vector of nbytes, all have the whole."""
        return (self.lanes - 1) * self.intra.latency_s + self.intra.seconds(nbytes * (self.lanes - 1) / self.lanes)

    def all_reduce_s(self, workers: Sequence[int], nbytes: float, now: float) -> float:
        """Seconds of an all-reduce of nbytes over all GPUs of some workers.

        Inside each node first, then between the nodes, each GPU with its share, then inside again: for a ring of N
        that is 2 (N - 1) latency + 2 (N - 1) / N n / bandwidth on each level. A tree is binomial: reduce, then
        broadcast, 2 ceil(log2 N) (latency + n / bandwidth).
        """
        first, last = workers[0] // self.workers_per_node, workers[-1] // self.workers_per_node
        if first == last:  # ranks ascend
            return self._collective_s(len(workers) * self.lanes, self.intra, nbytes)
        if len(workers) == self.nodes * self.workers_per_node:
            nodes: Sequence[int] = range(self.nodes)
            inside = self.workers_per_node * self.lanes
        else:
            each: dict[int, int] = {}
            for worker in workers:
                each[worker // self.workers_per_node] = each.get(worker // self.workers_per_node, 0) + 1
            nodes, inside = list(each), max(each.values()) * self.lanes
        inside_s = self._collective_s(inside, self.intra, nbytes)
        return self._between_s(nodes, nbytes, now + inside_s / 2) + inside_s

    def mean_s(self, workers: Sequence[int], nbytes: float, now: float) -> float:
        """Seconds of a mean of vectors that all GPUs of a worker hold alike: each sends its share, and then gathers."""
        if self.lanes == 1:
            return self.all_reduce_s(workers, nbytes, now)
        nodes = [worker // self.workers_per_node for worker in workers]
        return self._between_s(nodes, nbytes, now) + self.gather_s(nbytes)

    def _between_s(self, nodes: Sequence[int], nbytes: float, begin_s: float) -> float:
        """The level between the nodes, at any time at the pace that it would have with the links of that time."""
        base = self.reduction_link or self.inter
        if not self._named_reducing:
            return self._collective_s(len(nodes), base, nbytes, shared=True)
        links = [self._named_reducing.get(ends, base) for ends in zip(nodes, [*nodes[1:], nodes[0]], strict=True)]

        def pace(now: float) -> tuple[float, float]:
            around = [link.at(now) for link in links]
            slow = min(around, key=lambda link: link.bandwidth * link.efficiency)  # a ring runs at its pace
            slowest = Link(max(link.latency_s for link in around), slow.bandwidth, slow.efficiency)
            whole_s = self._collective_s(len(nodes), slowest, nbytes, shared=True)
            return whole_s, min(link.until_s for link in around)

        return seconds_of(pace, begin_s)

    def _collective_s(self, n: int, link: Link, nbytes: float, shared: bool = False) -> float:
        """One level; where the core is `shared`, the messages of a step cross it together."""
        if n == 1:
            return 0.0
        through_core = 0.0 if not shared or self.core_bandwidth is None else nbytes / self.core_bandwidth
        if self.reduction == "tree":
            total_s = 0.0
            while n > 1:  # a round halves those that still have something to send
                total_s += link.latency_s + max(link.seconds(nbytes), n // 2 * through_core)
                n -= n // 2
            return 2 * total_s
        return 2 * (n - 1) * (link.latency_s + max(link.seconds(nbytes / n), through_core))
