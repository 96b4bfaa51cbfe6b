"""The methods against their matrix forms: X of shape (d, n) holds the workers' iterates, all in this one process.

D-PSGD  adapt_with_combine  X <- X W - lr step(G, X)        weight decay at X, before mixing
        adapt_then_combine  X <- (X - lr step(G, X)) W
SGP     X <- (X - lr step(G(Z), X)) P^T,  w <- P w,  Z = X / w      weight decay at the numerator
overlap=tau, merge=exact: what leaves at step k is added at step k + tau
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import DOUBLE, SMALL, configure, relative, run_processes, trajectory
from references import Reference
from torch import Tensor

pytestmark = [pytest.mark.multiproc, pytest.mark.usefixtures("one_thread")]

STEPS = 30
SETTINGS = (*SMALL, *DOUBLE, "epochs=2", "schedule=constant", "optimizer.weight_decay=0.01")


def dpsgd(reference: Reference, order: str) -> Tensor:
    X, iterates = reference.X, []
    for k in range(STEPS):
        W, Y = reference.mixing(k).T, reference.stepped(X, X, k)
        X = X @ W + (Y - X) if order == "adapt_with_combine" else Y @ W
        iterates.append(X)
    return torch.stack(iterates)


def sgp(reference: Reference, overlap: int, biased: bool = False) -> Tensor:
    n = reference.n
    X, w, iterates = reference.X, torch.ones(n, dtype=torch.float64), []
    leaving: list[tuple[Tensor, Tensor]] = []  # what each step sent, as it will be added
    for k in range(STEPS):
        Z = X if biased else X / w
        Y, P = reference.stepped(X, Z, k), reference.mixing(k)
        own = torch.diag(torch.diagonal(P))
        leaving.append((Y @ (P - own).T, (P - own) @ w))
        X, w = Y @ own.T, own @ w
        if k >= overlap:
            X, w = X + leaving[k - overlap][0], w + leaving[k - overlap][1]
        iterates.append(X if biased else X / w)
    return torch.stack(iterates)


CASES: dict[str, tuple[tuple[str, ...], Callable[[Reference], Tensor]]] = {
    "dpsgd-with-ring-3": (("algorithm=dpsgd", "topology=ring", "nodes=3"), lambda r: dpsgd(r, "adapt_with_combine")),
    "dpsgd-then-bipartite-4": (
        ("algorithm=dpsgd", "algorithm.order=adapt_then_combine", "nodes=4"),
        lambda r: dpsgd(r, "adapt_then_combine"),
    ),
    "dpsgd-with-directed-4": (
        ("algorithm=dpsgd", "topology=one_peer_exponential", "nodes=4"),
        lambda r: dpsgd(r, "adapt_with_combine"),
    ),
    "sgp-one-peer-4": (("algorithm=sgp", "nodes=4"), lambda r: sgp(r, 0)),
    "sgp-star-3": (("algorithm=sgp", "topology=star", "nodes=3"), lambda r: sgp(r, 0)),
    "osgp-1-one-peer-3": (
        ("algorithm=sgp", "algorithm.overlap=1", "algorithm.merge=exact", "nodes=3"),
        lambda r: sgp(r, 1),
    ),
    "osgp-2-star-4": (
        ("algorithm=sgp", "algorithm.overlap=2", "algorithm.merge=exact", "topology=star", "nodes=4"),
        lambda r: sgp(r, 2),
    ),
    "biased-osgp-1-one-peer-4": (
        ("algorithm=sgp", "algorithm.overlap=1", "algorithm.merge=exact", "algorithm.biased=true", "nodes=4"),
        lambda r: sgp(r, 1, biased=True),
    ),
}


@pytest.mark.parametrize("optimizer", ["nesterov=true", "nesterov=false"])
@pytest.mark.parametrize("case", CASES)
def test_method_equals_its_matrix_form(case: str, optimizer: str) -> None:
    overrides, reference = CASES[case]
    config = configure(*overrides, *SETTINGS, f"optimizer.{optimizer}")
    workers: list[Any] = run_processes(trajectory, config["nodes"], config, STEPS)
    expected = reference(Reference(config))  # (steps, d, n)
    for i, worker in enumerate(workers):
        assert relative(worker["iterates"], expected[:, :, i]) <= 1e-12
