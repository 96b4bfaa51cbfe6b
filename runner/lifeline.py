"""Ending with the process that started us, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading


def die_with_parent() -> None:
    """End this process as soon as the one that asked for it has ended.

    Processes that are forked from multiprocessing's fork server are children of the server, which lives as long as any
    of them: neither the parent's id nor Linux's parent-death signal tells that a killed launcher is gone.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
