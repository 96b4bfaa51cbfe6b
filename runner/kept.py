"""What a process of an asynchronous run keeps where an evaluation is due, until all can evaluate it together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from runner.config import Config
from runner.evaluation_steps import EvaluationSteps
from runner.parts import Parts


@dataclass
class Kept:
    """A process where an evaluation is due."""

    x: Tensor
    time_s: float
    buffers: dict[str, Tensor] = field(default_factory=dict)


class Epochs:
    """What one process keeps, by the draw at which an epoch ends, or the part of one between evaluations."""

    def __init__(self, parts: Parts, config: Config) -> None:
        self.parts = parts
        self.steps = EvaluationSteps.of(config["evaluation"]["every"], parts.iterations_per_epoch, config["epochs"])
        self.next_end = self.steps.after(0)
        self.kept: dict[int, Kept] = {}

    @property
    def ends(self) -> list[int]:
        return [*map(self.steps.at, range(1, self.steps.until(self.steps.last - 1) + 1)), self.steps.last]

    def note(self, x: Tensor) -> None:
        """After a step: a worker that is past an end keeps where it stands, once."""
        if self.next_end <= self.parts.worker.draw and self.next_end < self.steps.last:
            here = self.here(x)
            while self.next_end <= self.parts.worker.draw and self.next_end < self.steps.last:
                self.kept[self.next_end] = here
                self.next_end = self.steps.after(self.next_end)

    def here(self, x: Tensor) -> Kept:
        buffers = {name: buffer.clone() for name, buffer in self.parts.problem.buffers().items()}
        return Kept(x.to("cpu"), self.parts.clock.now(), buffers)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"kept": {end: vars(there) for end, there in self.kept.items()}, "next_end": self.next_end}

    def load(self, saved: dict[str, Any]) -> None:
        self.kept = {end: Kept(**{**there, "x": there["x"].to("cpu")}) for end, there in saved["kept"].items()}
        self.next_end = saved["next_end"]

    def finish(self, x: Tensor) -> None:
        """At the end of training."""
        here = self.here(x)
        for end in self.ends:
            self.kept.setdefault(end, here)
