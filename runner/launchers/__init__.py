"""How the processes of a run come to life."""

from __future__ import annotations

import signal


class RunFailedError(Exception):
    """A run did not come to its end; the message says which rank failed first, and how."""


class InterruptedRunError(Exception):
    """A run was stopped from outside by a signal (Ctrl-C, SIGTERM)."""

    def __init__(self, number: int, how: str | None = None) -> None:
        self.number = signal.Signals(number)
        super().__init__(how or f"stopped by {self.number.name}")
