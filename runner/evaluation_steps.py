"""After which iterations a run is evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationSteps:
    """The iterations nearest to the multiples of so many epochs; an iteration is one draw of each worker.

    Args:
        interval: iterations between evaluations, at least 1, not always whole.
        last: the last iteration, which is always evaluated.
    """

    interval: float
    last: int

    @classmethod
    def of(cls, every: float, iterations_per_epoch: int, epochs: int) -> EvaluationSteps:
        """Of a run of so many epochs that is evaluated `every` so many, or after each part of one."""
        return cls(max(1.0, every * iterations_per_epoch), epochs * iterations_per_epoch)

    def at(self, number: int) -> int:
        """The `number`-th evaluation, from 1 on."""
        return math.floor(number * self.interval + 0.5)

    def until(self, step: int) -> int:
        """How many are due up to and at that iteration."""
        number = math.floor((step + 0.5) / self.interval)
        return number if self.at(number) <= step else number - 1

    def before(self, step: int) -> int:
        """The iteration of the evaluation before that iteration; 0 where there is none."""
        return self.at(self.until(step - 1))

    def after(self, step: int) -> int:
        """The iteration of the next evaluation after that one."""
        return min(self.at(self.until(step) + 1), self.last)

    def is_due(self, step: int) -> bool:
        """Whether one is due right after that iteration."""
        return self.after(step - 1) == step
