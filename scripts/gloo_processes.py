"""Running a function in the processes of a gloo group, on this machine or each on an emulated host of its own."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from runner.lifeline import die_with_parent
from runner.memory import keep_freed_memory

T = TypeVar("T")
CLONE_NEWNET = 0x40000000  # Linux: what setns(2) is to enter
TIMEOUT_S = 300


def run_in_group(
    function: Callable[..., T], processes: int, *arguments: Any, hosts: Sequence[str] | None = None
) -> list[T]:
    """What function(*arguments) returns in each of the processes of one gloo group, by rank.

    Args:
        function: importable, not a lambda.
        hosts: the network namespace that each process enters; None: all of them talk over the loopback interface.

    Raises:
        RuntimeError: one of the processes has failed; the others are gone too.
    """
    multiprocessing.set_forkserver_preload(["runner.preload"])
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pipes = []
        for rank in range(processes):
            here, there = context.Pipe(duplex=False)
            host = None if hosts is None else hosts[rank]
            process = context.Process(target=_process, args=(there, folder, rank, processes, host, function, arguments))
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)  # does nothing where it has ended by itself
            there.close()
            pipes.append(here)
        results = [_received(pipe) for pipe in pipes]
    failures = [result for result in results if isinstance(result, _Failure)]
    if failures:  # where one has failed, the others soon report a broken connection
        raise RuntimeError(min(failures, key=lambda failure: failure.time_s).traceback)
    return results


@dataclass
class _Failure:
    time_s: float
    traceback: str


def _received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return _Failure(0.0, "a process has ended without a word; was it killed?")


def _process(
    pipe: Connection,
    folder: str,
    rank: int,
    processes: int,
    host: str | None,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    try:
        if host is not None:
            _enter(host)
        die_with_parent()
        keep_freed_memory()
        os.environ["GLOO_SOCKET_IFNAME"] = "lo" if host is None else "eth0"
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=processes,
            timeout=timedelta(seconds=TIMEOUT_S),
        )
        result = function(*arguments)
        dist.destroy_process_group()
        pipe.send(result)
    except BaseException:
        pipe.send(_Failure(time.time(), traceback.format_exc()))


def _enter(host: str) -> None:
    """Move this process, which has one thread as yet, into a network namespace."""
    with Path("/run/netns", host).open() as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"network namespace {host} cannot be entered")
