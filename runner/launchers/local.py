"""Processes on this machine, started through torch's elastic launch API (what torchrun uses): one per GPU (per CPU
worker).

The processes are forked from a server that has torch loaded: it starts while the launching process still checks the
configuration, and the cells of a sweep share it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.config import Config, processes
from runner.launchers import InterruptedRunError, RunFailedError
from runner.launchers.failures import first_failure
from runner.launchers.meeting import meet

HOME = Path(__file__).resolve().parents[2]
PRELOAD = ["runner.preload"]


def warm_up() -> None:
    """Start the server that workers are forked from; it loads torch in the meantime, undisturbed by Ctrl-C.

    It imports from the folder it starts in before all others, so it starts where the code of this process lies: the
    user may stand in another checkout. A rank goes back to the user's folder and takes this process's `sys.path`.
    """
    multiprocessing.set_forkserver_preload(PRELOAD)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the server inherits
    with contextlib.chdir(HOME):
        forkserver.ensure_running()
    signal.signal(signal.SIGINT, handler)


def launch(folder: Path, config: Config) -> None:
    """Run the frozen configuration in `folder` to its end.

    Raises:
        RunFailedError: a process raised or was killed; the others are gone too.
        InterruptedRunError: this process was asked to stop; no process is left.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    from runner.process import main_rank

    logging.disable(logging.CRITICAL)  # what happened is told below, in our words
    handlers = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        if config["launcher"].get("rendezvous"):
            meet(folder, config)
        with TemporaryDirectory(prefix="distsgd-") as scratch:  # elastic launch keeps empty files of each rank there
            elastic_launch(_launch_config(folder, config, scratch), main_rank)(str(folder.resolve()))
    except ChildFailedError as error:
        if any(failure.exitcode == -signal.SIGINT for failure in error.failures.values()):
            raise InterruptedRunError(signal.SIGINT) from error
        rank, failure = min(error.failures.items())
        raise RunFailedError(first_failure(folder / "log", rank, failure.exitcode)) from error
    except (OSError, RuntimeError) as error:  # a port that is taken, a store that cannot be reached
        raise RunFailedError(f"the processes could not be started: {type(error).__name__}: {error}") from error
    except SignalException as error:
        handlers = dict.fromkeys(handlers, signal.SIG_IGN)  # a second Ctrl-C leaves the end of this process alone
        raise InterruptedRunError(error.sigval) from error
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop(number: int, _: object) -> None:
    """What elastic launch does on a signal; it does so only once it is under way."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    raise SignalException("stopped", signal.Signals(number))


def _launch_config(folder: Path, config: Config, scratch: str) -> Any:
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    launcher = config["launcher"]
    common: dict[str, Any] = {
        "run_id": folder.name,
        "max_restarts": 0,
        "logs_specs": DefaultLogsSpecs(log_dir=scratch),
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
        nproc_per_node=processes(config),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        **common,
    )
