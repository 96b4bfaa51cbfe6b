"""Stopping a run of real processes at one step of all of them, after a signal.

A scheduler warns the processes of a run with a signal before it stops them. Each then promises, from a thread and at
once, not to go beyond the step it is in; the last of all these steps is where they stop. Whoever reaches its own
promise first waits to hear of the others'. No process has to reach the end of a step to promise, so none waits for a
message of one that waits for it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

POLL_S = 0.2
NOWHERE = 1 << 62
"""A step that no run reaches."""


class HaltedError(Exception):
    """The run has stopped at a step, after a signal, and its checkpoint is complete.

    Args:
        number: of the signal.
    """

    def __init__(self, step: int, number: int) -> None:
        self.step, self.signal = step, signal.Signals(number)
        super().__init__(f"stopped at step {step}, after {self.signal.name}")

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        return HaltedError, (self.step, int(self.signal))


class Signals:
    """Watches for signals in a thread, which hears of them also while the main thread waits inside torch."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._heard = threading.Event()

    def watch(self, *numbers: int) -> None:
        """From the main thread."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
            signal.siginterrupt(number, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def listen() -> None:
            while True:
                for number in os.read(reading, 1):
                    if number in numbers and self.number is None:
                        self.number = number
                        self._heard.set()

        threading.Thread(target=listen, name="signals", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether there has been one; None: wait for it."""
        return self._heard.wait(timeout_s)


SIGNALS = Signals()
"""Of this process. Nothing is heard before `watch`."""


class Halt:
    """The agreement of all processes on where to stop; made by all of them alike.

    Args:
        store: that all share.
        draw: how many steps this process has begun.
    """

    def __init__(self, store: Any, rank: int, size: int, draw: Callable[[], int], signals: Signals = SIGNALS) -> None:
        # A connection of its own: the main thread may be waiting on its own for a process that waits for this promise.
        self.store = store.clone()
        self.rank, self.size, self.draw, self.signals = rank, size, draw, signals
        self.lock = threading.Lock()
        self.promise: int | None = None
        self.agreed: int | None = None
        self.number = 0  # of the signal
        self._known = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="halt", daemon=True)
        self._thread.start()

    def is_at(self, draw: int) -> bool:
        """Between two steps, after so many: whether all stop here."""
        with self.lock:
            promise = self.promise
        if promise is None or draw < promise:
            return False
        self._known.wait()
        return draw == self.agreed

    def close(self) -> None:
        """Training is over, for this process: it stops nowhere, and so does nobody."""
        self._promise(lambda: NOWHERE)
        self._over.set()
        self._thread.join()

    def _promise(self, step: Callable[[], int]) -> None:
        with self.lock:  # so that no step ends in between
            if self.promise is None:
                self.promise = step()
                self.store.set(f"halt promise {self.rank}", str(self.promise))

    def _watch(self) -> None:
        try:
            self._agree()
        finally:  # also where the store is gone
            self._known.set()

    def _agree(self) -> None:
        while not self.signals.wait(POLL_S) and not self.store.check(["halt asked"]):
            if self._over.is_set():
                return
        if self.signals.number is not None:
            self.store.set("halt asked", str(int(self.signals.number)))
        self._promise(lambda: self.draw() + 1)
        names = [f"halt promise {rank}" for rank in range(self.size)]
        while not self.store.check(names):
            if self._over.wait(POLL_S / 10):
                return
        self.agreed = max(int(self.store.get(name)) for name in names)
        self.number = int(self.store.get("halt asked"))


def default_store() -> Any:
    """That of the process group."""
    return dist.distributed_c10d._get_default_store()
