"""AllReduce SGD: synchronous data-parallel SGD, every worker steps along the mean gradient.

The baseline of every paper here (AR-SGD in Assran et al., ICML 2019, arXiv:1811.10792; synchronous SGD in Jin et al.,
arXiv:1611.04581). The mean is taken over gradients, overlapped with the backward pass. Averaging parameters after a
local heavy-ball or Nesterov step gives the same iterates, because those recursions are linear in the gradient; Adam's
is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from algorithms.stepwise import State, Stepwise
from algorithms.worker import Worker


@dataclass
class AllReduce(Stepwise):
    """x <- x - lr step(mean_j g_j)."""

    async def step(self, worker: Worker, s: State) -> None:
        g = await worker.gradient(s.x, mean_over=worker.everyone)
        s.x = worker.descend(s.x, g)
