"""Learning-rate schedules: the factor by which the learning rate is multiplied, as a function of the epoch.

Each is applied once per iteration. A closed form, not torch's chained recursions: the factor depends on the step
alone, so a resumed run needs no schedule history, and the cost is one function call.
Any class of `torch.optim.lr_scheduler` can be named as `_target_` instead; it is stepped once per iteration.
"""

from __future__ import annotations

import bisect
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.build import ConfigError, build

if TYPE_CHECKING:
    import torch


@dataclass
class Span:
    """What a schedule is laid over."""

    epochs: int
    iterations_per_epoch: int
    reference_factor: float  # reference_lr / lr: where the papers' warm-up starts


@dataclass
class Constant:
    """The learning rate as it is, after an optional linear warm-up over `warmup_epochs` from `start_factor`."""

    span: Span
    warmup_epochs: float = 0
    start_factor: float | None = None

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0:
            raise ConfigError(f"schedule.warmup_epochs={self.warmup_epochs}: must be 0 or more")
        if self.start_factor is None:
            self.start_factor = min(1.0, self.span.reference_factor)
        if not 0 <= self.start_factor <= 1:
            raise ConfigError(f"schedule.start_factor={self.start_factor}: must be between 0 and 1")

    def __call__(self, step: int) -> float:
        epoch = step / self.span.iterations_per_epoch
        if epoch < self.warmup_epochs:
            start = self.start_factor or 0.0
            return (start + (1 - start) * epoch / self.warmup_epochs) * self.decay(0.0)
        return self.decay(epoch)

    def decay(self, epoch: float) -> float:
        """The factor once warm."""
        return 1.0


@dataclass
class Steps(Constant):
    """Linear warm-up, then x gamma at each milestone (an epoch): Goyal et al. 2017 and the SGP paper."""

    milestones: tuple[float, ...] = (30, 60, 80)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.milestones = tuple(self.milestones)
        if list(self.milestones) != sorted(self.milestones) or any(m < 0 for m in self.milestones):
            raise ConfigError(f"schedule.milestones={list(self.milestones)}: must be epochs in increasing order")
        if self.gamma <= 0:
            raise ConfigError(f"schedule.gamma={self.gamma}: must be positive")

    def decay(self, epoch: float) -> float:
        return self.gamma ** bisect.bisect_right(self.milestones, epoch)


@dataclass
class Cosine(Constant):
    """Linear warm-up, then half a cosine from 1 down to `final_factor` at the last epoch (Loshchilov & Hutter 2017)."""

    final_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.final_factor <= 1:
            raise ConfigError(f"schedule.final_factor={self.final_factor}: must be between 0 and 1")

    def decay(self, epoch: float) -> float:
        length = max(self.span.epochs - self.warmup_epochs, 1e-12)
        progress = min(max(epoch - self.warmup_epochs, 0.0) / length, 1.0)
        return self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * progress)) / 2


class Factors:
    """Sets an optimiser's learning rates to their initial ones times factor(step): torch's `LambdaLR`, but lighter."""

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> None:
        self.optimizer, self.initial = optimizer, [group["lr"] for group in optimizer.param_groups]
        self.factor, self.steps = factor, 0
        self._set()

    def step(self) -> None:
        self.steps += 1
        self._set()

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.steps = saved["steps"]
        self._set()

    def _set(self) -> None:
        factor = self.factor(self.steps)
        for group, lr in zip(self.optimizer.param_groups, self.initial, strict=True):
            group["lr"] = lr * factor


def scheduler(node: dict[str, Any], optimizer: Any, span: Span) -> Any:
    """The scheduler that a `schedule` node describes, of torch's or of ours, to be stepped once per iteration.

    Raises:
        ConfigError: it refuses its settings, or wants to be told more than that a step was taken.
    """
    if str(node.get("_target_")).startswith("torch."):
        made = build(node, "schedule", optimizer)
        if any(p.default is p.empty for p in inspect.signature(made.step).parameters.values()):
            raise ConfigError(
                f"schedule._target_={node['_target_']}: a schedule here is a function of the step alone; choose another"
            )
        return made
    return Factors(optimizer, build(node, "schedule", span))
