"""Training on real processes: one process of a run makes its parts, drives the algorithm, records and evaluates."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from runner.asynchronous import train_asynchronously
from runner.config import Config
from runner.evaluation import Evaluator, everyones, gather
from runner.evaluation_steps import EvaluationSteps
from runner.keeper import SynchronousKeeper
from runner.parts import assemble
from runner.recording import Recorder
from runner.results import write_json
from runner.summary import summarise


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
