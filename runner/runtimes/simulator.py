"""The runtime of the virtual cluster: every worker in this process, real numerics, modelled time.

The algorithm file runs unchanged: what it awaits here is an event on the heap of `runner.runtimes.engine`. Numbers are
those that real processes compute, to the bit for messages and for a mean of two; a mean of more is summed in rank
order, which is not the order of gloo's ring.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from algorithms.topology import Graph
from algorithms.worker import Group, Payload, Vector
from runner.clock import Split
from runner.cluster.cost import Cost, reduced_at
from runner.cluster.links import Link, Network
from runner.optimizer import LocalOptimizer
from runner.randomness import stream_seed
from runner.runtimes.accounting import all_gather_bytes, message_bytes
from runner.runtimes.engine import Engine, Pending, Ready, Task, VirtualClock
from runner.runtimes.gradients import Source, StandIn
from runner.runtimes.reductions import Collective, Gradient, NodeGradient, ReducedGradient, Reduction

S = TypeVar("S")

VECTORS = (Tensor, StandIn)
SCALAR_BYTES = 8
TRUE, FALSE = Ready(True), Ready(False)


class Cluster:
    """The workers, and what is between them.

    Args:
        seconds_of: (worker, draw) -> seconds of a gradient.
        vector_bytes: of one vector (d,) in a message.
        lanes: GPUs per worker.
    """

    def __init__(
        self,
        network: Network,
        cost: Cost,
        seconds_of: Callable[[int, int], float],
        source: Source,
        *,
        vector_bytes: int,
        lanes: int,
        seed: int,
    ) -> None:
        self.engine = Engine()
        self.network, self.seconds_of, self.source = network, seconds_of, source
        self.lanes, self.seed = lanes, seed
        self.vector_bytes = vector_bytes
        self.share_bytes = -(-vector_bytes // lanes)
        self.buckets = cost.buckets(vector_bytes)
        self._node_gradient_s: dict[float, float] = {}
        self.gather_s = network.gather_s(vector_bytes) if lanes > 1 else 0.0
        self.workers: list[VirtualWorker] = []
        self.collectives: dict[tuple[str, Group], Collective] = {}
        # Set by `runner.runtimes.mishaps`, where there is a plan of failures.
        self.begun: Callable[[Collective], None] = lambda collective: None

    def reduce(self, kind: str, group: Group) -> Collective:
        """The reduction of that kind that the group is at. It has one at a time: its members wait for it."""
        collective = self.collectives.get((kind, group))
        if collective is None:
            collective = self.collectives[kind, group] = Collective(self, kind, group)
            self.begun(collective)
        return collective

    def node_gradient_s(self, rank: int, seconds: float) -> float:
        """Seconds until a gradient that takes the GPUs of a node so many seconds is averaged inside the node."""
        known = self._node_gradient_s.get(seconds)
        if known is None:
            inside_s = partial(self.network.all_reduce_s, (rank,))
            known = reduced_at(self.buckets, inside_s, [0.0], [seconds])
            if len(self._node_gradient_s) < 1000:  # constant times come again, random ones do not
                self._node_gradient_s[seconds] = known
        return known

    def start(
        self, worker: VirtualWorker, run: AsyncGenerator[Vector, None], yielded: Callable[[Vector], None]
    ) -> None:
        """Let a worker begin its algorithm, now."""
        worker.task = Task(self.engine, f"worker {worker.rank}", run, yielded)
        self.engine.start(worker.task)

    def post(self, source: VirtualWorker, target: int, sequence: int, payload: Payload, vectors: int) -> None:
        """Send a message, with so many vectors in it: that of the exchange with that number."""
        share = message_bytes((vectors * self.share_bytes, (len(payload) - vectors) * SCALAR_BYTES))
        source.split.bytes_sent += share
        nbytes = share * self.lanes
        now, rank = self.engine.now, source.rank
        link = self.network.link(rank, target, now)
        head_s = self.network.leave(link, rank, nbytes, now)
        if link.loss and self._is_lost(link, rank, target, sequence):
            payload = None  # type: ignore[assignment]
        self.engine.at(head_s, self._arrive, (link, rank, target, sequence, payload, nbytes, vectors))

    def _is_lost(self, link: Link, source: int, target: int, sequence: int) -> bool:
        return stream_seed(self.seed, "message loss", source, target, sequence) < link.loss * 2**63

    def _arrive(self, message: tuple[Link, int, int, int, Payload | None, int, int]) -> None:
        link, source, target, sequence, payload, nbytes, vectors = message
        ready_s = self.network.arrive(link, target, nbytes, self.engine.now)
        worker = self.workers[target]
        if self.lanes > 1:  # the GPUs pass their shares on inside the node, one message after the other
            ready_s = worker.gathered_s = max(ready_s, worker.gathered_s) + vectors * self.gather_s
        worker.deliver(source, sequence, payload, ready_s)


class VirtualWorker:
    """`algorithms.worker.Worker` on the virtual cluster.

    Args:
        draws: how many mini-batches this worker has in all.
        x0: the common starting point.
        optimizer: None where only the time is asked for.
    """

    def __init__(
        self,
        cluster: Cluster,
        rank: int,
        everyone: Group,
        graph: Graph | None,
        draws: int,
        x0: Vector,
        optimizer: LocalOptimizer | None,
    ) -> None:
        self.cluster, self.engine, self.rank, self.size = cluster, cluster.engine, rank, len(everyone.ranks)
        self.everyone, self._graph, self.draws, self.x0, self.optimizer = everyone, graph, draws, x0, optimizer
        self.processes = range(rank * cluster.lanes, (rank + 1) * cluster.lanes)
        self.clock, self.split = VirtualClock(cluster.engine), Split()
        self.draw = 0
        self.exchanges = 0
        self.gathered_s = 0.0  # until when its GPUs pass shares of messages on to each other
        self.losses: Sequence[Tensor] = ()
        self.state: Any = None
        self.task: Task | None = None
        self.expected: dict[tuple[int, int], Exchange] = {}
        self.mailbox: dict[tuple[int, int], tuple[Payload | None, float]] = {}
        # Set by `runner.runtimes.mishaps` where a plan of failures has something to happen.
        self.begin_again: Callable[[Any], Any] | None = None
        self.never_comes: Callable[[int, int], bool] | None = None

    @property
    def graph(self) -> Graph:
        assert self._graph is not None, "an algorithm that uses a graph declares so in `topology`"
        return self._graph

    @property
    def is_paused(self) -> bool:
        return self.task is not None and self.task.paused_s is not None

    @property
    def loss(self) -> Tensor | None:
        """() the mean over its GPUs' mini-batches."""
        return torch.stack(list(self.losses)).mean() if self.losses else None

    @property
    def lr(self) -> float | None:
        return None if self.optimizer is None else self.optimizer.lr

    def initial(self) -> Vector:
        return self.x0

    def restore(self, state: S) -> S:
        self.state = state if self.begin_again is None else self.begin_again(state)
        restored: S = self.state
        return restored

    def has_work(self) -> Ready[bool]:
        return TRUE if self.draw < self.draws else FALSE

    def descend(self, x: Vector, g: Vector) -> Vector:
        return x if self.optimizer is None else self.optimizer.descend(x, g)

    def gradient(self, x: Vector, mean_over: Group | None = None) -> Gradient:
        if mean_over is not None and len(mean_over.ranks) > 1:
            return ReducedGradient(self, x, mean_over)
        return Gradient(self, x) if self.cluster.lanes == 1 else NodeGradient(self, x)

    def exchange(
        self, outgoing: Mapping[int, Payload], incoming: Collection[int], like: Payload | None = None
    ) -> Exchange:
        self.exchanges += 1
        cluster, layout = self.cluster, like if like is not None else next(iter(outgoing.values()))
        vectors = sum([isinstance(part, VECTORS) for part in layout])
        for j, payload in outgoing.items():
            cluster.post(self, j, self.exchanges, payload, vectors)
        return Exchange(self, incoming, self.exchanges, vectors)

    def all_reduce(self, x: Vector, group: Group) -> Reduction:
        return Reduction(self, x, group)

    def deliver(self, source: int, sequence: int, payload: Payload | None, ready_s: float) -> None:
        """A message is on its way in, all of it at `ready_s`; None stands for one that was lost."""
        exchange = self.expected.pop((source, sequence), None)
        if exchange is not None:
            exchange.take(source, payload, ready_s)
        elif sequence > self.exchanges:  # or it is late: nobody waits for it any more
            self.mailbox[source, sequence] = payload if self.task is not None else None, ready_s


class Exchange(Pending[dict[int, Payload]]):
    """One neighbour exchange under way: see `Worker.exchange`.

    Args:
        vectors: in each of its messages.
    """

    __slots__ = ("missing", "ready_s", "sequence", "vectors", "worker")

    def __init__(self, worker: VirtualWorker, incoming: Collection[int], sequence: int, vectors: int) -> None:
        super().__init__()
        self.worker, self.sequence, self.vectors = worker, sequence, vectors
        self.value = dict.fromkeys(incoming, ())  # in the order of `incoming`
        self.missing, self.ready_s = len(incoming), 0.0
        for source in incoming:
            there = worker.mailbox.pop((source, sequence), None)
            if there is not None:
                self.take(source, *there)
            elif worker.never_comes is not None and worker.never_comes(source, sequence):
                self.take(source, None, worker.engine.now)
            else:
                worker.expected[source, sequence] = self

    def take(self, source: int, payload: Payload | None, ready_s: float) -> None:
        if payload is None:
            del self.value[source]
        else:
            self.value[source] = payload
        self.missing -= 1
        if ready_s > self.ready_s:
            self.ready_s = ready_s
        if self.task is not None and not self.missing:
            self.worker.engine.at(max(self.ready_s, self.worker.engine.now), Exchange.wake, self)

    @property
    def arrived(self) -> bool:
        return not self.missing and self.ready_s <= self.worker.engine.now

    def __await__(self) -> Generator[Pending[dict[int, Payload]], None, dict[int, Payload]]:
        worker = self.worker
        if not self.arrived:
            begun_s = worker.engine.now
            if not self.missing:
                worker.engine.at(self.ready_s, Exchange.wake, self)
            yield self
            worker.split.wait_s += worker.engine.now - begun_s
        cluster = worker.cluster
        if cluster.lanes > 1:  # each GPU has had its share of every vector, and passes it on inside the node
            gathered = all_gather_bytes(cluster.share_bytes, cluster.lanes)
            worker.split.bytes_sent += len(self.value) * self.vectors * gathered
        return self.value

    def describe(self) -> str:
        sources = sorted(j for j, sequence in self.worker.expected if sequence == self.sequence)
        return f"message {self.sequence} of " + ", ".join(f"worker {j}" for j in sources)
