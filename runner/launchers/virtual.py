"""Runs on virtual clusters, several side by side: each is one process, forked from the server that `local` starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from runner.launchers import InterruptedRunError, RunFailedError
from runner.launchers.failures import first_failure


class SideBySide:
    """Launches from several threads at once; what is under way can be stopped from another."""

    def __init__(self) -> None:
        self._under_way: set[ForkServerProcess] = set()
        self._lock = threading.Lock()
        self._stopped: signal.Signals | None = None

    def launch(self, folder: Path) -> None:
        """Run the frozen configuration in `folder` to its end.

        Raises:
            RunFailedError: the process raised or was killed.
            InterruptedRunError: it was stopped, or nothing may begin any more.
        """
        process = multiprocessing.get_context("forkserver").Process(target=_only_rank, args=(str(folder.resolve()),))
        with self._lock:
            if self._stopped is None:
                process.start()
                self._under_way.add(process)
        if process.pid is not None:
            wait([process.sentinel])
        with self._lock:  # starting one looks at all others too, and of two that read an exit status one finds nothing
            if process.pid is not None:
                process.join()
            self._under_way.discard(process)
        if self._stopped is not None and process.exitcode != 0:
            raise InterruptedRunError(self._stopped)
        if process.exitcode == -signal.SIGINT:  # Ctrl-C reaches it before it reaches us
            raise InterruptedRunError(signal.SIGINT)
        if process.exitcode:
            hint = "" if process.exitcode != -signal.SIGKILL else OUT_OF_MEMORY
            raise RunFailedError(first_failure(folder / "log", 0, process.exitcode) + hint)

    def stop(self, number: int) -> None:
        """End what is under way, after a signal; nothing begins any more."""
        with self._lock:
            self._stopped = signal.Signals(number)
            for process in self._under_way:
                process.terminate()


OUT_OF_MEMORY = "\nIf memory ran out: launcher.at_once=1 runs a sweep's cells one after the other."


def _only_rank(folder: str) -> None:
    """What elastic launch would set for the only process of a run, then that process."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
    from runner.process import main_rank

    main_rank(folder)
