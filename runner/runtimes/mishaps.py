"""Carrying out a plan of failures on the virtual cluster.

A worker that dies takes nothing back: what it has sent arrives. What is sent to it is lost. The others stop waiting
for its messages `detection_s` later, and their exchanges come without them; a collective waits for `timeout_s` and then
fails the run. What a method makes of that is the method's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from algorithms.worker import Vector
from runner.cluster.failures import Failures, Happening
from runner.launchers import RunFailedError
from runner.runtimes.reductions import Collective
from runner.runtimes.simulator import Cluster, VirtualWorker


@dataclass
class Standing:
    """Where a worker stood at its last yield."""

    iterate: Vector
    counters: dict[str, int]
    draw: int = 0
    exchanges: int = 0


class Mishaps:
    """The plan at work.

    Args:
        start: lets a worker begin its algorithm.
        changed: called when a worker has died or returned.
    """

    def __init__(
        self,
        cluster: Cluster,
        failures: Failures,
        plan: list[Happening],
        start: Callable[[VirtualWorker], None],
        changed: Callable[[], None],
    ) -> None:
        self.cluster, self.engine, self.failures = cluster, cluster.engine, failures
        self.start, self.changed = start, changed
        self.dead: dict[int, float] = {}  # rank -> since when
        self.standing: dict[int, Standing] = {}
        self.skipped: dict[int, list[range]] = {}  # exchanges that a worker was not there for
        if plan:
            cluster.begun = self._begun
            for worker in cluster.workers:
                worker.never_comes = self._never_comes
        for each in plan:
            action = {"dies": self._die, "returns": self._return, "pauses": self._pause, "resumes": self._resume}
            self.engine.at(each.time_s, action[each.what], cluster.workers[each.worker])

    def yielded(self, worker: VirtualWorker, x: Vector) -> None:
        """Remember where a worker stands, for those that may have to start from there."""
        counters = {f.name: getattr(worker.state, f.name) for f in fields(worker.state)}
        counters = {name: value for name, value in counters.items() if type(value) is int}
        self.standing[worker.rank] = Standing(x, counters, worker.draw, worker.exchanges)

    def _pause(self, worker: VirtualWorker) -> None:
        if worker.task is not None:
            worker.task.pause()

    def _resume(self, worker: VirtualWorker) -> None:
        if worker.task is not None:
            worker.task.resume()

    def _die(self, worker: VirtualWorker) -> None:
        if worker.task is None or worker.task not in self.engine.tasks:
            return  # it has finished
        worker.task.close()
        worker.task = None
        worker.expected.clear()
        self.dead[worker.rank] = self.engine.now
        for collective in self.cluster.collectives.values():
            if worker.rank in collective.group.ranks:
                collective.leave(worker.rank)
                self._give_time(collective)
        self.engine.at(self.engine.now + self.failures.detection_s, self._detected, worker.rank)
        self.changed()

    def _detected(self, rank: int) -> None:
        if rank in self.dead:
            self._release(rank, None)

    def _release(self, rank: int, until: int | None) -> None:
        """Nobody waits any longer for messages of a worker (up to a number) that were never sent."""
        for worker in self.cluster.workers:
            for source, sequence in list(worker.expected):
                if source == rank and (until is None or sequence <= until):
                    worker.expected.pop((source, sequence)).take(source, None, self.engine.now)

    def _never_comes(self, source: int, sequence: int) -> bool:
        died_s = self.dead.get(source)
        if died_s is not None and self.engine.now >= died_s + self.failures.detection_s:
            return True
        return any(sequence in each for each in self.skipped.get(source, ()))

    def _return(self, worker: VirtualWorker) -> None:
        if worker.rank not in self.dead:
            return
        died_s = self.dead.pop(worker.rank)
        size = worker.size
        neighbours = [(worker.rank + hop) % size for hop in range(1, size)]
        neighbour = next((rank for rank in neighbours if rank not in self.dead), None)
        if neighbour is None:
            raise RunFailedError(f"worker {worker.rank} returned at {self.engine.now:.6g} s and found nobody alive")
        there = self.standing.get(neighbour, Standing(worker.x0, {}))
        own = self.standing.get(worker.rank, Standing(worker.x0, {}))
        x = {"neighbour": there.iterate, "checkpoint": own.iterate, "initial": worker.x0}[self.failures.return_state]

        def begin_again(state: Any) -> Any:
            return replace(state, x=x, **there.counters)

        worker.begin_again = begin_again
        self.skipped.setdefault(worker.rank, []).append(range(worker.exchanges + 1, there.exchanges + 1))
        self._release(worker.rank, there.exchanges)
        worker.draw, worker.exchanges = there.draw, there.exchanges
        worker.split.wait_s += self.engine.now - died_s
        worker.mailbox = {key: (None, at) for key, (_, at) in worker.mailbox.items() if key[1] > there.exchanges}
        if worker.optimizer is not None:
            worker.optimizer.begin_again(there.draw)
        self.start(worker)
        self.changed()

    def _begun(self, collective: Collective) -> None:
        if any(rank in self.dead for rank in collective.group.ranks):
            self._give_time(collective)

    def _give_time(self, collective: Collective) -> None:
        self.engine.at(self.engine.now + self.failures.timeout_s, self._time_out, collective)

    def _time_out(self, collective: Collective) -> None:
        still_there = self.cluster.collectives.get((collective.kind, collective.group)) is collective
        gone = [rank for rank in collective.group.ranks if rank in self.dead]
        if still_there and gone:
            died = ", ".join(f"worker {rank} died at {self.dead[rank]:.6g} s" for rank in gone)
            raise RunFailedError(
                f"{died}: a {collective.kind} over {len(collective.group.ranks)} workers waited for it in vain, "
                f"failures.timeout_s={self.failures.timeout_s:g}, until {self.engine.now:.6g} s of virtual time"
            )
