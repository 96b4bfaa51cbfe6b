"""The runtime of the virtual cluster: every worker in this process, real numerics, modelled time.

The algorithm file runs unchanged: what it awaits here is an event on the heap of `runner.runtimes.engine`. Numbers are
those that real processes compute, to the bit for messages and for a mean of two; a mean of more is summed in rank
order, which is not the order of gloo's ring.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from algorithms.topology import Graph
from algorithms.worker import Group, Payload, Vector
from runner.cluster.cost import Cost, reduced_at
from runner.cluster.links import Link, Network
from runner.launchers import RunFailedError
from runner.optimizer import LocalOptimizer
from runner.randomness import stream_seed
from runner.runtimes.accounting import all_gather_bytes, message_bytes
from runner.runtimes.base import Member, share_of
from runner.runtimes.engine import Engine, Pending, Ready, Task, VirtualClock
from runner.runtimes.gradients import Buffers, Source, StandIn
from runner.runtimes.mail import Claims, Farewells, Leave, Letter, Mail, Messages, Receive
from runner.runtimes.reductions import Collective, Gradient, NodeGradient, ReducedGradient, Reduction

S = TypeVar("S")

VECTORS = (Tensor, StandIn)
SCALAR_BYTES = 8
MOST_LOSSES = 1000
"""Of one asynchronous message, in a row."""

TRUE, FALSE = Ready(True), Ready(False)


class Cluster:
    """The workers, and what is between them.

    Args:
        seconds_of: (worker, draw) -> seconds of a gradient.
        vector_bytes: of one vector (d,) in a message.
        dimension: d; 0 where there are no vectors.
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
        dimension: int,
        lanes: int,
        seed: int,
    ) -> None:
        self.engine = Engine()
        self.network, self.seconds_of, self.source = network, seconds_of, source
        self.lanes, self.seed = lanes, seed
        self.vector_bytes, self.dimension = vector_bytes, dimension
        self.share_bytes = -(-vector_bytes // lanes)
        self.buckets = cost.buckets(vector_bytes)
        self._node_gradient_s: dict[float, float] = {}
        self.gather_s = network.gather_s(vector_bytes) if lanes > 1 else 0.0
        self.members: list[VirtualWorker] = []
        self.workers: list[VirtualWorker] = []
        self.servers: list[VirtualWorker] = []
        self.farewells = Farewells(self)
        self.collectives: dict[tuple[str, Group], Collective] = {}
        # Set by `runner.runtimes.mishaps`, where there is a plan of failures.
        self.begun: Callable[[Collective], None] = lambda collective: None

    def settle(self, workers: list[VirtualWorker], servers: list[VirtualWorker]) -> None:
        """Who there is, by rank; before anything happens."""
        self.workers, self.servers, self.members = workers, servers, [*workers, *servers]

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

    def post(self, source: VirtualWorker, target: int, number: int, payload: Payload, vectors: int) -> None:
        """Send the message, with so many vectors in it, of the exchange with that number."""
        share = message_bytes((vectors * self.share_bytes, (len(payload) - vectors) * SCALAR_BYTES))
        source.split.bytes_sent += share
        self._leave(source.rank, target, number, payload, share * self.lanes, vectors, VirtualWorker.deliver)

    def mail(self, source: VirtualWorker, target: int, channel: str, payload: Payload) -> None:
        """Send an asynchronous message."""
        vectors = sum(share_of(part, self.dimension) for part in payload)
        scalars = sum(not isinstance(part, VECTORS) for part in payload)
        nbytes = round(vectors * self.vector_bytes) + scalars * SCALAR_BYTES
        source.split.bytes_sent += -(-nbytes // self.lanes)
        self.farewells.under_way += 1
        theirs = self.members[target].letters
        lives, number = (source.letters.life, theirs.life), source.letters.next_number(theirs, channel)
        letter = Letter(source, target, channel, source.draw, payload, nbytes, vectors, lives, number)
        self.carry(letter)

    def carry(self, letter: Letter) -> None:
        """Send it, for the first time or again."""
        letter.source.mailed += 1
        self._leave(
            *(letter.source.rank, letter.target, -letter.source.mailed, letter, letter.nbytes, letter.vectors),
            VirtualWorker.take_mail,
        )

    def _leave(
        self, source: int, target: int, number: int, content: Any, nbytes: int, vectors: float, deliver: Deliver
    ) -> None:
        """A message leaves its sender, and is lost or not: numbers are the sender's, negative ones for mail."""
        link = self.network.link(source, target, self.engine.now)
        head_s = self.network.leave(link, source, nbytes, self.engine.now)
        lost = link.loss > 0 and stream_seed(self.seed, "message loss", source, target, number) < link.loss * 2**63
        self.engine.at(head_s, self._arrive, (link, source, target, number, content, lost, nbytes, vectors, deliver))

    def _arrive(self, message: tuple[Link, int, int, int, Any, bool, int, float, Deliver]) -> None:
        link, source, target, number, content, lost, nbytes, vectors, deliver = message
        ready_s = self.network.arrive(link, target, nbytes, self.engine.now)
        worker = self.members[target]
        if self.lanes > 1 and not worker.is_server:
            # The GPUs pass their shares on inside the node, one message after the other.
            ready_s = worker.gathered_s = max(ready_s, worker.gathered_s) + vectors * self.gather_s
        deliver(worker, source, number, content, lost, ready_s)


class VirtualWorker(Member):
    """`algorithms.worker.Worker` on the virtual cluster, or one of its servers.

    Args:
        draws: how many mini-batches this worker has in all.
        x0: the common starting point.
        optimizer: None where only the time is asked for.
    """

    counters = ("draw", "gradients", "exchanges", "mailed")

    def __init__(
        self,
        cluster: Cluster,
        rank: int,
        everyone: Group,
        per_node: int,
        servers: int,
        graph: Graph | None,
        draws: int,
        per_epoch: int,
        x0: Vector,
        optimizer: LocalOptimizer | None,
        claims: Claims | None = None,
    ) -> None:
        super().__init__(rank, everyone, per_node, servers, per_epoch, cluster.seed, graph, claims)
        self.cluster, self.engine = cluster, cluster.engine
        self.draws, self.x0 = draws, x0
        self.optimizer: LocalOptimizer | None = optimizer
        self.processes = range(rank * cluster.lanes, (rank + 1) * cluster.lanes)
        self.clock = VirtualClock(cluster.engine)
        self.exchanges = self.mailed = 0
        self.gathered_s = 0.0  # until when its GPUs pass shares of messages on to each other
        self.losses: Sequence[Tensor] = ()
        self.task: Task | None = None
        self.companions: list[Task] = []  # what runs beside
        self.expected: dict[tuple[int, int], Exchange] = {}
        self.mailbox: dict[tuple[int, int], tuple[Payload | None, float]] = {}
        self.letters = Mail(self)
        # Set by `runner.runtimes.mishaps` where a plan of failures has something to happen.
        self.begin_again: Callable[[Any], Any] | None = None
        self.never_comes: Callable[[int, int], bool] | None = None

    @property
    def is_paused(self) -> bool:
        return self.task is not None and self.task.paused_s is not None

    @property
    def loss(self) -> Tensor | None:
        """() the mean over its GPUs' mini-batches."""
        return torch.stack(list(self.losses)).mean() if self.losses else None

    @property
    def lr(self) -> float:
        return 1.0 if self.optimizer is None else self.optimizer.lr

    @property
    def last_loss(self) -> float:
        return float(self.loss) if self.loss is not None else 0.0

    def initial(self) -> Vector:
        return self.own_part(self.x0)

    def restore(self, state: S) -> S:
        if self.begin_again is None:
            return super().restore(state)
        restored: S = self.begin_again(state)
        self.state = restored
        return restored

    def buffers(self) -> list[Buffers]:
        return [] if self.is_server else self.cluster.source.buffers_of(self.processes)

    def set_buffers(self, buffers: list[Buffers]) -> None:
        self.cluster.source.set_buffers(self.processes, buffers)

    def has_work(self) -> Ready[bool]:
        if self.claims is None:
            return TRUE if self.draw < self.draws else FALSE
        return TRUE if self.has_claim() else FALSE

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

    def deliver(self, source: int, number: int, payload: Payload, lost: bool, ready_s: float) -> None:
        """A message of an exchange is on its way in, all of it at `ready_s`, or was lost."""
        exchange = self.expected.pop((source, number), None)
        if exchange is not None:
            exchange.take(source, None if lost else payload, ready_s)
        elif number > self.exchanges:  # or it is late: nobody waits for it any more
            self.mailbox[source, number] = payload if self.task is not None and not lost else None, ready_s

    # -- asynchronous messages: see runner.runtimes.mail ---------------------------------------------------------

    def send(self, to: int, channel: str, payload: Payload) -> None:
        self.cluster.mail(self, to, channel, payload)

    def receive(self, source: int, channel: str, like: Payload) -> Receive:
        return self.letters.receive(source, channel)

    def messages(self, channel: str, like: Payload) -> Messages:
        return self.letters.messages(channel)

    def beside(self, task: Coroutine[Any, Any, None]) -> None:
        name = f"{self.task.name}, beside" if self.task else ""
        companion = Task(self.engine, name, alone(task), lambda _: None, awaited=task)
        self.companions.append(companion)
        self.engine.start(companion)

    def leave(self) -> Leave:
        return Leave(self)

    def take_mail(self, source: int, number: int, letter: Letter, lost: bool, ready_s: float) -> None:
        if lost:  # its sender learns of it, and sends it again
            letter.losses += 1
            if letter.losses > MOST_LOSSES:
                raise RunFailedError(
                    f"a message of worker {source} to worker {self.rank} was lost {MOST_LOSSES} times; a link that "
                    "loses everything lets no asynchronous method go on: give its loss an end (until_s), or less of it"
                )
            self.engine.at(ready_s + self.cluster.network.latency_s(self.rank, source), self.cluster.carry, letter)
        else:
            self.engine.at(ready_s, self.letters.take, letter)


Deliver = Callable[[VirtualWorker, int, int, Any, bool, float], None]


async def alone(task: Coroutine[Any, Any, None]) -> AsyncGenerator[Vector, None]:
    """A task as a run that yields nothing."""
    await task
    return
    yield


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
            try:
                yield self
            finally:  # also where the worker dies meanwhile
                worker.split.wait_s += worker.engine.now - begun_s
        cluster = worker.cluster
        if cluster.lanes > 1:  # each GPU has had its share of every vector, and passes it on inside the node
            gathered = all_gather_bytes(cluster.share_bytes, cluster.lanes)
            worker.split.bytes_sent += len(self.value) * self.vectors * gathered
        return self.value

    def describe(self) -> str:
        sources = sorted(j for j, sequence in self.worker.expected if sequence == self.sequence)
        return f"message {self.sequence} of " + ", ".join(f"worker {j}" for j in sources)
