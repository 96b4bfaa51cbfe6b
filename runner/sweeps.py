"""Composing the cells of a sweep (-m), and of the many lines of a study: 100 of them within seconds.

Hydra's own launcher reads and merges every file again for each cell, after its sweeper has done so to see whether it
can. Here nothing starts before all cells are composed, so once is enough; and cells that differ in plain values alone
(seeds, learning rates, numbers of nodes) are copies of one another with these values set.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode
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
        loader: Any = hydra_context.config_loader
        self.composer = Composer(loader, lambda overrides: loader.load_sweep_config(config, overrides))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        self.composed += self.composer.cells(job_overrides)
        return []


class Composer:
    """Composes cells, and remembers what it has loaded.

    Args:
        loader: Hydra's.
        load: makes the whole configuration for overrides.
    """

    def __init__(self, loader: Any, load: Callable[[list[str]], DictConfig]) -> None:
        self.loader, self.load = loader, load
        self.alike: dict[tuple[str, ...], tuple[DictConfig, dict[str, str | None]]] = {}

    @classmethod
    def of(cls, loader: Any, common: list[str]) -> Composer:
        """Without a sweep of Hydra's.

        Args:
            common: overrides of Hydra's own keys that all cells have.
        """
        return cls(loader, lambda words: loader.load_configuration("config", [*common, *words], run_mode=RunMode.RUN))

    def line(self, overrides: list[str]) -> Iterator[Composed]:
        """The cells of what would be typed behind `run-experiment -m`."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(overrides)
        [jobs] = BasicSweeper.split_arguments(parsed, None)
        return self.cells(jobs)

    def cells(self, job_overrides: Sequence[Sequence[str]]) -> Iterator[Composed]:
        """A cell for each list of overrides."""
        parser = OverridesParser.create(config_loader=self.loader)
        for overrides in job_overrides:
            parsed = parser.parse_overrides(list(overrides))
            plain = [each for each in parsed if self._is_plain(each)]
            rest = [each for each in parsed if each not in plain]
            if any(_overlap(one, another) for one in plain for another in rest if not self._chooses(another)):
                plain, rest = [], parsed  # their order counts
            key = tuple(str(each.input_line) for each in rest)
            if key not in self.alike:
                self.alike[key] = self._compose([*key])
            whole, choices = self.alike[key]
            cell = copy.deepcopy(whole)
            self.loader._apply_overrides_to_config(plain, cell)
            task = [str(each.input_line) for each in parsed if not each.is_hydra_override()]
            yield cell, choices, task

    def _compose(self, overrides: list[str]) -> tuple[DictConfig, dict[str, str | None]]:
        whole = self.load(overrides)
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
