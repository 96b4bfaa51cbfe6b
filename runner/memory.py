"""How a process handles memory: large vectors, and many small objects."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 1 << 30


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is allocated next, also where that is larger than 32 MB.

    Otherwise each new vector of that size comes as fresh pages, and zeroing those takes two to three times as long as
    adding two vectors does. Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE)


@contextlib.contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for cyclic garbage after 10,000 new objects, not after every 700.

    A thousand virtual workers have thousands of messages and handles under way that live for long: looking through
    them again and again takes as long as the events themselves.
    """
    usual = gc.get_threshold()
    gc.set_threshold(10_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
