"""Decentralized parallel SGD. Lian, Zhang, Zhang, Hsieh, Zhang, Liu, NeurIPS 2017, arXiv:1705.09056, Algorithm 1.

X holds the workers' iterates as columns, W is doubly stochastic (w_ji is the share of x_j in the new x_i: the transpose
of `Mixing`'s P), G the gradients at X:

    adapt_with_combine (the paper's):   X <- X W - lr step(G, X)       gradient and weight decay at X before mixing
    adapt_then_combine (SGP's code):    X <- (X - lr step(G, X)) W     mixing after the step

The first lets the exchange run beside the gradient; in the second each waits for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from algorithms.stepwise import State, Stepwise
from algorithms.topology import Mixing
from algorithms.worker import Handle, Payload, Vector, Worker


@dataclass
class DPSGD(Stepwise):
    """D-PSGD.

    Args:
        order: `adapt_with_combine` (the paper's; unverified) or `adapt_then_combine` (as in the released code of SGP).
    """

    order: Literal["adapt_with_combine", "adapt_then_combine"] = "adapt_with_combine"

    topology: ClassVar[Literal["doubly_stochastic"]] = "doubly_stochastic"

    async def step(self, worker: Worker, s: State) -> None:
        W = worker.graph.at(s.k)
        if self.order == "adapt_with_combine":
            neighbours = _exchange(worker, W, s.x)
            g = await worker.gradient(s.x)
            x = worker.descend(s.x, g)
            # X W + (x - X) in one pass over each vector: what is kept of X is its own weight less the whole of it.
            s.x = _combine(worker, W, s.x, await neighbours, onto=x)
        else:
            g = await worker.gradient(s.x)
            x = worker.descend(s.x, g)
            s.x = _combine(worker, W, x, await _exchange(worker, W, x))
        s.k += 1


def _exchange(worker: Worker, W: Mixing, x: Vector) -> Handle[dict[int, Payload]]:
    i = worker.rank
    return worker.exchange(dict.fromkeys(W.outgoing[i], (x,)), W.incoming[i], like=(x,))


def _combine(worker: Worker, W: Mixing, x: Vector, received: dict[int, Payload], onto: Vector | None = None) -> Vector:
    """Column i of X W: sum_j w_ji x_j, neighbours in the order of their ranks; with `onto`, that of X W - X + onto.

    A neighbour that is gone leaves its weight to the worker itself (unverified: the paper knows no failures).
    """
    i = worker.rank
    own = W.own[i] + sum(w for j, w in W.incoming[i].items() if j not in received)
    mixed = own * x if onto is None else torch.add(onto, x, alpha=own - 1)
    for j, (x_j,) in received.items():
        mixed.add_(x_j, alpha=W.incoming[i][j])  # in place: nobody has seen it yet
    return mixed
