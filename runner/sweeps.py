"""Composing the cells of a sweep (-m): 100 of them within seconds.

Hydra's own launcher reads and merges every file again for each cell, after its sweeper has done so to see whether it
can. Here nothing starts before all cells are composed, so once is enough; and cells that differ in plain values alone
(seeds, learning rates, numbers of nodes) are copies of one another with these values set.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

Composed = tuple[DictConfig, dict[str, str | None], list[str]]
"""A cell, its choices (group -> option), its overrides."""


def collect_in(composed: list[Composed]) -> None:
    """Have the cells of Hydra's next sweep appended to `composed`, in its order, in place of being launched."""

    def instantiate_launcher(hydra_context: HydraContext, task_function: Any, config: DictConfig) -> Launcher:
        cells = Cells(composed)
        cells.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        return cells

    Plugins.instance().instantiate_launcher = instantiate_launcher  # type: ignore[method-assign]
    Sweeper.validate_batch_is_legal = lambda *_: None  # type: ignore[method-assign]


class Cells(Launcher):
    """What Hydra takes for the launcher of a sweep."""

    def __init__(self, composed: list[Composed]) -> None:
        self.composed = composed

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.loader: Any = hydra_context.config_loader
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        parser = OverridesParser.create(config_loader=self.loader)
        alike: dict[tuple[str | None, ...], tuple[DictConfig, dict[str, str | None]]] = {}
        for overrides in job_overrides:
            parsed = parser.parse_overrides(list(overrides))
            plain = [each for each in parsed if self._is_plain(each)]
            rest = [each for each in parsed if each not in plain]
            if any(_overlap(one, another) for one in plain for another in rest if not self._chooses(another)):
                plain, rest = [], parsed  # their order counts
            key = tuple(each.input_line for each in rest)
            if key not in alike:
                alike[key] = self._compose(list(overrides))
            whole, choices = alike[key]
            cell = copy.deepcopy(whole)
            self.loader._apply_overrides_to_config(plain, cell)
            task = [str(each.input_line) for each in parsed if not each.is_hydra_override()]
            self.composed.append((cell, choices, task))
        return []

    def _compose(self, overrides: list[str]) -> tuple[DictConfig, dict[str, str | None]]:
        whole = self.loader.load_sweep_config(self.config, overrides)
        choices = dict(whole.hydra.runtime.choices)
        with open_dict(whole):
            del whole["hydra"]
        return whole, choices

    def _chooses(self, override: Override) -> bool:
        """Whether an override is the choice of a group's option."""
        return isinstance(override.value(), str) and bool(self.loader.repository.group_exists(override.key_or_group))

    def _is_plain(self, override: Override) -> bool:
        """Whether an override sets a key to a value, whatever the key's value was."""
        if override.is_add() or override.is_force_add() or override.is_delete() or override.is_hydra_override():
            return False
        single = isinstance(override.value(), str | int | float | bool | list | None)
        return single and override.package is None and not self.loader.repository.group_exists(override.key_or_group)


def _overlap(one: Override, another: Override) -> bool:
    """Whether one of two overrides is of a key inside the other's, or of the same."""
    a, b = f"{one.key_or_group}.", f"{another.key_or_group}."
    return a.startswith(b) or b.startswith(a)
