"""Bytes of payload that one process sends, by operation. Headers and retransmissions are not counted."""

from __future__ import annotations

from collections.abc import Iterable


def message_bytes(parts: Iterable[int]) -> int:
    """One message, of parts so many bytes long."""
    return sum(parts)


def all_reduce_bytes(nbytes: int, ranks: int) -> int:
    """A ring all-reduce of nbytes over so many ranks: 2 (N - 1) / N of them, rounded."""
    return round(2 * (ranks - 1) * nbytes / ranks)


def all_gather_bytes(nbytes: int, ranks: int) -> int:
    """A ring all-gather: each rank passes on every share but the one it ends up with last."""
    return (ranks - 1) * nbytes
