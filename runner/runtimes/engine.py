"""Virtual time: an event heap, and the coroutines that wait for its events.

Events happen in the order of (time, sequence of posting), so a run is a pure function of what it is given. A coroutine
that awaits a `Pending` is parked until that is done; everything else it does takes no virtual time.
"""

from __future__ import annotations

import contextlib
import heapq
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from algorithms.worker import Vector

T = TypeVar("T")


class DeadlockError(Exception):
    """Nothing is left to happen, and some tasks still wait; the message says who waits for what."""


class Ready(Generic[T]):
    """A handle whose value is there from the start, for either runtime."""

    __slots__ = ("value",)
    arrived = True

    def __init__(self, value: T) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, T]:
        return self.value
        yield  # what makes this a generator


class Pending(Generic[T]):
    """Something under way; at most one task waits for it."""

    __slots__ = ("done", "task", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: T
        self.task: Task | None = None

    @property
    def arrived(self) -> bool:
        return self.done

    def __await__(self) -> Generator[Pending[T], None, T]:
        if not self.done:
            yield self
        return self.value

    def complete(self, value: T) -> None:
        """It is done: whoever waits for it goes on."""
        self.done, self.value = True, value
        self.wake()

    def wake(self) -> None:
        if self.task is not None:
            task, self.task = self.task, None
            task.advance()

    def stood_still(self, since_s: float) -> None:
        """The worker that waits for it goes on after a pause: what it has to do for it itself falls due later."""

    def describe(self) -> str:
        """What a task waits for, for people: "worker 3 waits for ..."."""
        return "an event"


class Task:
    """One coroutine of one worker: an algorithm's `run`.

    Args:
        yielded: called with each iterate; virtual time stands still meanwhile.
        awaited: the coroutine that `run` awaits, if it has been given one.
    """

    __slots__ = ("_awaited", "_is_due", "_run", "_step", "_yielded", "engine", "name", "paused_s", "waits_for")

    def __init__(
        self,
        engine: Engine,
        name: str,
        run: AsyncGenerator[Vector, None],
        yielded: Callable[[Vector], None],
        awaited: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        self.engine, self.name, self._awaited = engine, name, awaited
        self._run, self._yielded = run, yielded
        self._step = run.__anext__().__await__()
        self.waits_for: Pending[Any] | None = None
        self.paused_s: float | None = None  # since when it stands still
        self._is_due = False  # what it waits for has come during a pause

    def advance(self) -> None:
        """Run until the coroutine waits for something, or ends."""
        if self.paused_s is not None:
            self._is_due = True
            return
        while True:
            try:
                pending = self._step.send(None)
            except StopIteration as stop:
                self._yielded(stop.value)
                self._step = self._run.__anext__().__await__()
                if self.paused_s is not None:  # held between two steps
                    self.waits_for, self._is_due = None, True
                    return
            except StopAsyncIteration:
                self.waits_for = None
                self.engine.end(self)
                return
            else:
                pending.task = self
                self.waits_for = pending
                return

    def pause(self) -> None:
        self.paused_s = self.engine.now

    def resume(self) -> None:
        """Go on after a pause."""
        assert self.paused_s is not None, f"{self.name} is not paused"
        since_s, self.paused_s = self.paused_s, None
        if self._is_due:
            self._is_due = False
            self.advance()
        elif self.waits_for is not None:
            self.waits_for.stood_still(since_s)

    def close(self) -> None:
        """End it where it stands."""
        if self.waits_for is not None:
            self.waits_for.task = None
        with contextlib.suppress(GeneratorExit, StopIteration, StopAsyncIteration):
            self._step.throw(GeneratorExit())
        self.forsake()
        self.engine.end(self)

    def forsake(self) -> None:
        """It will not go on. Of a coroutine that has not even begun Python would complain."""
        if self._awaited is not None and inspect.getcoroutinestate(self._awaited) == inspect.CORO_CREATED:
            self._awaited.close()


class VirtualClock:
    """An engine's time, asked for as that of a real run is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def now(self) -> float:
        return self.engine.now


class Engine:
    """The heap and the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._posted = 0
        self.tasks: dict[Task, None] = {}  # a set that keeps its order
        self.held: list[Task] = []

    def at(self, time_s: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call action(argument) at a virtual time, not before now."""
        heapq.heappush(self._events, (time_s, self._posted, action, argument))
        self._posted += 1

    def start(self, task: Task) -> None:
        """Let a task begin, now."""
        self.tasks[task] = None
        self.at(self.now, lambda _: task.advance() if task in self.tasks else None)

    def hold(self, task: Task) -> None:
        """Let a task stand still between two steps, until `release`."""
        task.pause()
        self.held.append(task)

    def release(self) -> None:
        """Let those that are held go on, all now."""
        held, self.held = self.held, []
        for task in held:
            task.resume()

    def end(self, task: Task) -> None:
        self.tasks.pop(task, None)

    def close(self) -> None:
        """Nothing goes on, whether all has ended or not."""
        for task in self.tasks:
            task.forsake()

    def run(self) -> None:
        """Until all tasks have ended; or, while some are `held`, until nothing more happens without them.

        Raises:
            DeadlockError: they cannot.
        """
        events, pop = self._events, heapq.heappop
        while self.tasks:
            if not events:
                if self.held:
                    return
                raise DeadlockError(self._who_waits())
            self.now, _, action, argument = pop(events)
            action(argument)

    def _who_waits(self, most: int = 8) -> str:
        waits = [f"{t.name} waits for {t.waits_for.describe()}" for t in self.tasks if t.waits_for]
        more = [f"and {len(waits) - most} more"] if len(waits) > most else []
        return f"deadlock at {self.now:.6g} s of virtual time: " + "; ".join(waits[:most] + more)
