"""The wall clock of training, and how its time is split."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Split:
    """Seconds spent waiting, by what for, bytes of payload sent, and how often what was merged was how stale.

    All other time of training is computing.
    """

    wait_s: float = 0.0
    data_s: float = 0.0
    bytes_sent: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        staleness = dict(self.staleness)
        return {"wait_s": self.wait_s, "data_s": self.data_s, "bytes_sent": self.bytes_sent, "staleness": staleness}

    def load(self, saved: dict[str, Any]) -> None:
        self.wait_s, self.data_s, self.bytes_sent = saved["wait_s"], saved["data_s"], saved["bytes_sent"]
        self.staleness = Counter(saved["staleness"])

    def count_sent(self, nbytes: int) -> None:
        """From any thread."""
        with self.lock:
            self.bytes_sent += nbytes


class TrainingClock:
    """Seconds of training so far. Stands still inside `paused()` (evaluation, checkpoints).

    Args:
        synchronize: waits until the device has done what was asked of it; called before the clock is read.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.synchronize = synchronize or (lambda: None)
        self.start_s = time.perf_counter()
        self.stopped_s = 0.0
        """What it shows while it stands still."""

    def restart(self, at_s: float = 0.0) -> None:
        """Start from zero, or where an earlier part of the run has got to."""
        self.synchronize()
        self.start_s = time.perf_counter() - at_s

    def now(self) -> float:
        self.synchronize()
        return time.perf_counter() - self.start_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.stopped_s = self.now()
        yield
        self.restart(self.stopped_s)


class Mark:
    """A point in the device's work, set without waiting for it; later, how long ago the device passed it."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.set_s: float | None = None
        self.event = torch.cuda.Event(enable_timing=True) if self.cuda else None

    def set(self, *_: object) -> None:
        if self.event is not None:
            self.event.record()
        self.set_s = time.perf_counter()

    def elapsed_s(self) -> float:
        """Seconds of device time since `set`, once; 0 where it has not been set since the last question."""
        if self.set_s is None:
            return 0.0
        if self.event is None:
            elapsed_s = time.perf_counter() - self.set_s
        else:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            end.synchronize()
            elapsed_s = self.event.elapsed_time(end) / 1000
        self.set_s = None
        return elapsed_s
