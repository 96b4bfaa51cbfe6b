"""Gradients and means on the virtual cluster: when they are there, and what they are."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from algorithms.worker import Group, Vector
from runner.cluster.cost import reduced_at
from runner.runtimes.accounting import all_gather_bytes, all_reduce_bytes
from runner.runtimes.engine import Pending
from runner.runtimes.gradients import Work

if TYPE_CHECKING:
    from runner.runtimes.simulator import Cluster, VirtualWorker


class Gradient(Pending[Vector]):
    """A gradient that one GPU computes; it begins when it is awaited."""

    __slots__ = ("begun_s", "due_s", "work", "worker", "x")

    def __init__(self, worker: VirtualWorker, x: Vector) -> None:
        super().__init__()
        self.worker, self.x = worker, x
        self.begun_s = self.due_s = 0.0
        self.work: Work

    def __await__(self) -> Generator[Pending[Vector], None, Vector]:
        if not self.done:
            self.begin()
            yield self
        return self.value

    def begin(self) -> None:
        worker = self.worker
        self.begun_s = worker.engine.now
        slot, draw = worker.next_batch()
        self.work = worker.cluster.source.begin(self.x, worker.processes, slot, draw)
        seconds = worker.cluster.seconds_of(worker.rank, worker.gradients if worker.claims else draw)
        self.go_on(seconds)

    def go_on(self, seconds: float) -> None:
        self._fall_due(self.begun_s + seconds)

    def _fall_due(self, time_s: float) -> None:
        self.due_s = time_s
        self.worker.engine.at(time_s, Gradient.finish, self)

    def stood_still(self, since_s: float) -> None:
        now = self.worker.engine.now
        self.worker.split.wait_s += now - since_s  # else it would pass for computing
        self._fall_due(max(now, self.due_s + now - since_s))

    def finish(self) -> None:
        worker = self.worker
        if self.due_s != worker.engine.now or self.task is None or worker.is_paused:
            return  # the worker has died, stands still, or stood still
        worker.losses, parts = self.work.result()
        self.complete(parts[0] if len(parts) == 1 else mean_gradient(parts))

    def describe(self) -> str:
        return f"its gradient number {self.worker.draw}"


class AveragedGradient(Gradient):
    """A gradient averaged over so many `gpus`; its own part takes `seconds`, and what comes after that is a wait.

    Pauses, `held_s` in all, are counted as waits when they end.
    """

    __slots__ = ("gpus", "held_s", "seconds")

    def __init__(self, worker: VirtualWorker, x: Vector, gpus: int) -> None:
        super().__init__(worker, x)
        self.gpus, self.seconds, self.held_s = gpus, 0.0, 0.0

    def __await__(self) -> Generator[Pending[Vector], None, Vector]:
        if not self.done:
            self.begin()
            worker = self.worker
            try:
                yield self
            finally:  # also where the worker dies
                waited_s = worker.engine.now - self.begun_s - self.seconds - self.held_s
                if waited_s > 0:
                    worker.split.wait_s += waited_s
            worker.split.bytes_sent += all_reduce_bytes(worker.cluster.vector_bytes, self.gpus)
        return self.value


class NodeGradient(AveragedGradient):
    """A gradient averaged over the GPUs of one worker, inside its node."""

    __slots__ = ()

    def __init__(self, worker: VirtualWorker, x: Vector) -> None:
        super().__init__(worker, x, worker.cluster.lanes)

    def go_on(self, seconds: float) -> None:
        self.seconds = seconds
        self._fall_due(self.begun_s + self.worker.cluster.node_gradient_s(self.worker.rank, seconds))

    def stood_still(self, since_s: float) -> None:
        self.held_s += self.worker.engine.now - since_s
        super().stood_still(since_s)


class ReducedGradient(AveragedGradient):
    """A gradient averaged over all GPUs of a group, as its buckets become ready."""

    __slots__ = ("group",)

    def __init__(self, worker: VirtualWorker, x: Vector, group: Group) -> None:
        super().__init__(worker, x, len(group.ranks) * worker.cluster.lanes)
        self.group = group

    def go_on(self, seconds: float) -> None:
        self.seconds = seconds
        self.worker.cluster.reduce("gradient", self.group).join(self.worker.rank, self)

    def stood_still(self, since_s: float) -> None:
        if since_s < self.begun_s + self.seconds + self.held_s:  # it was computing, not waiting for others
            self.held_s += self.worker.engine.now - since_s
            self.worker.split.wait_s += self.worker.engine.now - since_s
        self.worker.cluster.reduce("gradient", self.group).stood_still(self.worker.rank, since_s)

    def parts(self) -> Sequence[Vector]:
        self.worker.losses, gradients = self.work.result()
        return gradients

    def describe(self) -> str:
        return self.worker.cluster.reduce("gradient", self.group).describe()


class Reduction(Pending[Vector]):
    """The mean of a vector over a group; it begins when it is awaited."""

    __slots__ = ("begun_s", "group", "seconds", "worker", "x")

    def __init__(self, worker: VirtualWorker, x: Vector, group: Group) -> None:
        super().__init__()
        self.worker, self.x, self.group = worker, x, group
        self.begun_s = self.seconds = 0.0

    def __await__(self) -> Generator[Pending[Vector], None, Vector]:
        worker, cluster = self.worker, self.worker.cluster
        if not self.done:
            self.begun_s = worker.engine.now
            cluster.reduce("mean", self.group).join(worker.rank, self)
            try:
                yield self
            finally:  # also where the worker dies
                worker.split.wait_s += worker.engine.now - self.begun_s
            worker.split.bytes_sent += all_reduce_bytes(cluster.share_bytes, len(self.group.ranks))
            worker.split.bytes_sent += all_gather_bytes(cluster.share_bytes, cluster.lanes)
        return self.value

    def stood_still(self, since_s: float) -> None:
        self.worker.cluster.reduce("mean", self.group).stood_still(self.worker.rank, since_s)

    def parts(self) -> Sequence[Vector]:
        return (self.x,)

    def describe(self) -> str:
        return self.worker.cluster.reduce("mean", self.group).describe()


class Collective:
    """A reduction under way, finished by the arrival of its last member."""

    def __init__(self, cluster: Cluster, kind: str, group: Group) -> None:
        self.cluster, self.kind, self.group = cluster, kind, group
        self.joined: dict[int, ReducedGradient | Reduction] = {}
        self.due_s: float | None = None  # once all are there
        self.pauses: list[tuple[int, float, float]] = []  # (rank, from when, until when) of its members

    def join(self, rank: int, member: ReducedGradient | Reduction) -> None:
        assert rank not in self.joined, f"worker {rank} is in a {self.kind} of this group already"
        self.joined[rank] = member
        if len(self.joined) == len(self.group.ranks):
            self._fall_due(self._end_s())

    def _fall_due(self, time_s: float) -> None:
        self.due_s = time_s
        self.cluster.engine.at(time_s, Collective.finish, self)

    def stood_still(self, rank: int, since_s: float) -> None:
        """A member goes on after a pause."""
        self.pauses.append((rank, since_s, self.cluster.engine.now))
        if self.due_s is not None:
            self._fall_due(max(self._end_s(), self.cluster.engine.now))

    def _end_s(self) -> float:
        cluster, members = self.cluster, self.joined.values()
        places = list(self.joined)
        pauses = sorted((since_s, until_s, places.index(rank)) for rank, since_s, until_s in self.pauses)
        buckets = cluster.buckets if self.kind == "gradient" else [(cluster.vector_bytes, 1.0)]
        network = cluster.network
        takes = partial(network.all_reduce_s if self.kind == "gradient" else network.mean_s, self.group.ranks)
        return reduced_at(buckets, takes, [m.begun_s for m in members], [m.seconds for m in members], pauses)

    def finish(self) -> None:
        members = [self.joined[rank] for rank in self.group.ranks if rank in self.joined]
        if self.due_s != self.cluster.engine.now or any(member.worker.is_paused for member in members):
            return  # a member has died, stands still, or stood still
        self.due_s = None
        del self.cluster.collectives[self.kind, self.group]
        parts = [part for member in members for part in member.parts()]
        mean = mean_gradient(parts) if self.kind == "gradient" else mean_vector(parts)
        for member in members:
            member.complete(mean)

    def leave(self, rank: int) -> None:
        """A member has died."""
        if self.joined.pop(rank, None) is not None:
            self.due_s = None
            self.pauses = [pause for pause in self.pauses if pause[0] != rank]

    def describe(self) -> str:
        missing = [rank for rank in self.group.ranks if rank not in self.joined]
        who = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return f"the {self.kind} of {len(self.group.ranks)} workers; still to come: {who or 'nobody'}"


def mean_gradient(parts: Sequence[Vector]) -> Vector:
    """The mean in the order of the parts, each scaled before it is added, as DDP does."""
    share = 1 / len(parts)
    mean = parts[0] * share
    if isinstance(mean, Tensor):
        for part in parts[1:]:
            mean.add_(part * share)
    return mean


def mean_vector(parts: Sequence[Vector]) -> Vector:
    """The mean in the order of the parts, added first, as `ProcessWorker.all_reduce` does."""
    if len(parts) == 1 or not isinstance(parts[0], Tensor):
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total.add_(part)
    return total.div_(len(parts))
