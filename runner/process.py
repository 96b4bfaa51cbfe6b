"""What every process of a run does first: its log, its signals, its device; then it trains, or simulates."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from runner import config as configs
from runner.config import Config
from runner.halting import SIGNALS, HaltedError
from runner.launchers import RunFailedError
from runner.lifeline import die_with_parent
from runner.memory import keep_freed_memory
from runner.results import write_json, write_state
from runner.runtimes.group import process_group
from runner.simulation import simulate
from runner.training import train


def main_rank(folder: str, stops: Sequence[int] = (signal.SIGUSR2,)) -> HaltedError | None:
    """One process of a run, from start to end. Its place is in the environment, as torch's elastic launch sets it.

    Args:
        stops: signals after which the run makes a checkpoint and stops; none where they are watched for already.

    Returns:
        Where the run has stopped after a signal; None where it has come to its end.

    Raises:
        Exception: whatever went wrong, after writing it to `log/rank-<rank>.error.json`.
    """
    run = Path(folder)
    rank = int(os.environ["RANK"])
    report_file = run / "log" / f"rank-{rank:05d}.error.json"
    report_file.unlink(missing_ok=True)  # of an earlier attempt
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a rank at once, also inside torch
    if stops:
        SIGNALS.watch(*stops)
    die_with_parent()
    keep_freed_memory()
    log = (run / "log" / f"rank-{rank:05d}.log").open("a", buffering=1)
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    faulthandler.register(signal.SIGTERM, log, chain=True)  # a rank that is stopped says where it stood
    try:
        config = configs.load(run)
        device = _device(config)
        if configs.simulated(config):
            simulate(config, run, device)
        else:
            with process_group(config):
                train(config, run, device)
    except HaltedError as halted:
        if rank == 0 and not configs.on_slurm(config):  # whose task knows what comes next
            write_state(run, "interrupted", str(halted))
        _end_helpers()
        return halted
    except BaseException as error:
        foreseen = isinstance(error, RunFailedError)  # it says all there is to say
        report = {
            "rank": rank,
            "time": time.time(),
            "error": str(error) if foreseen else f"{type(error).__name__}: {error}",
            "traceback": "" if foreseen else traceback.format_exc(),
        }
        write_json(report_file, report)
        _end_helpers()
        if isinstance(error, SystemExit):
            os._exit(1)  # exit status 0 would pass for success
        raise
    return None


def _end_helpers() -> None:
    """Loaders of a rank that stops midway: its end would wait for theirs, which nobody calls any more."""
    for helper in multiprocessing.active_children():
        helper.kill()


def _device(config: Config) -> torch.device:
    torch.set_num_threads(config["threads_per_worker"])
    if config["device"] == "cpu":
        return torch.device("cpu")
    if torch.cuda.device_count() == 0:
        raise RunFailedError(
            f"device=cuda: torch sees no GPU on {platform.node()}; ask for nodes that have some, or use device=cpu"
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def describe_machine() -> dict[str, Any]:
    """Versions that bear on numbers, for environment.json."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
    }
