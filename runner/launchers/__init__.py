"""How the processes of a run come to life."""

from __future__ import annotations


class RunFailedError(Exception):
    """A run did not come to its end; the message says which rank failed first, and how."""


class InterruptedRunError(Exception):
    """A run was stopped from outside (Ctrl-C, SIGTERM)."""
