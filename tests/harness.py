"""What tests of real processes share: composing configurations, and running functions in gloo process groups."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from runner.composing import compose
from runner.config import Config, ranks
from runner.parts import Parts, assemble
from runner.prepare import resolve
from runner.simulation import Simulation

SMALL = ("dataset=digits", "model=mlp", "model.hidden=[16]", "batch_size=8", "device=cpu", "evaluation.every=1000")
DOUBLE = ("problem.dtype=float64",)
HEAVY_BALL = ("optimizer.nesterov=false", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01")


def configure(*overrides: str, results_dir: str | Path | None = None) -> Config:
    """A resolved configuration, as the command line would make it."""
    with tempfile.TemporaryDirectory() as folder:
        [(config, _)] = compose([*overrides, f"results_dir={results_dir or folder}"])
        return resolve(config)


def _process(function: Callable[..., Any], rank: int, size: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=timedelta(seconds=60)
        )
        torch.save(function(*arguments), f"{folder}/{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        Path(folder, f"{rank}.error").write_text(traceback.format_exc())
        raise


def run_processes(function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """function(*arguments) in each of `size` real processes of one gloo group; what each returned, by rank.

    A result is made of tensors and plain containers; the function is importable (not a lambda).
    """
    multiprocessing.set_forkserver_preload(["runner.preload"])
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_process, args=(function, rank, size, folder, arguments)) for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        left_behind = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
        errors = [path.read_text() for path in sorted(Path(folder).glob("*.error"))]
        assert not errors, "\n".join(errors)
        assert not left_behind, f"these ranks have not ended: {left_behind}"
        return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(size)]


def trajectory(config: Config, steps: int | None = None) -> dict[str, Any]:
    """In a process of a group: run the configuration's algorithm; its iterates (steps, d) and what it sent."""
    parts = assemble(config, torch.device("cpu"))
    iterates = collect(parts, steps)
    if parts.worker.post is not None:
        parts.worker.leave().wait()
    parts.worker.close()
    return {"iterates": torch.stack(iterates), "bytes_sent": parts.worker.split.bytes_sent}


def trajectories(configs: list[Config]) -> list[dict[str, Any]]:
    """In a process of a group: `trajectory` of each, one after the other."""
    return [trajectory(config) for config in configs]


def collect(parts: Parts, steps: int | None) -> list[Tensor]:
    iterates = []
    for x in parts.iterates():
        iterates.append(x.clone())
        if steps is not None and len(iterates) >= steps:
            break
    return iterates


def run(*overrides: str, steps: int | None = None) -> Tensor:
    """The iterates of every worker, (processes, steps, d), of the run that these overrides describe."""
    config = configure(*overrides)
    return torch.stack([result["iterates"] for result in run_processes(trajectory, ranks(config), config, steps)])


def simulated_run(*overrides: str, steps: int | None = None) -> Tensor:
    """As `run`, on the virtual cluster: the iterates of every worker once per process, (processes, steps, d)."""
    return simulated(Simulation(configure(*overrides, "launcher=simulated"), torch.device("cpu")), steps)


def simulated(simulation: Simulation, steps: int | None = None) -> Tensor:
    """The iterates of a simulation: see `simulated_run`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    iterates: list[list[Tensor]] = [[] for _ in simulation.cluster.workers]
    try:
        simulation.run(lambda worker, x: iterates[worker.rank].append(x))
    finally:
        simulation.close()
        torch.set_num_threads(threads)
    return torch.stack([torch.stack(each[:steps]) for each in iterates for _ in range(simulation.lanes)])


def relative(a: Tensor, b: Tensor) -> float:
    """The relative distance between two tensors."""
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))
