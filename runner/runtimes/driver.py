"""Driving an algorithm: a few lines in place of an event loop.

`await handle` inside an algorithm suspends it and hands `handle` to whoever drives it. On real processes the driver
blocks in `handle.wait()` and resumes the algorithm with the value.
"""

from __future__ import annotations

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


def drive(awaitable: Awaitable[T]) -> T:
    """Run an awaitable to its end, waiting for each request in turn."""
    steps: Generator[Any, Any, T] = awaitable.__await__()
    try:
        request = next(steps)
        while True:
            request = steps.send(request.wait())
    except StopIteration as stop:
        value: T = stop.value
        return value


def iterates(run: AsyncGenerator[Y, None]) -> Iterator[Y]:
    """What an async generator yields, as a plain iterator."""
    while True:
        try:
            yield drive(run.__anext__())
        except StopAsyncIteration:
            return
