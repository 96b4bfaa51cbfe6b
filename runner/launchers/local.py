"""Processes on this machine, started through torch's elastic launch API (what torchrun uses).

The processes are forked from a server that has torch loaded: it starts while the launching process still checks the
configuration, and the cells of a sweep share it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from runner.config import Config
from runner.launchers import InterruptedRunError, RunFailedError
from runner.results import read_json

PRELOAD = ["runner.preload"]
LAST_LINES = 15


def warm_up() -> None:
    """Start the server that workers are forked from; it loads torch in the meantime."""
    multiprocessing.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()


def launch(folder: Path, config: Config) -> None:
    """Run the frozen configuration in `folder` to its end.

    Raises:
        RunFailedError: a process raised or was killed; the others are gone too.
        InterruptedRunError: this process was asked to stop; no process is left.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    from runner.training import main_rank

    logging.disable(logging.CRITICAL)  # what happened is told below, in our words
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        elastic_launch(_launch_config(folder, config), main_rank)(str(folder.resolve()))
    except ChildFailedError as error:
        if any(failure.exitcode == -signal.SIGINT for failure in error.failures.values()):
            raise InterruptedRunError("stopped by SIGINT") from error
        raise RunFailedError(_first_failure(folder, error)) from error
    except (SignalException, KeyboardInterrupt) as error:
        name = signal.Signals(getattr(error, "sigval", signal.SIGINT)).name
        raise InterruptedRunError(f"stopped by {name}") from error
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _launch_config(folder: Path, config: Config) -> Any:
    from torch.distributed.launcher.api import LaunchConfig

    launcher = config["launcher"]
    common: dict[str, Any] = {
        "run_id": folder.name,
        "max_restarts": 0,
        "monitor_interval": 0.05,
        "start_method": "forkserver",
    }
    if launcher.get("rendezvous"):
        return LaunchConfig(
            min_nodes=config["nodes"],
            max_nodes=config["nodes"],
            nproc_per_node=config["gpus_per_node"],
            rdzv_backend="static",
            rdzv_endpoint=launcher["rendezvous"],
            rdzv_configs={"rank": launcher["node_rank"], "timeout": launcher["timeout_s"]},
            **common,
        )
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=config["nodes"] * config["gpus_per_node"],
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        **common,
    )


def _first_failure(folder: Path, error: Any) -> str:
    """What to tell of a failed run: the rank that failed first, and its traceback or its last words.

    When one process goes, its neighbours soon fail too, with a broken connection: a process that was killed, or left
    without an exception, or else the earliest exception, is the one to name.
    """
    signals = {rank: -failure.exitcode for rank, failure in error.failures.items() if failure.exitcode < 0}
    killed = {rank: number for rank, number in signals.items() if number != signal.SIGTERM}  # SIGTERM came from us
    reports = [r for r in map(read_json, sorted((folder / "log").glob("rank-*.error.json"))) if r]
    if killed:
        rank, number = min(killed.items())
        words = (folder / "log" / f"rank-{rank:05d}.log").read_text().splitlines()[-LAST_LINES:]
        return "\n".join([f"rank {rank} was killed by {signal.Signals(number).name}", *words])
    silent = set(error.failures) - {report["rank"] for report in reports} - set(signals)
    if reports and not silent:
        first = min(reports, key=lambda report: float(report["time"]))
        return f"rank {first['rank']}: {first['error']}\n{first['traceback']}".rstrip()
    rank = min(silent or error.failures)
    return f"rank {rank} ended with exit code {error.failures[rank].exitcode}; see {os.path.relpath(folder / 'log')}"
