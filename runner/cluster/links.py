"""Links and what crosses them: the time of a message, and of an all-reduce in closed form.

A message of n bytes leaves when the sender's egress is free, occupies it for n / bandwidth, and its head reaches the
receiver a latency later; there it waits for the ingress, which it occupies for n / bandwidth too. Alone it takes
latency + n / bandwidth; N messages to one receiver take latency + N n / bandwidth. Both directions of a link are
independent. What a parameter server suffers from is not modelled anywhere: it follows.

An all-reduce takes a closed form from its last member's arrival on (Thakur, Rabenseifner, Gropp 2005), and does not
compete with messages: no method here has both under way at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.build import ConfigError


@dataclass(frozen=True)
class Link:
    """One direction of a link.

    Args:
        latency_s: seconds until the first byte arrives.
        bandwidth: bytes per second.
        efficiency: the share of the bandwidth that payload gets (protocol overhead, a slow stack).
        loss: probability that a message never arrives.

    Raises:
        ConfigError: a value is out of range.
    """

    latency_s: float
    bandwidth: float
    efficiency: float = 1.0
    loss: float = 0.0
    key: str = "cluster.link"  # where it stands in the configuration, for messages

    def __post_init__(self) -> None:
        if not (_is_number(self.latency_s) and 0 <= self.latency_s < math.inf):
            raise ConfigError(f"{self.key}.latency_s={self.latency_s}: must be seconds, 0 or more, e.g. 5e-5")
        if not (_is_number(self.bandwidth) and self.bandwidth > 0):
            raise ConfigError(
                f"{self.key}.bandwidth={self.bandwidth}: must be positive, in bytes per second (1.25e9 is 10 Gbit/s)"
            )
        if not (_is_number(self.efficiency) and 0 < self.efficiency <= 1):
            raise ConfigError(f"{self.key}.efficiency={self.efficiency}: must be above 0 and at most 1")
        if not (_is_number(self.loss) and 0 <= self.loss <= 1):
            raise ConfigError(f"{self.key}.loss={self.loss}: must be a probability, between 0 and 1")

    def seconds(self, nbytes: float) -> float:
        """How long so many bytes occupy it."""
        return nbytes / (self.bandwidth * self.efficiency)


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
    return Link(**settings, key=key)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


LinkChange = Callable[[Link, float], Link]
"""A link as it is at a virtual time: failures make such changes."""


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

    def __post_init__(self) -> None:
        workers = self.nodes * self.workers_per_node
        self._egress, self._ingress = [0.0] * self.nodes, [0.0] * self.nodes
        self._inner_egress, self._inner_ingress = [0.0] * workers, [0.0] * workers
        self._core = 0.0
        self._alike = not self.overrides and not self.changes

    def link(self, source: int, target: int, now: float) -> Link:
        """The link from one worker to another, as it is now."""
        a, b = source // self.workers_per_node, target // self.workers_per_node
        if a == b:
            return self.intra
        return self.inter if self._alike else self._between(a, b, now, self.inter)

    def _between(self, a: int, b: int, now: float, base: Link) -> Link:
        link = self.overrides.get((a, b), base)
        change = (self.changes or {}).get((a, b))
        return link if change is None else change(link, now)

    def leave(self, link: Link, source: int, nbytes: float, now: float) -> float:
        """Post a message now: when its head reaches the receiver (or the core switch before it)."""
        free, place = (
            (self._inner_egress, source) if link is self.intra else (self._egress, source // self.workers_per_node)
        )
        start = max(now, free[place])
        free[place] = start + link.seconds(nbytes)
        return start + link.latency_s

    def arrive(self, link: Link, target: int, nbytes: float, now: float) -> float:
        """The head of a message is there now: when all of it is. To be called in the order of the heads."""
        if link is self.intra:
            free, place = self._inner_ingress, target
        else:
            free, place = self._ingress, target // self.workers_per_node
        tail = now
        if self.core_bandwidth is not None and link is not self.intra:
            now = max(now, self._core)
            tail = self._core = now + nbytes / self.core_bandwidth
        free[place] = max(max(now, free[place]) + link.seconds(nbytes), tail)
        return free[place]

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
        total_s = self._collective_s(len(nodes), self._slowest(nodes, now), nbytes, shared=True)
        return total_s + (self._collective_s(inside, self.intra, nbytes) if inside > 1 else 0.0)

    def mean_s(self, workers: Sequence[int], nbytes: float, now: float) -> float:
        """Seconds of a mean of vectors that all GPUs of a worker hold alike: each sends its share, and then gathers."""
        if self.lanes == 1:
            return self.all_reduce_s(workers, nbytes, now)
        nodes = [worker // self.workers_per_node for worker in workers]
        return self._collective_s(len(nodes), self._slowest(nodes, now), nbytes, shared=True) + self.gather_s(nbytes)

    def _slowest(self, nodes: Sequence[int], now: float) -> Link:
        """A ring runs at the pace of its slowest link."""
        base = self.reduction_link or self.inter
        if self._alike:
            return base
        around = [self._between(a, b, now, base) for a, b in zip(nodes, [*nodes[1:], nodes[0]], strict=True)]
        slow = min(around, key=lambda link: link.bandwidth * link.efficiency)
        return Link(max(link.latency_s for link in around), slow.bandwidth, slow.efficiency)

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
