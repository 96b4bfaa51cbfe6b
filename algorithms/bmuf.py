"""BMUF: block-wise model-update filtering. Chen & Huo, ICASSP 2016 (no arXiv number; compared in arXiv:1910.00643).

    local steps, from w ;  G = mean_j x_j - w          what the block adds to where it began
    Delta <- eta Delta + zeta G ;  W <- W + Delta      the global model
    the next block begins at  w = W  (classical block momentum)  or at  w = W + eta Delta  (Nesterov's)

A block momentum eta of about 1 - 1/N makes up for averaging over N workers. Nesterov's form is unverified; written
so, it is DiLoCo's outer step (`algorithms.diloco`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from algorithms.blocks import Blocks, BlockState
from algorithms.worker import Vector, Worker


@dataclass
class State(BlockState):
    delta: Vector | None = None  # None: 0
    global_x: Vector | None = None  # W, where the block did not begin there; None: s.x


@dataclass
class BMUF(Blocks):
    """See the module.

    Args:
        period: local steps in a block.
        momentum: of the local optimiser, at the end of a block (unverified); kept, it adds up with eta and may diverge.
        base: who takes the local steps.
        block_momentum: eta; null: 1 - 1/N.
        block_lr: zeta.
        nesterov: begin the next block at the look-ahead point.
    """

    momentum: Literal["keep", "reset"] = "reset"
    block_momentum: float | None = None
    block_lr: float = 1.0
    nesterov: bool = False

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x, self.base.begin(worker, x))

    def outer(self, worker: Worker, s: State, mean: Vector) -> Vector:
        eta = 1 - 1 / worker.size if self.block_momentum is None else self.block_momentum
        W = s.x if s.global_x is None else s.global_x
        G = mean - s.x
        s.delta = self.block_lr * G if s.delta is None else torch.add(eta * s.delta, G, alpha=self.block_lr)
        W = W + s.delta
        if not self.nesterov:
            return W
        s.global_x = W
        return torch.add(W, s.delta, alpha=eta)

    def move(self, s: State, x: Vector) -> None:
        super().move(s, x)
        s.global_x = None
