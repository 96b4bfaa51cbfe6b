"""Driving an algorithm: a few lines in place of an event loop.

`await handle` inside an algorithm suspends it and hands `handle` to whoever drives it. On real processes the driver
blocks in `handle.wait()` and resumes the algorithm with the value.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Y = TypeVar("Y")


class Request(Generic[T]):
    """A handle whose value is computed, or waited for, once, when it is awaited."""

    def __init__(self, wait: Callable[[], T]) -> None:
        self._wait: Callable[[], T] | None = wait
        self._value: T | None = None

    def __await__(self) -> Generator[Request[T], T, T]:
        return (yield self)

    def wait(self) -> T:
        if self._wait is not None:
            self._value, self._wait = self._wait(), None
        return self._value  # type: ignore[return-value]

    @property
    def arrived(self) -> bool:
        return self._wait is None


class Turn:
    """Lets the tasks of one worker, each in a thread of its own, run one at a time: a turn lasts until an `await`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def waited_for(self, request: Request[Any]) -> Any:
        self.lock.release()
        try:
            return request.wait()
        finally:
            self.lock.acquire()


def drive(awaitable: Awaitable[T], turn: Turn | None = None) -> T:
    """Run an awaitable to its end, waiting for each request in turn. A `turn` is this task's before and after."""
    steps: Generator[Any, Any, T] = awaitable.__await__()
    wait = Request.wait if turn is None else turn.waited_for
    try:
        request = next(steps)
        while True:
            request = steps.send(wait(request))
    except StopIteration as stop:
        value: T = stop.value
        return value


def iterates(run: AsyncGenerator[Y, None], turn: Turn | None = None) -> Iterator[Y]:
    """What an async generator yields, as a plain iterator."""
    with contextlib.nullcontext() if turn is None else turn.lock:
        while True:
            try:
                yield drive(run.__anext__(), turn)
            except StopAsyncIteration:
                return
