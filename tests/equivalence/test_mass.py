"""SlowMo over push-sum loses nothing: a block ends at the mean of the numerators, with all that was on its way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import DOUBLE, SMALL, collect, configure, run_processes, simulated
from torch import Tensor

from runner.config import Config
from runner.parts import assemble
from runner.simulation import Simulation

STILL = ("optimizer=sgd", "optimizer.lr=1e-30", "optimizer.weight_decay=0", "schedule=constant", "epochs=1")
SLOWMO = ("algorithm=slowmo_osgp", "algorithm.slow_lr=1", "algorithm.slow_momentum=0", "algorithm.period=5")
SLOW_LINKS = ("cluster.inter.latency_s=0.012", "cluster.compute.slow={1: 1.7}")  # a gradient takes 5 ms


def still(overlap: int, merge: str, topology: str, workers: int, steps: int, *more: str) -> Config:
    """Nothing but mixing, for so many steps."""
    base = (f"algorithm.base.overlap={overlap}", f"algorithm.base.merge={merge}", f"topology={topology}")
    size = (f"nodes={workers}", "gpus_per_node=1", f"dataset.train_samples={steps * workers * 8}")
    return configure(*SLOWMO, *base, *size, *SMALL, *DOUBLE, *STILL, *more)


def start_of(workers: int) -> Tensor:
    return torch.randn(workers, 2000, generator=torch.Generator().manual_seed(workers), dtype=torch.float64)


@pytest.mark.parametrize("topology", ["one_peer_exponential", "star"])
@pytest.mark.parametrize(("overlap", "merge"), [(0, "arrived"), (2, "exact"), (3, "arrived")])
def test_a_block_ends_at_the_mean_of_where_it_began(overlap, merge, topology):
    config = still(overlap, merge, topology, 4, 7, "launcher=simulated", *SLOW_LINKS)
    simulation = Simulation(config, torch.device("cpu"))
    begun = start_of(4)
    for worker in simulation.cluster.workers:
        worker.x0 = begun[worker.rank, : len(worker.x0)]
    mean = begun[:, : simulation.cluster.dimension].mean(0)
    iterates = simulated(simulation)
    assert iterates.shape[1] == 8  # 5 steps of a block, 2 of another, and its end
    for worker in simulation.cluster.workers:
        assert worker.state.inner.w == 1.0
        assert worker.state.inner.in_flight == []
    for end in (4, 7):
        torch.testing.assert_close(iterates[:, end], mean.expand(4, -1), rtol=1e-12, atol=1e-12)
    assert (iterates[:, 0] - mean).abs().max() > 1e-3  # before the end they are apart


def moved(config: Config, begun: Tensor) -> dict[str, Any]:
    """In a process of a group: the iterates of a worker that begins somewhere else."""
    parts = assemble(config, torch.device("cpu"))
    worker = parts.worker
    worker.initial = lambda: begun[worker.rank, : parts.problem.dimension].clone()  # type: ignore[method-assign]
    iterates = torch.stack(collect(parts, None))
    worker.close()
    return {"iterates": iterates, "w": worker.state.inner.w}


@pytest.mark.multiproc
def test_a_block_ends_at_the_mean_on_processes():
    begun = start_of(3)
    for worker in run_processes(moved, 3, still(3, "arrived", "star", 3, 7), begun):
        iterates = worker["iterates"]
        mean = begun[:, : iterates.shape[1]].mean(0)
        assert worker["w"] == 1.0
        for end in (4, 7):
            torch.testing.assert_close(iterates[end], mean, rtol=1e-12, atol=1e-12)
