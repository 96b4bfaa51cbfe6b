"""A plain hand-written DistributedDataParallel loop: what `scripts/benchmark_overhead.py` measures us against.

Nothing of ours but the model and the batches: torch's DDP, torch.optim.SGD, a for-loop. Rank 0 writes the seconds of
each iteration, as JSON, to the path given.

    python scripts/plain_ddp.py RUN ITERATIONS OUT.json      # RUN: the folder of a run of ours, for its configuration
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from runner import config as configs
from runner.data import load
from runner.prepare import make_model, make_sampler


def process(rank: int, run: Path, iterations: int, out: str) -> None:
    torch.set_num_threads(1)
    config = configs.load(run)
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=config["nodes"])
    dataset = load(config["dataset"])
    batches = dataset.batches(make_sampler(config, dataset), rank, config["seed"])
    model = DistributedDataParallel(make_model(config, dataset))
    settings = {k: v for k, v in config["optimizer"].items() if k not in ("_target_", "reference_lr")}
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    seconds = []
    for iteration in range(iterations):
        start = time.perf_counter()
        images, labels = batches(iteration)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        Path(out).write_text(json.dumps(seconds))
    dist.destroy_process_group()


def main() -> None:
    run, iterations, out = sys.argv[1:]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=process, args=(rank, Path(run), int(iterations), out))
        for rank in range(configs.load(Path(run))["nodes"])
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    sys.exit(any(each.exitcode for each in processes))


if __name__ == "__main__":
    main()
