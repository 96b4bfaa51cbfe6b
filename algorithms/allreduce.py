"""AllReduce SGD: synchronous data-parallel SGD, every worker steps along the mean gradient.

The baseline of every paper here (AR-SGD in Assran et al., ICML 2019, arXiv:1811.10792). The mean is taken over
gradients, overlapped with the backward pass. Averaging parameters after a local heavy-ball or Nesterov step gives the
same iterates, because those recursions are linear in the gradient; Adam's is not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import ClassVar, Literal

from algorithms.worker import Vector, Worker


@dataclass
class State:
    x: Vector


@dataclass
class AllReduce:
    """x <- x - lr step(mean_j g_j)."""

    topology: ClassVar[Literal["none"]] = "none"

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(State(x=worker.initial()))
        while await worker.has_work():
            g = await worker.gradient(s.x, mean_over=worker.everyone)
            s.x = worker.descend(s.x, g)
            yield s.x
