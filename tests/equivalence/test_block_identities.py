"""Identities between methods that work in blocks of local steps, and between a method and another name of it.

On the simulator, which computes what processes do (test_runtimes_agree), in float64: bit for bit where both sides do
the same sums, else to 1e-9. A few of them on real processes, where torch's own averagers are a third party.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from harness import DOUBLE, SMALL, configure, relative, run_processes, simulated, trajectories
from torch import Tensor
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.hierarchical_model_averager import HierarchicalModelAverager

from runner.config import Config
from runner.parts import assemble
from runner.simulation import Simulation

STEPS = 30
SETTINGS = (*SMALL, *DOUBLE, "gpus_per_node=1", "epochs=2", "optimizer=sgd", "optimizer.lr=0.05")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    "heavy-ball": {"momentum": 0.9, "nesterov": False, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
}
EVERY, PLAIN = tuple(OPTIMIZERS), ("plain",)


class Method:
    """A file of conf/algorithm, other settings of it, and what else is typed."""

    def __init__(self, name: str, *overrides: str, **settings: Any) -> None:
        self.name, self.overrides, self.settings = name, overrides, settings


@dataclass
class Identity:
    """Two methods that are one.

    Args:
        exact: bit for bit; else to 1e-9.
        constant: only at a constant learning rate.
        optimizers: with which it is tried.
    """

    left: Method
    right: Method
    exact: bool = False
    constant: bool = False
    optimizers: Sequence[str] = ("nesterov",)
    workers: int = 4


def hier_avg(K1: int, K2: int, S: int) -> Method:
    return Method("hier_avg", K1=K1, K2=K2, S=S, momentum="keep")


def sasgd(T: int, sums: str = "gradients", momentum: str = "keep") -> Method:
    return Method("sasgd", T=T, sums=sums, momentum=momentum, global_rate=None, T_local=None)


def hier_sasgd(T_local: int, T: int, S: int, sums: str = "gradients") -> Method:
    return Method("hier_sasgd", T_local=T_local, T=T, S=S, sums=sums, global_rate=None, local_rate=None)


def slowmo(alpha: float, beta: float, momentum: str = "keep") -> Method:
    return Method("slowmo", period=6, slow_lr=alpha, slow_momentum=beta, momentum=momentum)


def bmuf(zeta: float, eta: float, nesterov: bool = False, momentum: str = "keep") -> Method:
    return Method("bmuf", period=6, block_lr=zeta, block_momentum=eta, nesterov=nesterov, momentum=momentum)


def diloco(lr: float, mu: float, nesterov: bool = False, H: int = 6) -> Method:
    return Method("diloco", period=H, momentum="keep", outer_lr=lr, outer_momentum=mu, nesterov=nesterov)


def noloco(b: float, a: float, momentum: str = "keep") -> Method:
    return Method("noloco", period=6, momentum=momentum, outer_lr=b, outer_momentum=a)


SYNC = Method("allreduce")
ONE, THREE, SIX = (Method("local_sgd", period=H, momentum="keep") for H in (1, 3, 6))
RESET = Method("local_sgd", period=6, momentum="reset")
ALONE = Method("local_sgd", period=1000)  # its first average comes after the end
PEERS = "topology.phases.1.epoch=1"
IDENTITIES = {
    # Hier-AVG at its corners. K2 that is no multiple of K1: the count of local steps begins again.
    "hier_avg S=1": Identity(hier_avg(2, 6, 1), SIX, exact=True, optimizers=EVERY),
    "hier_avg K1=K2": Identity(hier_avg(6, 6, 2), SIX, exact=True, optimizers=EVERY),
    "hier_avg S=P": Identity(hier_avg(3, 6, 4), THREE, exact=True, optimizers=EVERY),
    "hier_avg K1=K2=1": Identity(hier_avg(1, 1, 2), SYNC, optimizers=EVERY),
    "hier_avg S=1, K1 does not divide K2": Identity(hier_avg(4, 6, 1), SIX, exact=True),
    # Averages after every step are synchronous SGD.
    "local_sgd H=1": Identity(ONE, SYNC, optimizers=EVERY),
    "sasgd T=1": Identity(sasgd(1, "steps"), SYNC, optimizers=EVERY),
    "diloco H=1": Identity(diloco(1, 0, H=1), SYNC, optimizers=EVERY),
    "post_local_sgd H=1": Identity(Method("post_local_sgd", epoch=1, then={"period": 1, "momentum": "keep"}), SYNC),
    "allreduce_then_sgp, complete": Identity(Method("allreduce_then_sgp", "topology=complete", epoch=1), SYNC),
    # SASGD with lr_p = lr / p, and its hierarchical follow-up with lr_s = lr / S.
    "sasgd": Identity(sasgd(6), SIX, constant=True, optimizers=PLAIN),
    "sasgd of steps": Identity(sasgd(6, "steps"), SIX, constant=True),
    "sasgd of steps, momentum reset": Identity(sasgd(6, "steps", "reset"), RESET, constant=True),
    "hier_sasgd": Identity(hier_sasgd(2, 6, 2), hier_avg(2, 6, 2), constant=True, optimizers=PLAIN),
    "hier_sasgd of steps": Identity(hier_sasgd(4, 6, 2, "steps"), hier_avg(4, 6, 2), constant=True),
    "hier_sasgd S=1": Identity(hier_sasgd(2, 6, 1), sasgd(6), constant=True, optimizers=PLAIN),
    "hier_sasgd S=P": Identity(hier_sasgd(3, 6, 4), sasgd(3), constant=True, optimizers=PLAIN),
    "hier_sasgd T_local=T=1": Identity(hier_sasgd(1, 1, 2, "steps"), SYNC),
    "hier_sasgd T_local=T": Identity(hier_sasgd(6, 6, 2), sasgd(6), exact=True),
    # An outer step along the mean of what the workers did.
    "slowmo alpha=1 beta=0": Identity(slowmo(1, 0), SIX),
    "slowmo = bmuf": Identity(slowmo(0.8, 0.6), bmuf(0.8, 0.6), constant=True),
    "slowmo = bmuf, momentum reset": Identity(slowmo(1, 0.6, "reset"), bmuf(1, 0.6, momentum="reset"), constant=True),
    "diloco lr=1 mu=0": Identity(diloco(1.0, 0.0), SIX),
    "diloco = bmuf": Identity(diloco(0.8, 0.6), bmuf(0.8, 0.6)),
    "diloco = bmuf, nesterov": Identity(diloco(0.7, 0.6, True), bmuf(0.7, 0.6, True)),
    "noloco of two = diloco": Identity(noloco(0.7, 0.5), diloco(0.7, 0.5), workers=2),
    "noloco of two, momentum reset": Identity(noloco(1, 0, "reset"), RESET, workers=2),
    # Without a pull every worker is alone.
    "easgd_sync beta=0": Identity(Method("easgd_sync", beta=0.0), ALONE, exact=True),
    "lsgd": Identity(Method("lsgd", local_pull=0.0, global_pull=0.0), ALONE, exact=True),
    # Other names.
    "k_avg = local_sgd": Identity(Method("k_avg", period=6, momentum="keep"), SIX, exact=True),
    "sync_sgd = allreduce": Identity(Method("sync_sgd"), SYNC, exact=True),
    "osgp = sgp": Identity(Method("osgp"), Method("sgp", overlap=1), exact=True),
    "two_then_one_peer_sgp = sgp": Identity(
        Method("two_then_one_peer_sgp", PEERS), Method("sgp", "topology=two_then_one_peer", PEERS), exact=True
    ),
    "async_sgd = downpour": Identity(
        Method("async_sgd", budget="equal"), Method("downpour", n_push=1, n_fetch=1, budget="equal"), exact=True
    ),
}


@cache
def composed(name: str, workers: int, *overrides: str) -> Config:
    size = (f"nodes={workers}", f"dataset.train_samples={STEPS // 2 * workers * 8}")
    return configure(f"algorithm={name}", *SETTINGS, *size, *overrides)


def configured(method: Method, workers: int, constant: bool, optimizer: str, *overrides: str) -> Config:
    config = deepcopy(composed(method.name, workers, *method.overrides, *overrides))
    for key, value in method.settings.items():
        node = config["algorithm"]
        assert key in node
        node[key] = {**node[key], **value} if isinstance(value, dict) else value
    config["optimizer"].update(OPTIMIZERS[optimizer])
    if constant:
        config["schedule"] = {"_target_": "runner.schedules.Constant"}
    return config


@cache
def iterates(method: Method, workers: int, constant: bool, optimizer: str) -> Tensor:
    """On the simulator, (workers, STEPS, d)."""
    config = configured(method, workers, constant, optimizer, "launcher=simulated")
    return simulated(Simulation(config, torch.device("cpu")), STEPS)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(name, optimizer) for name, identity in IDENTITIES.items() for optimizer in identity.optimizers],
)
def test_two_methods_are_one(name, optimizer):
    identity = IDENTITIES[name]
    how = (identity.workers, identity.constant, optimizer)
    left, right = iterates(identity.left, *how), iterates(identity.right, *how)
    assert left.shape == right.shape == (identity.workers, STEPS, left.shape[2])
    if identity.exact:
        assert torch.equal(left, right)
    else:
        assert relative(left, right) <= 1e-9


def test_sums_of_steps_want_a_rate_that_changes_between_blocks_only():
    """Each step is divided by its own rate, their sum multiplied by the last."""
    far = {}
    schedules = {
        "between": {"_target_": "runner.schedules.Steps", "warmup_epochs": 0, "milestones": [1], "gamma": 0.1},
        "within": {"_target_": "runner.schedules.Cosine", "warmup_epochs": 0},
    }
    for name, schedule in schedules.items():
        sides = []
        for method in (sasgd(5, "steps"), Method("local_sgd", period=5, momentum="keep")):
            config = configured(method, 4, False, "nesterov", "launcher=simulated") | {"schedule": schedule}
            sides.append(simulated(Simulation(config, torch.device("cpu")), STEPS))
        far[name] = relative(*sides)
    assert far["between"] <= 1e-9
    assert far["within"] > 1e-4


def on_two_nodes_of_two(method: Method) -> Tensor:
    config = deepcopy(composed(method.name, 2, "gpus_per_node=2", "launcher=simulated"))
    config["algorithm"] |= method.settings
    return simulated(Simulation(config, torch.device("cpu")), STEPS // 2)


def test_groups_follow_nodes():
    for name, local, everyones in (("hier_avg", "K1", "K2"), ("hier_sasgd", "T_local", "T")):
        intervals = {local: 2, everyones: 5}
        of_a_node = on_two_nodes_of_two(Method(name, **intervals, S=None))
        assert torch.equal(of_a_node, on_two_nodes_of_two(Method(name, **intervals, S=2)))
        assert not torch.equal(of_a_node, on_two_nodes_of_two(Method(name, **intervals, S=4)))


def test_a_gradient_of_all_is_the_same_whoever_is_a_worker():
    of_gpus, of_nodes = on_two_nodes_of_two(Method("sync_sgd")), on_two_nodes_of_two(SYNC)
    assert of_gpus.shape == of_nodes.shape
    assert torch.equal(of_gpus, of_nodes)


def test_what_the_identities_leave_out_differs():
    how = (4, True, "nesterov")
    between = iterates(hier_avg(3, 6, 2), *how)
    for other in (SIX, THREE, SYNC, ALONE):
        assert relative(between, iterates(other, *how)) > 1e-4
    assert relative(iterates(bmuf(0.8, 0.6, True), *how), iterates(bmuf(0.8, 0.6), *how)) > 1e-4
    assert relative(iterates(slowmo(0.8, 0.6), *how), iterates(slowmo(1, 0), *how)) > 1e-4


def with_averager_of_torch(config: Config, periods: dict[int, int]) -> Tensor:
    """In a process of a group: local steps and torch's averager of parameters, no code of ours between them.

    Args:
        periods: steps between averages -> processes that average; one alone is of all.
    """
    parts = assemble(config, torch.device("cpu"))
    parameter = torch.nn.Parameter(parts.problem.initial())
    settings = {key: value for key, value in config["optimizer"].items() if key not in ("_target_", "reference_lr")}
    optimizer = torch.optim.SGD([parameter], **settings)
    if len(periods) == 1:
        averager: Any = PeriodicModelAverager(period=next(iter(periods)))
    else:
        averager = HierarchicalModelAverager(OrderedDict(periods))
    averager.step = 1  # or it averages after the first step
    iterates = []
    for k in range(STEPS):
        _, parameter.grad = parts.problem.gradient(parameter.detach().clone(), parts.batches(k))
        optimizer.step()
        averager.average_parameters([parameter])
        iterates.append(parameter.detach().clone())
    parts.worker.close()
    return torch.stack(iterates)


ON_PROCESSES = {
    "sync": SYNC,
    "hier_avg corner": hier_avg(1, 1, 2),
    "hier_avg": hier_avg(2, 6, 2),
    "hier_avg K1=K2": hier_avg(6, 6, 2),
    "k_avg": SIX,
    "slowmo": slowmo(1, 0),
    "bmuf nesterov": bmuf(0.7, 0.6, True),
    "diloco nesterov": diloco(0.7, 0.6, True),
}


def of_all(configs: list[Config]) -> dict[str, Any]:
    """In a process of a group: every method, and torch's averagers."""
    return {
        "ours": [each["iterates"] for each in trajectories(configs)],
        "periodic": with_averager_of_torch(configs[0], {6: 4}),
        "hierarchical": with_averager_of_torch(configs[0], {2: 2, 6: 4}),
    }


@pytest.mark.multiproc
def test_on_real_processes():
    configs = [configured(method, 4, True, "nesterov") for method in ON_PROCESSES.values()]
    workers = run_processes(of_all, 4, configs)
    real = {name: torch.stack([worker["ours"][place] for worker in workers]) for place, name in enumerate(ON_PROCESSES)}
    periodic, hierarchical = (
        torch.stack([worker[name] for worker in workers]) for name in ("periodic", "hierarchical")
    )
    assert relative(real["k_avg"], periodic) <= 1e-9
    assert relative(real["hier_avg"], hierarchical) <= 1e-9
    assert relative(real["hier_avg corner"], real["sync"]) <= 1e-9
    assert torch.equal(real["hier_avg K1=K2"], real["k_avg"])
    assert relative(real["slowmo"], real["k_avg"]) <= 1e-9
    assert relative(real["bmuf nesterov"], real["diloco nesterov"]) <= 1e-9
