"""Training asynchronously on real processes: nobody stands still for an evaluation, so it comes afterwards.

Wherever one is due each worker keeps its iterate and its buffers, each server its part of the centre; once all is done,
the processes evaluate these together, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from runner.config import Config
from runner.evaluation import Evaluator, everyones, gather
from runner.keeper import AsynchronousKeeper
from runner.kept import Epochs, Kept
from runner.parts import Parts
from runner.recording import Recorder
from runner.results import Row, write_json
from runner.summary import summarise


def train_asynchronously(parts: Parts, config: Config, folder: Path) -> None:
    """Run the configuration's algorithm to its end, on this process of the process group."""
    mesh, worker = parts.mesh, parts.worker
    epochs = Epochs(parts, config)
    keeper = AsynchronousKeeper(parts, config, folder)
    journal = None if mesh.is_server else keeper.journal(mesh.rank)
    recorder = Recorder(journal, config, worker, parts.iterations_per_epoch, "wall") if journal else None
    x = keeper.begin(recorder, epochs)
    if mesh.lane == 0:
        for x in parts.iterates():
            if recorder is not None:
                recorder.step()
            epochs.note(x)
            keeper.step(x)
        worker.leave().wait()
        worker.release_followers()
    else:
        assert recorder is not None
        for held in worker.follow():
            if held:
                keeper.follow()
            else:
                recorder.step()
                epochs.note(x)
    epochs.finish(x)
    worker.close()
    final = _evaluate(parts, config, epochs.kept, recorder)
    staleness = everyones(worker.split.staleness)
    if recorder is not None and journal is not None:
        recorder.close()
        journal.close()
        totals = gather(recorder.totals(), mesh.training)
    parts.batches.close()
    dist.barrier()  # all files are closed
    if mesh.rank == 0:  # the run is finished
        per_epoch = parts.iterations_per_epoch
        summary = summarise(config, totals, final, per_epoch, staleness, keeper.restarts)
        write_json(folder / "summary.json", summary)


def _evaluate(parts: Parts, config: Config, kept: Mapping[int, Kept], recorder: Recorder | None) -> Row:
    """Collective over all processes: every end of `Epochs`; the scores of the last."""
    mesh, problem = parts.mesh, parts.problem
    calibration = parts.dataset.batches(parts.sampler, min(mesh.rank, mesh.ranks - 1), config["seed"])
    evaluator = Evaluator(mesh, problem, parts.dataset, calibration, config["evaluation"])
    final: Row = {}
    for end, there in sorted(kept.items()):
        centre = _whole(parts, there.x).to(problem.device) if mesh.servers else None
        if mesh.is_server:
            continue
        x = there.x
        if mesh.inside is not None:  # the first process of a worker alone knows
            x = x.clone()
            dist.broadcast(x, mesh.process_of(mesh.worker), group=mesh.inside)
        x = x.to(problem.device)
        for name, buffer in problem.buffers().items():
            buffer.copy_(there.buffers[name])
        final = evaluator.evaluate(x, centre, last=end == max(kept))
        time_s = float(gather([there.time_s], mesh.training).max())
        assert recorder is not None
        recorder.evaluation(final, end, time_s)
    calibration.close()
    return {**final, "batch_norm": config["evaluation"]["batch_norm"] if problem.buffers() else None}


def _whole(parts: Parts, part: Tensor) -> Tensor:
    """The centre of which each server has its part, on every process."""
    mesh = parts.mesh
    pieces = parts.worker.shards(parts.problem.x0.to("cpu", copy=True))
    for server, piece in pieces.items():
        pieces[server] = piece = part.clone() if mesh.worker == server else piece.clone()
        dist.broadcast(piece, mesh.process_of(server))
    return parts.worker.joined(pieces)
