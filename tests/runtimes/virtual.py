"""Runs on the virtual cluster, watched: when each worker finished each step, without gradients unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from harness import configure

from algorithms.worker import Vector
from runner.config import Config, select
from runner.runtimes.gradients import Work
from runner.runtimes.simulator import VirtualWorker
from runner.simulation import Simulation

CPU = torch.device("cpu")
PLAIN = (
    *("launcher=simulated", "problem=none", "cost=resnet50_v100", "epochs=1", "batch_size=1"),
    *("cluster.inter.latency_s=0", "cluster.inter.bandwidth=1.0e9", "cluster.intra.latency_s=0"),
    *("cost.overlap_backward=false", "cost.message_bytes=100000000", "cost.seconds_per_gradient=1.0"),
)


@cache
def timing(iterations: int, nodes: int, *overrides: str, gpus: int = 1) -> Config:
    """A run of so many steps without gradients: links without latency, no overlap with the backward pass.

    Compute takes 1 s, a vector 1e8 bytes, a link 1e9 bytes per second, unless `overrides` say otherwise.
    """
    size = (f"nodes={nodes}", f"gpus_per_node={gpus}", f"problem.train_samples={iterations * nodes * gpus}")
    return configure(*PLAIN, *size, *overrides)


def changed(config: Config, **values: Any) -> Config:
    """The configuration with other values at dotted keys, written with __ for a dot: cost__message_bytes=1."""
    config = deepcopy(config)
    for name, value in values.items():
        group, _, key = name.replace("__", ".").rpartition(".")
        node = select(config, group)
        assert key in node
        node[key] = value
    return config


@dataclass
class Played:
    """A run that has ended.

    Args:
        times: when each worker finished each of its steps, (workers, steps), seconds of virtual time.
        iterates: what it yielded then.
        asked: (time, rank, draw, x) of each gradient asked for.
    """

    simulation: Simulation
    times: list[list[float]] = field(default_factory=list)
    iterates: list[list[Vector]] = field(default_factory=list)
    asked: list[tuple[float, int, int, Vector]] = field(default_factory=list)

    @property
    def workers(self) -> list[VirtualWorker]:
        return self.simulation.cluster.workers

    @property
    def end_s(self) -> float:
        return max(times[-1] for times in self.times if times)

    # As a source of gradients: hands on what is asked for to the run's own, and remembers it.

    def begin(self, x: Vector, ranks: Sequence[int], slot: int, draw: int) -> Work:
        self.asked.append((self.simulation.cluster.engine.now, slot, draw, x))
        return self.simulation.source.begin(x, ranks, slot, draw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.simulation.source, name)


def play(config: Config, seconds_of: Callable[[int, int], float] | None = None) -> Played:
    """Run to the end.

    Args:
        seconds_of: (worker, draw) -> seconds of a gradient, in place of the configuration's.
    """
    played = Played(Simulation(config, CPU))
    cluster = played.simulation.cluster
    cluster.source = played
    if seconds_of is not None:
        cluster.seconds_of = seconds_of
    played.times, played.iterates = [[] for _ in cluster.workers], [[] for _ in cluster.workers]

    def yielded(worker: VirtualWorker, x: Vector) -> None:
        played.times[worker.rank].append(cluster.engine.now)
        played.iterates[worker.rank].append(x)

    try:
        played.simulation.run(yielded)
    finally:
        played.simulation.close()
    return played
