"""DiLoCo: an outer Nesterov step on the average of what the workers did. Douillard et al. 2023, arXiv:2311.08105.

    H inner steps (AdamW), from theta
    Delta = mean_j (theta - theta_j)
    m <- mu m + Delta ;  theta <- theta - lr (Delta + mu m)          torch's Nesterov SGD; theta - lr m without it

The workers' inner optimisers keep their memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from algorithms.blocks import Blocks, BlockState
from algorithms.worker import Vector, Worker


@dataclass
class State(BlockState):
    m: Vector | None = None  # None: 0


@dataclass
class DiLoCo(Blocks):
    """See the module.

    Args:
        period: H, inner steps in a block (the paper: 500).
        momentum: of the inner optimiser, at the end of a block.
        base: who takes the inner steps.
        outer_lr: lr.
        outer_momentum: mu (the paper: 0.9).
        nesterov: the outer step looks ahead.
    """

    period: int = 8
    outer_lr: float = 0.7
    outer_momentum: float = 0.5
    nesterov: bool = True

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, self.base.begin(worker, x))

    def outer(self, worker: Worker, s: State, mean: Vector) -> Vector:
        delta = s.x - mean
        s.m = delta if s.m is None else torch.add(delta, s.m, alpha=self.outer_momentum)
        step = torch.add(delta, s.m, alpha=self.outer_momentum) if self.nesterov else s.m
        return torch.sub(s.x, step, alpha=self.outer_lr)
