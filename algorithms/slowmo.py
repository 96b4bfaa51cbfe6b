"""SlowMo: slow momentum over any base method. Wang, Tantia, Ballas, Rabbat, ICLR 2020, arXiv:1910.00643, Algorithm 1.

    tau steps of the base method, from x0 at lr gamma
    u  <- beta u + (x0 - mean_j x_j) / gamma
    x0 <- x0 - alpha gamma u ;  x_j <- x0

The buffers of the base optimiser are reset at the end of a block for SGD with momentum, kept for Adam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from algorithms.blocks import Blocks, BlockState
from algorithms.worker import Vector, Worker


@dataclass
class State(BlockState):
    u: Vector | None = None  # the slow momentum; None: 0
    lr: float = 0.0  # gamma, of the block's last step


@dataclass
class SlowMo(Blocks):
    """See the module.

    Args:
        period: tau, steps of the base method in a block.
        momentum: of the base optimiser, at the end of a block: `reset` (the paper's for SGD) or `keep` (for Adam).
        base: the base method: local steps, SGP, overlap SGP, ...
        slow_lr: alpha.
        slow_momentum: beta.
    """

    period: int = 12
    momentum: Literal["keep", "reset"] = "reset"
    slow_lr: float = 1.0
    slow_momentum: float = 0.7

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, self.base.begin(worker, x))

    async def step(self, worker: Worker, s: State) -> None:
        s.lr = worker.lr
        await super().step(worker, s)

    def outer(self, worker: Worker, s: State, mean: Vector) -> Vector:
        moved = s.x - mean
        if s.lr == 0.0:  # a warm-up that starts from 0: nothing has moved
            return mean
        s.u = moved / s.lr if s.u is None else torch.add(moved / s.lr, s.u, alpha=self.slow_momentum)
        return torch.sub(s.x, s.u, alpha=self.slow_lr * s.lr)
