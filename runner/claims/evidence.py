"""The runs that a claim is held against, found by their resolved configurations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from runner.report.runs import Run, find_runs, parsed


class Values(NamedTuple):
    """A measured value of alike runs, by seed."""

    of: dict[int, float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.of.values())


class MissingRunsError(LookupError):
    """There are no runs, or too few seeds, of what was asked for."""


@dataclass
class Evidence:
    """Finished runs of a paper at a scale.

    Args:
        runs: of one preset; where the same run is there twice, the first counts.
    """

    runs: Sequence[Run]
    used: list[Run] = field(default_factory=list)

    @classmethod
    def of(cls, preset: str, results_dirs: Sequence[Path]) -> Evidence:
        """The finished runs below results_dirs/runs/<preset>."""
        found: dict[str, Run] = {}
        for folder in results_dirs:
            if (folder / "runs" / preset).is_dir():
                for run in find_runs(folder, preset):
                    if run.summary is not None:
                        found.setdefault(run.identity, run)
        return cls(list(found.values()))

    @cached_property
    def _settings(self) -> list[tuple[Run, dict[str, Any]]]:
        return [(run, _settings(run)) for run in self.runs]

    def measured(self, metric: str, *, seeds: int = 1, **conditions: Any) -> Values:
        """A metric of the runs of which all conditions hold, e.g. algorithm="sgp", cluster__inter__efficiency=0.75.

        Raises:
            MissingRunsError: of fewer seeds than that.
            ValueError: more than one run of a seed; the conditions leave open what they differ in.
        """
        wanted = {key.replace("__", "."): value for key, value in conditions.items()}
        found = [run for run, settings in self._settings if all(settings.get(k) == v for k, v in wanted.items())]
        measured = [(run.values["seed"], run.values[metric]) for run in found if run.values.get(metric) is not None]
        values = {seed: float(value) for seed, value in measured}
        if len(values) < len(measured):
            raise ValueError(f"several runs of one seed answer to {wanted}: {', '.join(run.identity for run in found)}")
        if len(values) < seeds or not values:
            told = " ".join(f"{key}={value}" for key, value in wanted.items())
            raise MissingRunsError(f"{len(values)} of {seeds} seeds of {told}")
        self.used += found
        return Values(values)


def _settings(run: Run) -> dict[str, Any]:
    """Its configuration with dotted keys, mappings whole too; a group's name stands for the option chosen."""
    config: dict[str, Any] = parsed((run.folder / "config.yaml").read_bytes())
    choices: dict[str, Any] = config["choices"]
    return _nodes(config, "") | choices | {"problem": config["problem"]["kind"]}


def _nodes(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            found |= _nodes(value, f"{prefix}{key}.")
    return found
