"""What asynchronous methods are where nothing is late, or nothing is exchanged."""

from __future__ import annotations

import pytest
import torch
from harness import DOUBLE, SMALL, configure, relative, run, run_processes, simulated, simulated_run, trajectory

from runner.config import ranks, servers
from runner.simulation import Simulation

STEPS = 40
OPTIMIZERS = {
    "plain": ("optimizer=sgd", "optimizer.nesterov=false", "optimizer.momentum=0", "optimizer.weight_decay=0"),
    "heavy-ball": ("optimizer=sgd", "optimizer.nesterov=false", "optimizer.weight_decay=0"),
    "nesterov": ("optimizer=sgd", "optimizer.weight_decay=0"),
}
FAST = ("cluster.inter.latency_s=1e-9", "cluster.inter.bandwidth=1e15", "cluster.compute.distribution=constant")
ALONE = ("algorithm=local_sgd", "algorithm.period=1000")  # its first average comes after the end
UNPULLED = ("algorithm=easgd", "algorithm.beta=0", "algorithm.budget=equal", "algorithm.tau=3", "algorithm.delta=0")


def of(workers: int) -> tuple[str, ...]:
    size = (f"nodes={workers}", "gpus_per_node=1", f"dataset.train_samples={STEPS // 2 * workers * 8}", "epochs=2")
    return (*SMALL, *DOUBLE, *size, "optimizer.lr=0.05")


@pytest.mark.parametrize("budget", ["equal", "shared"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_adpsgd_of_two_in_lockstep_is_dpsgd(optimizer, budget):
    """Without weight decay, which AD-PSGD takes at the x that the gradient lands on, D-PSGD at that of the gradient."""
    same = (*of(2), *OPTIMIZERS[optimizer])
    adpsgd = simulated_run("algorithm=adpsgd", f"algorithm.budget={budget}", *FAST, *same, steps=STEPS)
    dpsgd = simulated_run("algorithm=dpsgd", "algorithm.order=adapt_with_combine", *same, steps=STEPS)
    assert adpsgd.shape[1] == STEPS
    assert relative(adpsgd, dpsgd) <= 1e-9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_easgd_that_pulls_nobody_is_everyone_alone(optimizer):
    same = (*of(3), *OPTIMIZERS[optimizer])
    simulation = Simulation(configure(*UNPULLED, *same, "launcher=simulated"), torch.device("cpu"))
    centre = simulation.cluster.servers[0].initial()
    iterates = simulated(simulation, STEPS)
    assert torch.equal(iterates, simulated_run(*ALONE, *same, steps=STEPS))
    assert torch.equal(simulation.cluster.servers[0].state.x, centre)


def test_eamsgd_that_pulls_nobody_is_nesterovs():
    """The authors' x lags behind the point that torch stores, x + delta v, where v is the last move of x."""
    same = (*of(2), *OPTIMIZERS["plain"], "schedule=constant")
    x = simulated_run(*UNPULLED, "algorithm.delta=0.8", *same, steps=STEPS)
    nesterov = (*same, "optimizer.momentum=0.8", "optimizer.nesterov=true")
    ahead = simulated_run(*ALONE, *nesterov, steps=STEPS)
    assert relative(x[:, 1:] + 0.8 * (x[:, 1:] - x[:, :-1]), ahead[:, 1:]) <= 1e-9


@pytest.mark.multiproc
def test_easgd_that_pulls_nobody_is_everyone_alone_on_processes():
    same = (*of(2), *OPTIMIZERS["nesterov"])
    config = configure(*UNPULLED, *same)
    *workers, server = run_processes(trajectory, ranks(config) + servers(config), config)
    alone = run(*ALONE, *same, steps=STEPS)
    assert torch.equal(torch.stack([worker["iterates"] for worker in workers]), alone)
    assert (server["iterates"] == server["iterates"][0]).all()
