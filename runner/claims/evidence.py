"""The runs that a claim is held against, found by their resolved configurations."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.identity import as_typed, content, is_outside
from runner.report import configured
from runner.report.curves import Heights, mean_height, not_before, time_to, top1_curve
from runner.report.runs import Run, finished, shorten


@dataclass(frozen=True)
class Values:
    """A measured value of alike runs, by seed.

    Args:
        after: of times that lie between two evaluations, the first; `of` is the second, infinite where there is none.
    """

    of: dict[int, float]
    after: dict[int, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.of.values()))

    @property
    def earliest(self) -> Values:
        """The first of the two evaluations; infinite of a run that never got there in its epochs."""
        return Values(
            {seed: min(at, self.after.get(seed, at)) if math.isfinite(at) else at for seed, at in self.of.items()}
        )

    def times(self, factor: float) -> Values:
        return Values(*({seed: factor * value for seed, value in each.items()} for each in (self.of, self.after)))

    @property
    def mean(self) -> float:
        return statistics.fmean(self.of.values())

    def __truediv__(self, other: Values) -> Values:
        """Seed by seed."""
        return Values({seed: mine / its for seed, (mine, its) in by_seed(self, other).items()})

    def __sub__(self, other: Values) -> Values:
        """Seed by seed."""
        return Values({seed: mine - its for seed, (mine, its) in by_seed(self, other).items()})

    def told(self, form: str, scale: float = 1.0, unit: str = "") -> str:
        """Mean ± standard deviation, where seeds differ, and unit; a time that some runs never reached is "never".

        Of one that lies between two evaluations, both: "3.1 to 4.6 ± 0.0 s", "never by 12.0 s".
        """
        values = [scale * value for value in self.of.values()]
        lost = sum(math.isinf(value) for value in values)
        earliest = f"{scale * statistics.fmean(self.after.values()):{form}}" if self.after else ""
        if lost == len(values):
            return f"never by {earliest} {unit}" if earliest else "never"
        if lost:
            return f"never in {lost} of {len(values)} runs"
        spread = f" ± {statistics.stdev(values):{form}}" if len(set(values)) > 1 else ""
        return f"{earliest}{earliest and ' to '}{scale * self.mean:{form}}{spread}{unit and ' '}{unit}"


SEEDS = 3
"""Without so many there is no verdict."""


def by_seed(*sides: Values) -> dict[int, tuple[float, ...]]:
    """The values of all sides, of each seed that all have.

    Raises:
        MissingRunsError: they have too few seeds in common for a verdict.
    """
    seeds = sorted(set.intersection(*({*side.of} for side in sides)))
    if len(seeds) < SEEDS:
        raise MissingRunsError(f"{len(seeds)} of {SEEDS} seeds that all sides of a comparison have")
    return {seed: tuple(side.of[seed] for side in sides) for seed in seeds}


def of_common_seeds(*sides: Values) -> list[Values]:
    """The sides, of the seeds that all have; errors as `by_seed`."""
    return [Values({seed: values[place] for seed, values in by_seed(*sides).items()}) for place in range(len(sides))]


Measure = Callable[[Run], float | None]
"""What a value is found by in a run; None where it has none."""


class MissingRunsError(LookupError):
    """There are no runs, or too few seeds, of what was asked for."""


@dataclass
class Evidence:
    """Finished runs of a paper at a scale.

    Args:
        runs: of one preset; where the same run is there twice, the first counts.
        used: those that have been asked for something.
        problems: what could not be read.
        own: finds the finished runs of the studies themselves, in seconds; asked where others lie among them.
        curves: what has been read, by folder.
        spare: by identity, what else there is of runs that are there twice.
    """

    runs: Sequence[Run]
    used: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    own: Callable[[], Sequence[Run]] | None = None
    curves: dict[Path, Heights] = field(default_factory=dict)
    spare: dict[str, Run] = field(default_factory=dict)

    @classmethod
    def of(cls, preset: str, results_dirs: Sequence[Path], own: Callable[[], Sequence[Run]] | None = None) -> Evidence:
        """The finished runs below results_dirs/runs/<preset>."""
        found: dict[str, Run] = {}
        spare: dict[str, Run] = {}
        problems: list[str] = []
        for place in results_dirs:
            here, wrong = finished(preset, [place])
            spare |= {name: run for name, run in here.items() if name in found}
            found = here | found
            problems += wrong
        return cls(list(found.values()), problems=problems, own=own, spare=spare)

    @cached_property
    def _settings(self) -> list[tuple[Run, dict[str, Any]]]:
        known = [(run, _settings(run)) for run in self.runs]
        unreadable = [run for run, settings in known if settings is None]
        again = "cannot be read; rerun=true makes it again"
        self.problems += [f"skipped {run.folder / 'config.yaml'}: {again}" for run in unreadable]
        spare = [self.spare[run.identity] for run in unreadable if run.identity in self.spare]
        known += [(run, _settings(run)) for run in spare]
        return [(run, settings) for run, settings in known if settings is not None]

    def reached(self, top1: float, **conditions: Any) -> Values:
        """When the runs reached a top-1, in seconds of training; errors as `measured`."""
        late = self.measured(lambda run: time_to(self._curve(run), top1), **conditions)
        early = self.measured(lambda run: not_before(self._curve(run), top1), **conditions)
        return Values(late.of, early.of)

    def height(self, part: float = 1.0, **conditions: Any) -> Values:
        """Top-1 in the mean over the first `part` of training; errors as `measured`."""
        return self.measured(lambda run: mean_height(self._curve(run), part), **conditions)

    def _curve(self, run: Run) -> Heights:
        """A file is read once, however often its curve is asked for."""
        if run.folder not in self.curves:
            self.curves[run.folder], problem = top1_curve(run)
            self.problems += [problem] if problem else []
        return self.curves[run.folder]

    def measured(self, metric: str | Measure, *, seeds: int = SEEDS, **conditions: Any) -> Values:
        """A metric of the runs of which all conditions hold, e.g. algorithm="sgp", cluster__inter__efficiency=0.95.

        Args:
            metric: its key in summaries, or what finds it in a run.
            seeds: that there must be.

        Raises:
            MissingRunsError: of fewer seeds than that.
            ValueError: the conditions leave something open in which these runs differ, or one of them diverged.
        """
        wanted = {key.replace("__", "."): value for key, value in conditions.items()}
        asked = " ".join(f"{key}={as_typed(value)}" for key, value in wanted.items())
        alike = [each for each in self._settings if all(each[1].get(k) == v for k, v in wanted.items())]
        found = [run for run, _ in alike]
        differing = sorted({key for _, settings in alike for key in _differing(settings, alike[0][1])})
        if differing and _ambiguous(found):
            found = found if self.own is None else self._of_the_studies(found)
            if _ambiguous(found):
                raise ValueError(f"runs of {asked} differ in {shorten(differing)} too")
        told = [(run, metric(run) if callable(metric) else run.values.get(metric)) for run in found]
        if lost := [
            run.identity for run, value in told if not callable(metric) and (value is None or math.isnan(value))
        ]:
            raise ValueError(f"runs of {asked} have no {metric}, as where training diverged: {shorten(lost)}")
        measured = [(int(run.values.get("seed") or 0), float(value)) for run, value in told if value is not None]
        values = dict(measured)
        if len(values) < len(measured):
            raise ValueError(f"several runs of one seed answer to {asked}: {', '.join(run.identity for run in found)}")
        if len(values) < seeds or not values:
            raise MissingRunsError(f"{len(values)} of {seeds} seeds of {asked}")
        self.used += found
        return Values(values)

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """Of what kind each run of the studies is, by identity."""
        return {} if self.own is None else {run.identity: _content(run) for run in self.own()}

    def _of_the_studies(self, runs: Sequence[Run]) -> list[Run]:
        """Those that differ from a run of the studies in the seed at most; of several of a seed, the studies' own."""
        kinds = {*self._kinds.values()}
        alike = [run for run in runs if _content(run) in kinds]
        counts = Counter(run.values.get("seed") for run in alike)
        return [run for run in alike if counts[run.values.get("seed")] == 1 or run.identity in self._kinds]


def _ambiguous(runs: Sequence[Run]) -> bool:
    """Whether they are of several kinds, or several of one seed."""
    return len({_content(run) for run in runs}) > 1 or len({run.values.get("seed") for run in runs}) < len(runs)


def _settings(run: Run) -> dict[str, Any] | None:
    """Its configuration with dotted keys, mappings whole too; a group's name stands for the option chosen.

    None where it cannot be read: such a run is evidence of nothing.
    """
    try:
        config = configured.whole(run.folder / "config.yaml")
        choices: dict[str, Any] = config["choices"]
        return _nodes(config, "") | choices | {"problem": config["problem"]["kind"]}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """The keys beside the seed, of what determines results, that differ; single values, not whole mappings."""
    return {
        key
        for key in {*one, *other}
        if one.get(key) != other.get(key)
        and key != "seed"
        and not is_outside(key)
        and not isinstance(one.get(key), dict)
        and not isinstance(other.get(key), dict)
    }


def _content(run: Run) -> str:
    """What makes its identity, but for the seed: keys that have no effect, or came later, do not count."""
    try:
        return json.dumps(content(configured.whole(run.folder / "config.yaml")) | {"seed": None}, sort_keys=True)
    except (ValueError, LookupError, TypeError, AttributeError):  # not as the runner writes it
        return run.identity


def _nodes(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            found |= _nodes(value, f"{prefix}{key}.")
    return found
