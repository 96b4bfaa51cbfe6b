"""A plain hand-written DistributedDataParallel loop: what `scripts/benchmark_overhead.py` measures us against.

Nothing of ours but the model and the batches: torch's DDP, torch.optim.SGD, a for-loop. Rank 0 writes the seconds of
each iteration, as JSON, to the path given.

    python scripts/plain_ddp.py CONFIG.yaml ITERATIONS OUT.json      # CONFIG: the frozen configuration of a run of ours
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from runner.data import load
from runner.prepare import make_model, make_sampler


def process(rank: int, path: str, iterations: int, out: str) -> None:
    torch.set_num_threads(1)
    config = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(config, dict)
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


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    settings_path, count, target = sys.argv[1:]
    nodes = OmegaConf.load(settings_path).nodes
    mp.start_processes(process, (settings_path, int(count), target), nprocs=nodes, start_method="spawn")
