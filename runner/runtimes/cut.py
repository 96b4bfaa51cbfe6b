"""Holding all asynchronous workers of a run where nothing is under way: the moment of which a checkpoint is made.

Worker 0 calls it. Every worker then stands still between two of its steps, or where it waits for the others to leave;
its loops over messages, and the servers, go on until all that was sent has been taken in and answered. That is so when
two counts in a row, over all processes, find as many messages come as sent, the same number twice, and every loop
waiting (Mattern's four counters; Distributed Computing 1987).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from runner.halting import HaltedError

if TYPE_CHECKING:
    from runner.runtimes.processes import ProcessWorker

POLL_S = 0.002


class Cut:
    """One process's part in it.

    Args:
        save: writes this process's part of a checkpoint; called while nothing moves. Returns what to raise on every
            process, if training does not go on from here.
    """

    def __init__(self, worker: ProcessWorker, save: Callable[[], HaltedError | None]) -> None:
        self.worker, self.save = worker, save
        self.asked = False
        self._thread: threading.Thread | None = None
        self._stands = threading.Event()
        self._released = threading.Event()
        if worker.is_server:
            self._stands.set()

    def begin(self) -> None:
        """It has been called."""
        if self._thread is not None:
            self._thread.join()  # of the time before: worker 0 may be at the next when this process is still letting go
        if not self.worker.is_server:
            self._stands.clear()
        self._released.clear()
        self.asked = True
        self._thread = threading.Thread(target=self._watched, name="cut", daemon=True)
        self._thread.start()

    def stand(self) -> None:
        """On a worker's own thread: stand still until it is over.

        Raises:
            HaltedError: training does not go on from here.
        """
        self.worker.hold_followers()
        self._stands.set()
        self._released.wait()
        assert self.worker.post is not None
        if self.worker.post.failure is not None:
            raise self.worker.post.failure

    def _watched(self) -> None:
        post = self.worker.post
        assert post is not None
        try:
            self._stands.wait()
            with self.worker.clock.paused():
                settle(post.census)
                with post.turn.lock:
                    halted = self.save()
        except BaseException as error:
            halted = error  # type: ignore[assignment]
        if halted is not None:
            with post.changed:
                post.failure = post.failure or halted
                post.changed.notify_all()
        self.asked = False
        self._released.set()


def settle(census: Callable[[], tuple[int, int, int]]) -> None:
    """Collective: until nothing moves in any process."""
    before: list[int] | None = None
    while True:
        counts = torch.tensor(census())
        dist.all_reduce(counts)
        now = counts.tolist()
        sent, come, busy = now
        if busy == 0 and sent == come and now == before:
            return
        before = now
        time.sleep(POLL_S)
