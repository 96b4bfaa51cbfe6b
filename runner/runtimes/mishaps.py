"""Carrying out a plan of failures on the virtual cluster.

A worker that dies takes nothing back: what it has sent arrives. What reaches it while it is dead is lost. The others
stop waiting for what it has not sent `detection_s` later, and their exchanges come without it; a collective waits for
`timeout_s` and then fails the run. What a method makes of that is the method's business.

A worker that returns takes up the step and the message numbers of a living one, so that the messages of both sides
match again. The numbers that it skips so are never sent, and those that it had got to before are not sent to it again:
nobody waits for either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

from algorithms.worker import Vector
from runner.cluster.failures import Failures, Happening
from runner.launchers import RunFailedError
from runner.runtimes.gradients import Buffers
from runner.runtimes.reductions import Collective
from runner.runtimes.simulator import Cluster, VirtualWorker


@dataclass
class Standing:
    """Where a worker stood at its last yield."""

    iterate: Vector
    buffers: list[Buffers]
    state: Any = None  # a copy, without what was under way
    draw: int = 0
    exchanges: int = 0


class Mishaps:
    """The plan at work.

    Args:
        start: lets a worker begin its algorithm.
        changed: called when a worker has died or returned.
        take_place: of a method that knows how, `Stepwise.replace`: puts an iterate into a copy of a living worker's
            state. For others a fresh state takes that one's whole numbers.
    """

    def __init__(
        self,
        cluster: Cluster,
        failures: Failures,
        plan: list[Happening],
        start: Callable[[VirtualWorker], None],
        changed: Callable[[], None],
        take_place: Callable[[Any, Vector], None] | None = None,
    ) -> None:
        self.take_place = take_place
        self.cluster, self.engine, self.failures = cluster, cluster.engine, failures
        self.start, self.changed = start, changed
        self.dead: dict[int, float] = {}  # rank -> since when
        self.initial: list[Standing] = []
        self.skipped: dict[int, list[range]] = {}  # numbers of exchanges that a worker was not there for
        self.had: dict[int, int] = {}  # the number that a worker had got to when it died
        if plan:
            cluster.begun = self._begun
            kept = cluster.source.buffers_of
            self.initial = [Standing(worker.x0, kept(worker.processes)) for worker in cluster.workers]
            for worker in cluster.workers:
                worker.never_comes = partial(self._never_comes, worker.rank)
        self.standing = dict(enumerate(self.initial))
        for each in plan:
            action = {"dies": self._die, "returns": self._return, "pauses": self._pause, "resumes": self._resume}
            self.engine.at(each.time_s, action[each.what], cluster.workers[each.worker])

    def yielded(self, worker: VirtualWorker, x: Vector) -> None:
        """Remember where a worker stands, for those that may have to start from there."""
        buffers = self.cluster.source.buffers_of(worker.processes)
        self.standing[worker.rank] = Standing(x, buffers, without_handles(worker.state), worker.draw, worker.exchanges)

    def _pause(self, worker: VirtualWorker) -> None:
        if worker.task is not None:
            for task in (worker.task, *worker.companions):
                task.pause()

    def _resume(self, worker: VirtualWorker) -> None:
        if worker.task is not None:
            for task in (*worker.companions, worker.task):  # it may be about to end, once they have done their part
                task.resume()

    def _die(self, worker: VirtualWorker) -> None:
        if worker.task is None or worker.task not in self.engine.tasks:
            return  # it has finished
        for task in (worker.task, *worker.companions):
            task.close()
        worker.task = None
        worker.companions.clear()
        worker.expected.clear()
        worker.letters.clear()
        self.cluster.source.forget(worker.processes)
        self.dead[worker.rank] = self.engine.now
        if all(worker.task is None for worker in self.cluster.workers):
            raise RunFailedError(f"worker {worker.rank} died at {self.engine.now:.6g} s, and no worker is left")
        self.had[worker.rank] = max(worker.exchanges, self.had.get(worker.rank, 0))
        for collective in list(self.cluster.collectives.values()):
            if worker.rank in collective.group.ranks:
                collective.leave(worker.rank)
                self._give_time(collective, worker.rank)
        self.engine.at(self.engine.now + self.failures.detection_s, self._detected, (worker, self.engine.now))
        self.changed()

    def _detected(self, death: tuple[VirtualWorker, float]) -> None:
        worker, died_s = death
        if self.dead.get(worker.rank) == died_s:
            self.cluster.farewells.note_death(worker.rank)
            self._release(worker.rank, lambda number: number > worker.exchanges)

    def _release(self, source: int, never_sent: Callable[[int], bool]) -> None:
        """Nobody waits any longer for those messages of a worker."""
        for worker in self.cluster.workers:
            for sender, number in list(worker.expected):
                if sender == source and never_sent(number):
                    worker.expected.pop((sender, number)).take(sender, None, self.engine.now)

    def _never_comes(self, target: int, source: int, number: int) -> bool:
        if number <= self.had.get(target, 0):
            return True  # it came to the target's former life, or was lost while that was dead
        died_s = self.dead.get(source)
        detected = died_s is not None and self.engine.now >= died_s + self.failures.detection_s
        if detected and number > self.cluster.workers[source].exchanges:
            return True
        return any(number in each for each in self.skipped.get(source, ()))

    def _return(self, worker: VirtualWorker) -> None:
        if worker.rank not in self.dead:
            return
        hops = range(1, worker.size)
        living = (rank for hop in hops if (rank := (worker.rank + hop) % worker.size) not in self.dead)
        there = self.standing[next(living)]
        if there.draw >= worker.draws:
            return  # too late: that one has finished
        own, first = self.standing[worker.rank], self.initial[worker.rank]
        source = {"neighbour": there, "checkpoint": own, "initial": first}[self.failures.return_state]

        def begin_again(state: Any) -> Any:
            try:
                if there.state is None:  # nobody has taken a step yet
                    return replace(state, x=source.iterate)
                if self.take_place is not None:
                    taken = without_handles(there.state)
                    self.take_place(taken, source.iterate)
                    return taken
                counters = {name: each for name, each in vars(there.state).items() if type(each) is int}
                return replace(state, x=source.iterate, **counters)
            except TypeError as error:
                raise RunFailedError(
                    f"worker {worker.rank} cannot return with a {type(state).__qualname__}: its state must be a "
                    f"dataclass with the iterate in `x`, see Worker.restore ({error})"
                ) from error

        worker.begin_again = begin_again
        self.cluster.farewells.note_return(worker.rank)
        self.cluster.source.set_buffers(worker.processes, source.buffers)
        worker.split.wait_s += self.engine.now - self.dead.pop(worker.rank)
        missed = range(worker.exchanges + 1, there.exchanges + 1)
        self.skipped.setdefault(worker.rank, []).append(missed)
        worker.draw, worker.exchanges = there.draw, there.exchanges
        worker.mailbox = {key: (None, at) for key, (_, at) in worker.mailbox.items() if key[1] > there.exchanges}
        if worker.optimizer is not None:
            worker.optimizer.begin_again(there.draw)
        self.standing[worker.rank] = replace(there, iterate=source.iterate, buffers=source.buffers)
        self._release(worker.rank, missed.__contains__)
        self.start(worker)
        self.changed()

    def _begun(self, collective: Collective) -> None:
        for rank in collective.group.ranks:
            if rank in self.dead:
                self._give_time(collective, rank)

    def _give_time(self, collective: Collective, rank: int) -> None:
        self.engine.at(self.engine.now + self.failures.timeout_s, self._time_out, (collective, rank, self.dead[rank]))

    def _time_out(self, wait: tuple[Collective, int, float]) -> None:
        collective, rank, died_s = wait
        under_way = self.cluster.collectives.get((collective.kind, collective.group)) is collective
        if under_way and collective.joined and self.dead.get(rank) == died_s:
            raise RunFailedError(
                f"worker {rank} died at {died_s:.6g} s: a {collective.kind} over {len(collective.group.ranks)} workers "
                f"waited for it in vain, failures.timeout_s={self.failures.timeout_s:g}, until {self.engine.now:.6g} s "
                "of virtual time"
            )


def without_handles(state: Any) -> Any:
    """A copy of a state, its vectors shared, without what is under way."""
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{each.name: without_handles(getattr(state, each.name)) for each in fields(state)})
    if isinstance(state, list):
        return [without_handles(each) for each in state if not _holds_handle(each)]
    if isinstance(state, dict):
        return {key: without_handles(each) for key, each in state.items() if not _holds_handle(each)}
    return None if _holds_handle(state) else state


def _holds_handle(value: Any) -> bool:
    return hasattr(value, "__await__") or (isinstance(value, tuple) and any(map(_holds_handle, value)))
