"""The local optimiser of one worker: any torch.optim class on the flat iterate, any schedule."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor

from runner.build import build, locate
from runner.schedules import Span, scheduler


class LocalOptimizer:
    """Wraps a torch optimiser so that a step is a function: (x, g) -> new x. Momentum and the like stay inside.

    Args:
        optimizer: the `optimizer` node, its `lr` resolved.
        schedule: the `schedule` node.
        like: a vector of the iterate's shape, dtype and device.
        paced: the schedule moves by `go_to`, as training as a whole gets on, and not with the steps taken here.

    Raises:
        ConfigError: the optimiser or the schedule refuses its settings.
    """

    def __init__(
        self, optimizer: dict[str, Any], schedule: dict[str, Any], like: Tensor, span: Span, *, paced: bool = False
    ) -> None:
        self.parameter = torch.nn.Parameter(torch.empty_like(like))
        settings = {key: value for key, value in optimizer.items() if key != "reference_lr"}
        # A fused step reads and writes each vector once; the loop over tensors that is torch's default on CPUs does
        # so for every term of the update.
        # It excludes torch's other implementations, should one of those be asked for.
        if "fused" in inspect.signature(locate(settings.get("_target_"), "optimizer")).parameters:
            settings.setdefault("fused", not (settings.get("foreach") or settings.get("differentiable")))
        self.optimizer: torch.optim.Optimizer = build(settings, "optimizer", [self.parameter])
        # Without what torch wraps around it (profiler and compiler hooks), which takes longer than a small step itself.
        self._bare_step = inspect.unwrap(type(self.optimizer).step)
        self.scheduler = scheduler(schedule, self.optimizer, span)
        self.paced, self.stepped = paced, False
        self.steps = 0  # of the schedule

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def descend(self, x: Tensor, g: Tensor) -> Tensor:
        """X after one step along g; neither is changed."""
        self.parameter.data = x.clone()  # the step is in place, and x may have been sent
        self.parameter.grad = g
        if not self.stepped:
            self.optimizer.step()  # torch's schedulers look for this call, once
            self.stepped = True
        else:
            with torch.no_grad():
                self._bare_step(self.optimizer)
        if not self.paced:
            self.scheduler.step()
            self.steps += 1
        self.parameter.grad = None
        return self.parameter.data

    def forget(self) -> None:
        """Forget momentum and the like."""
        self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """All that it remembers, and where its schedule is."""
        schedule = self.scheduler.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule, "steps": self.steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["schedule"])
        self.steps = saved["steps"]

    def go_to(self, step: int) -> None:
        """Let the schedule go on to a later step."""
        if self.steps >= step:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's schedulers miss the steps, which others took
            while self.steps < step:
                self.scheduler.step()
                self.steps += 1

    def begin_again(self, step: int) -> None:
        """Forget momentum and the like; the schedule goes on at a later step."""
        self.forget()
        self.go_to(step)
