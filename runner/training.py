"""One rank of a run: sets up its process group and parts, drives the algorithm, records, evaluates, sums up."""

from __future__ import annotations

import faulthandler
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from algorithms.worker import Algorithm, Vector
from runner import config as configs
from runner.clock import TrainingClock
from runner.config import Config
from runner.data import load as load_dataset
from runner.data.dataset import Batches, Dataset
from runner.data.sampling import Sampler
from runner.evaluation import Evaluator, gather
from runner.graphs import make_graph
from runner.identity import identity, settings, variant
from runner.lifeline import die_with_parent
from runner.optimizer import LocalOptimizer
from runner.prepare import make_algorithm, make_model, make_sampler, make_span
from runner.problem import Problem, make_problem
from runner.recording import Recorder
from runner.results import Row, write_json
from runner.runtimes.driver import iterates
from runner.runtimes.group import process_group
from runner.runtimes.processes import Mesh, ProcessWorker


def main_rank(folder: str) -> None:
    """What every process of a run does. Its place is in the environment, as torch's elastic launch sets it.

    Raises:
        Exception: whatever went wrong, after writing it to `log/rank-<rank>.error.json`.
    """
    run = Path(folder)
    rank = int(os.environ["RANK"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a rank at once, also inside torch
    die_with_parent()
    log = (run / "log" / f"rank-{rank:05d}.log").open("a", buffering=1)
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    faulthandler.register(signal.SIGTERM, log, chain=True)  # a rank that is stopped says where it stood
    try:
        config = configs.load(run)
        device = _device(config)
        with process_group(config):
            train(config, run, device)
    except BaseException as error:
        report = {
            "rank": rank,
            "time": time.time(),
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        write_json(run / "log" / f"rank-{rank:05d}.error.json", report)
        if isinstance(error, SystemExit):
            os._exit(1)  # exit status 0 would pass for success
        raise


def _device(config: Config) -> torch.device:
    torch.set_num_threads(config["threads_per_worker"])
    if config["device"] == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


@dataclass
class Parts:
    """All that one process of a run is made of."""

    mesh: Mesh
    dataset: Dataset
    sampler: Sampler
    batches: Batches
    problem: Problem
    algorithm: Algorithm
    clock: TrainingClock
    worker: ProcessWorker

    @property
    def iterations_per_epoch(self) -> int:
        return self.sampler.iterations_per_epoch

    def iterates(self) -> Iterator[Vector]:
        """What the algorithm yields, step by step: running it is reading this."""
        return iterates(self.algorithm.run(self.worker))


def assemble(config: Config, device: torch.device) -> Parts:
    """Make this process's parts of the resolved configuration, inside its process group. Collective."""
    mesh = Mesh(configs.gpus_per_worker(config), config["backend"])
    dataset = load_dataset(config["dataset"])
    problem = make_problem(config, make_model(config, dataset), device)
    dataset = dataset.to(device, problem.dtype)
    sampler = make_sampler(config, dataset)
    batches = dataset.batches(sampler, mesh.rank, config["seed"])
    per_epoch = sampler.iterations_per_epoch
    algorithm = make_algorithm(config)
    # The stream that computes, not the device: messages may stay under way while the clock is read.
    clock = TrainingClock((lambda: torch.cuda.current_stream().synchronize()) if device.type == "cuda" else None)
    worker = ProcessWorker(
        mesh,
        problem,
        batches,
        draws=config["epochs"] * per_epoch,
        optimizer=LocalOptimizer(config["optimizer"], config["schedule"], problem.x0, make_span(config, per_epoch)),
        graph=make_graph(config, algorithm, mesh.workers, per_epoch),
        clock=clock,
    )
    return Parts(mesh, dataset, sampler, batches, problem, algorithm, clock, worker)


def train(config: Config, folder: Path, device: torch.device) -> None:
    """Run the configuration's algorithm to its end, on this process of the process group."""
    parts = assemble(config, device)
    worker, per_epoch, every = parts.worker, parts.iterations_per_epoch, config["evaluation"]["every"]
    # Batches of its own: where they are read ahead, recalibration must not disturb those of training.
    calibration = parts.dataset.batches(parts.sampler, parts.mesh.rank, config["seed"])
    evaluator = Evaluator(parts.mesh, parts.problem, parts.dataset, calibration, config["evaluation"])
    recorder = Recorder(folder, config, parts.mesh, worker, per_epoch)

    dist.barrier()
    parts.clock.restart()
    x = parts.problem.x0
    for x in parts.iterates():
        recorder.step()
        epoch, rest = divmod(worker.draw, per_epoch)
        if rest == 0 and epoch % every == 0 and epoch < config["epochs"]:
            with parts.clock.paused():
                recorder.evaluation(evaluator.evaluate(x))
                dist.barrier()  # or the first to resume would be charged for the last to evaluate
    worker.close()
    final = recorder.evaluation(evaluator.evaluate(x))
    recorder.close()
    parts.batches.close()
    calibration.close()
    has_buffers = bool(parts.problem.buffers())
    final["batch_norm"] = config["evaluation"]["batch_norm"] if has_buffers else None
    _sum_up(config, folder, recorder, final, per_epoch)


def _sum_up(config: Config, folder: Path, recorder: Recorder, final: Row, per_epoch: int) -> None:
    """Fold what every process measured into summary.json, written by rank 0: the run is finished."""
    table = gather(recorder.totals())
    dist.barrier()  # all files are closed
    if dist.get_rank() != 0:
        return
    training_s, iteration_s, compute_s, wait_s, data_s, bytes_sent = table.mean(0).tolist()
    workers = configs.workers(config)
    summary: Row = {
        "identity": identity(config),
        "experiment": config["choices"].get("experiment"),
        **{group: config["choices"][group] for group in ("algorithm", "topology", "dataset", "model")},
        **{group: config["choices"][group] for group in ("optimizer", "schedule", "sampling")},
        "variant": variant(config),
        "settings": settings(config),
        "launcher": config["launcher"]["kind"],
        "clock": "wall",
        "device": config["device"],
        "backend": config["backend"],
        "nodes": config["nodes"],
        "gpus_per_node": config["gpus_per_node"],
        "workers": workers,
        "batch_size": config["batch_size"],
        "global_batch_size": configs.global_batch_size(config),
        "lr": config["optimizer"]["lr"],
        "seed": config["seed"],
        "epochs": config["epochs"],
        "iterations": config["epochs"] * per_epoch,
        "evaluated_model": "mean",
        **final,
        "training_time_s": training_s,
        "epoch_time_s": iteration_s * per_epoch,
        "iteration_time_s": iteration_s,
        "compute_s": compute_s,
        "wait_s": wait_s,
        "data_s": data_s,
        "bytes_sent": round(bytes_sent * configs.gpus_per_worker(config)),
    }
    write_json(folder / "summary.json", summary)


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
