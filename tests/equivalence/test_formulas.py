"""Methods that average now and then against their formulas, X of shape (d, n), independently of how they are composed.

On the simulator, in float64; test_runtimes_agree holds the processes to it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from harness import DOUBLE, SMALL, configure, relative, simulated
from references import Reference
from torch import Tensor

from algorithms.noloco import partner_of
from runner.simulation import Simulation

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 30
SETTINGS = (
    *(*SMALL, *DOUBLE, "launcher=simulated", "gpus_per_node=1", "nodes=4", "epochs=2", "schedule=constant"),
    *("optimizer=sgd", "optimizer.lr=0.05", "optimizer.weight_decay=0.01", f"dataset.train_samples={STEPS // 2 * 32}"),
)
PLAIN = ("optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0")
ADAMW = ("optimizer=adamw", "optimizer.lr=0.003")


def everywhere(x: Tensor, n: int) -> Tensor:
    return x[:, None].repeat(1, n)


def in_groups(X: Tensor, S: int) -> Tensor:
    """Each group's mean in place of its members."""
    return torch.cat([everywhere(part.mean(1), S) for part in X.split(S, dim=1)], 1)


def hier_avg(r: Reference, K1: int, K2: int, S: int) -> Tensor:
    X, iterates, local = r.X, [], 0
    for k in range(STEPS):
        X, local = r.stepped(X, X, k), local + 1
        if (k + 1) % K2 == 0:
            X, local = in_groups(X, r.n), 0  # the local count begins again
        elif local == K1:
            X, local = in_groups(X, S), 0
        iterates.append(X)
    return torch.stack(iterates)


def sasgd(r: Reference, T: int, lr: float, lr_p: float) -> Tensor:
    """Gradients at the local point, without what the optimiser makes of them."""
    x, iterates = r.X, []
    X, gs = x, torch.zeros_like(x)
    for k in range(STEPS):
        G = r.gradients(X, k)
        X, gs = X - lr * G, gs + G
        if (k + 1) % T == 0:
            x = x - lr_p * everywhere(gs.sum(1), r.n)
            X, gs = x, torch.zeros_like(x)
        iterates.append(X)
    return torch.stack(iterates)


def sync_easgd(r: Reference, tau: int, beta: float) -> Tensor:
    """The centre as one more column: (X, c) <- (X, c) M - lr step, M symmetric and doubly stochastic."""
    n, alpha = r.n, beta / r.n
    M = torch.diag(torch.full((n + 1,), 1 - alpha, dtype=torch.float64))
    M[:n, n] = M[n, :n] = alpha
    M[n, n] = 1 - beta
    XC, iterates = everywhere(r.X[:, 0], n + 1), []
    for k in range(STEPS):
        X = XC[:, :n]
        step = torch.cat([r.stepped(X, X, k) - X, torch.zeros_like(X[:, :1])], 1)
        XC = (XC @ M if k % tau == 0 else XC) + step
        iterates.append(XC[:, :n])
    return torch.stack(iterates)


def lsgd(r: Reference, tau: int, pull: float, pull_all: float, S: int) -> Tensor:
    X, iterates = r.X, []
    for k in range(STEPS):
        Y = r.stepped(X, X, k)
        if (k + 1) % tau == 0:
            losses = torch.tensor(r.losses)
            leaders = [i // S * S + int(losses[i // S * S : i // S * S + S].argmin()) for i in range(r.n)]
            everyones = everywhere(X[:, losses.argmin()], r.n)
            Y = Y - pull * (X - X[:, leaders]) - pull_all * (X - everyones)
        X = Y
        iterates.append(X)
    return torch.stack(iterates)


def noloco(r: Reference, H: int, a: float, b: float, partners: Callable[[int], list[int]]) -> Tensor:
    X = p = r.X
    m, iterates = torch.zeros_like(p), []
    for k in range(STEPS):
        X = r.stepped(X, X, k)
        if (k + 1) % H == 0:
            j = partners(k + 1)
            delta = X - p
            m = a * m + b * (delta + delta[:, j]) / 2 + b * ((p + p[:, j]) / 2 - p)
            X = p = p + m
        iterates.append(X)
    return torch.stack(iterates)


def bmuf_nesterov(r: Reference, H: int, eta: float, zeta: float) -> Tensor:
    X, iterates = r.X, []
    W = start = X[:, 0]
    delta = torch.zeros_like(W)
    for k in range(STEPS):
        X = r.stepped(X, X, k)
        if (k + 1) % H == 0:
            delta = eta * delta + zeta * (X.mean(1) - start)
            W = W + delta
            start = W + eta * delta
            X = everywhere(start, r.n)
        iterates.append(X)
    return torch.stack(iterates)


def diloco(r: Reference, H: int, lr: float, mu: float) -> Tensor:
    """With torch's own SGD for the outer step."""
    X, iterates = r.X, []
    theta = torch.nn.Parameter(X[:, 0].clone())
    outer = torch.optim.SGD([theta], lr=lr, momentum=mu, nesterov=True)
    for k in range(STEPS):
        X = r.stepped(X, X, k)
        if (k + 1) % H == 0:
            theta.grad = theta.detach() - X.mean(1)
            outer.step()
            X = everywhere(theta.detach(), r.n)
        iterates.append(X)
    return torch.stack(iterates)


def slowmo(r: Reference, tau: int, alpha: float, beta: float, lr: float) -> Tensor:
    """Its base optimiser begins anew with each block."""
    X, iterates = r.X, []
    x0, u = X[:, 0], torch.zeros_like(X[:, 0])
    for k in range(STEPS):
        X = r.stepped(X, X, k)
        if (k + 1) % tau == 0:
            u = beta * u + (x0 - X.mean(1)) / lr
            x0 = x0 - alpha * lr * u
            X = everywhere(x0, r.n)
            for optimizer in r.optimizers:
                optimizer.state.clear()
        iterates.append(X)
    return torch.stack(iterates)


def post_local_sgd(r: Reference, switch: int, H: int) -> Tensor:
    X, iterates = r.X, []
    for k in range(STEPS):
        G = r.gradients(X, k)
        X = r.descended(X, G if k >= switch else in_groups(G, r.n))
        if k >= switch and (k + 1 - switch) % H == 0:
            X = in_groups(X, r.n)
        iterates.append(X)
    return torch.stack(iterates)


def allreduce_then_sgp(r: Reference, switch: int) -> Tensor:
    """The graph begins at the switch, and on this one the weights stay 1."""
    X, iterates = r.X, []
    for k in range(STEPS):
        G = r.gradients(X, k)
        X = r.descended(X, G if k >= switch else in_groups(G, r.n))
        if k >= switch:
            X = X @ r.mixing(k - switch).T
        iterates.append(X)
    return torch.stack(iterates)


HALF = STEPS // 2  # an epoch
CASES: dict[str, tuple[str, tuple[str, ...], Callable[[Reference], Tensor]]] = {
    "hier_avg": ("hier_avg K1=2 K2=6 S=2 momentum=keep", (), lambda r: hier_avg(r, 2, 6, 2)),
    "hier_avg, K1 does not divide K2": ("hier_avg K1=2 K2=5 S=2 momentum=keep", (), lambda r: hier_avg(r, 2, 5, 2)),
    "sasgd": ("sasgd T=5 T_local=null global_rate=0.02", PLAIN, lambda r: sasgd(r, 5, 0.05, 0.02)),
    "easgd_sync": ("easgd_sync tau=3 beta=0.8", (), lambda r: sync_easgd(r, 3, 0.8)),
    "lsgd": ("lsgd tau=3 local_pull=0.2 global_pull=0.1 S=2", (), lambda r: lsgd(r, 3, 0.2, 0.1, 2)),
    "bmuf nesterov": (
        "bmuf period=5 block_momentum=0.6 block_lr=0.9 nesterov=true momentum=keep",
        (),
        lambda r: bmuf_nesterov(r, 5, 0.6, 0.9),
    ),
    "bmuf nesterov, eta unset": (
        "bmuf period=3 block_momentum=null block_lr=1 nesterov=true momentum=keep",
        (),
        lambda r: bmuf_nesterov(r, 3, 0.75, 1.0),
    ),
    "diloco": (
        "diloco period=5 outer_lr=0.7 outer_momentum=0.9 nesterov=true momentum=keep",
        ADAMW,
        lambda r: diloco(r, 5, 0.7, 0.9),
    ),
    "slowmo": (
        "slowmo period=5 slow_lr=0.9 slow_momentum=0.7 momentum=reset",
        (),
        lambda r: slowmo(r, 5, 0.9, 0.7, 0.05),
    ),
    "post_local_sgd": (
        "post_local_sgd epoch=1 then.period=4 then.momentum=keep",
        (),
        lambda r: post_local_sgd(r, HALF, 4),
    ),
    "allreduce_then_sgp": ("allreduce_then_sgp epoch=1", (), lambda r: allreduce_then_sgp(r, HALF)),
}


def begun(method: str, *overrides: str) -> tuple[Simulation, Reference]:
    name, *settings = method.split()
    typed = (f"algorithm={name}", *SETTINGS, *overrides, *(f"algorithm.{setting}" for setting in settings))
    config = configure(*typed)
    return Simulation(config, torch.device("cpu")), Reference(config)


@pytest.mark.parametrize("case", CASES)
def test_method_equals_its_formula(case):
    method, overrides, formula = CASES[case]
    simulation, reference = begun(method, *overrides)
    assert relative(simulated(simulation, STEPS), formula(reference).permute(2, 0, 1)) <= 1e-9


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_noloco_equals_its_formula(nodes):
    size = (f"nodes={nodes}", f"dataset.train_samples={HALF * nodes * 8}")
    simulation, reference = begun("noloco period=3 outer_momentum=0.5 outer_lr=0.7", *ADAMW, *size)

    def partners(k: int) -> list[int]:
        pairs = [partner_of(worker, k) for worker in simulation.cluster.workers]
        return [pair[0] if pair else rank for rank, pair in enumerate(pairs)]

    iterates = simulated(simulation, STEPS)
    assert relative(iterates, noloco(reference, 3, 0.5, 0.7, partners).permute(2, 0, 1)) <= 1e-9
    for k in range(3, STEPS, 3):
        assert [partners(k)[j] for j in partners(k)] == list(range(nodes))
    if nodes > 2:
        assert len({tuple(partners(k)) for k in range(3, STEPS + 1, 3)}) > 1


@pytest.mark.parametrize(("method", "first"), [("post_local_sgd", HALF), ("allreduce_then_sgp", HALF)])
def test_before_the_switch_it_is_allreduce(method, first):
    switching, _ = begun(f"{method} epoch=1")
    allreduce, _ = begun("allreduce")
    left, right = simulated(switching, STEPS), simulated(allreduce, STEPS)
    assert torch.equal(left[:, :first], right[:, :first])
    assert not torch.equal(left[:, first], right[:, first])
