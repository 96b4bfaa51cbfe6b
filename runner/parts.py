"""All that one process of a run on real processes is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from algorithms.worker import Algorithm, Vector
from runner import config as configs
from runner.clock import TrainingClock
from runner.config import Config
from runner.data import load as load_dataset
from runner.data.dataset import Batches, Dataset
from runner.data.sampling import Claims, Sampler
from runner.graphs import make_graph
from runner.prepare import make_algorithm, make_model, make_optimizer, make_sampler
from runner.problem import Problem, make_problem
from runner.runtimes.driver import iterates
from runner.runtimes.mesh import Mesh, SharedClaims
from runner.runtimes.processes import ProcessWorker


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

    @property
    def centre(self) -> Vector | None:
        """Of a method whose workers each have a copy of it."""
        centre = getattr(self.algorithm, "centre", None)
        return None if centre is None else centre(self.worker.state)

    def iterates(self) -> Iterator[Vector]:
        """What the algorithm yields, step by step: running it is reading this."""
        worker = self.worker
        run = self.algorithm.serve(worker) if worker.is_server else self.algorithm.run(worker)  # type: ignore[attr-defined]
        return iterates(run, worker.post.turn if worker.post is not None else None)


def assemble(config: Config, device: torch.device) -> Parts:
    """Make this process's parts of the resolved configuration, inside its process group. Collective."""
    servers, asynchronous = configs.servers(config), config["asynchronous"]
    mesh = Mesh(configs.gpus_per_worker(config), config["backend"], servers, asynchronous)
    assert mesh.ranks == configs.ranks(config), f"{mesh.ranks} training processes, {configs.ranks(config)} are wanted"
    dataset = load_dataset(config["dataset"])
    problem = make_problem(config, make_model(config, dataset), device)
    dataset = dataset.to(device, problem.dtype)
    sampler = make_sampler(config, dataset)
    shared = configs.shares_work(config)
    batches = dataset.batches(Claims(sampler, mesh.per_worker) if shared else sampler, mesh.rank, config["seed"])
    per_epoch = sampler.iterations_per_epoch
    algorithm = make_algorithm(config)
    # The stream that computes, not the device: messages may stay under way while the clock is read.
    clock = TrainingClock((lambda: torch.cuda.current_stream().synchronize()) if device.type == "cuda" else None)
    worker = ProcessWorker(
        mesh,
        problem,
        batches,
        draws=config["epochs"] * per_epoch,
        optimizer=make_optimizer(config, per_epoch, problem.x0, serves=mesh.is_server),
        graph=make_graph(config, algorithm, mesh.workers, per_epoch),
        clock=clock,
        per_node=configs.workers(config) // config["nodes"],
        per_epoch=per_epoch,
        seed=config["seed"],
        claims=SharedClaims(config["epochs"] * per_epoch * mesh.workers) if shared else None,
        asynchronous=asynchronous,
        timeout_s=config["launcher"].get("timeout_s", 1800.0),
    )
    return Parts(mesh, dataset, sampler, batches, problem, algorithm, clock, worker)
