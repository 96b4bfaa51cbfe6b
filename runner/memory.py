"""How a process handles the memory of large vectors."""

from __future__ import annotations

import contextlib
import ctypes

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
