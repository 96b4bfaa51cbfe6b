"""Training on real processes: one process of a run makes its parts, drives the algorithm, records and evaluates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from algorithms.worker import Algorithm, Vector
from runner import config as configs
from runner.asynchronous import train_asynchronously
from runner.clock import TrainingClock
from runner.config import Config
from runner.data import load as load_dataset
from runner.data.dataset import Batches, Dataset
from runner.data.sampling import Claims, Sampler
from runner.evaluation import Evaluator, everyones, gather
from runner.evaluation_steps import EvaluationSteps
from runner.graphs import make_graph
from runner.keeper import SynchronousKeeper
from runner.prepare import make_algorithm, make_model, make_optimizer, make_sampler
from runner.problem import Problem, make_problem
from runner.recording import Recorder
from runner.results import write_json
from runner.runtimes.driver import iterates
from runner.runtimes.mesh import Mesh, SharedClaims
from runner.runtimes.processes import ProcessWorker
from runner.summary import summarise


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


def train(config: Config, folder: Path, device: torch.device) -> None:
    """Run the configuration's algorithm to its end, on this process of the process group."""
    parts = assemble(config, device)
    if config["asynchronous"]:
        train_asynchronously(parts, config, folder)
        return
    worker, per_epoch = parts.worker, parts.iterations_per_epoch
    evaluations = EvaluationSteps.of(config["evaluation"]["every"], per_epoch, config["epochs"])
    # Batches of its own: where they are read ahead, recalibration must not disturb those of training.
    calibration = parts.dataset.batches(parts.sampler, parts.mesh.rank, config["seed"])
    evaluator = Evaluator(parts.mesh, parts.problem, parts.dataset, calibration, config["evaluation"])
    keeper = SynchronousKeeper(parts, config, folder)
    journal = keeper.journal(parts.mesh.rank)
    recorder = Recorder(journal, config, worker, per_epoch, "wall")

    x = keeper.begin(recorder)
    for x in parts.iterates():
        recorder.step()
        if evaluations.is_due(worker.draw) and worker.draw < evaluations.last:
            with parts.clock.paused():
                recorder.evaluation(evaluator.evaluate(x, parts.centre))
                dist.barrier()  # or the first to resume would be charged for the last to evaluate
        keeper.step(x)
    keeper.finish()
    worker.close()
    final = recorder.evaluation(evaluator.evaluate(x, parts.centre, last=True))
    recorder.close()
    journal.close()
    parts.batches.close()
    calibration.close()
    has_buffers = bool(parts.problem.buffers())
    final["batch_norm"] = config["evaluation"]["batch_norm"] if has_buffers else None
    totals = gather(recorder.totals())
    staleness = everyones(worker.split.staleness if parts.mesh.lane == 0 else {})  # once for each worker
    dist.barrier()  # all files are closed
    if parts.mesh.rank == 0:  # the run is finished
        summary = summarise(config, totals, final, per_epoch, staleness, keeper.restarts)
        write_json(folder / "summary.json", summary)
