"""What a study shows: its table and its figures, of its own runs and no others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.build import ConfigError, nearest
from runner.report import figures, frames, tables
from runner.report.formats import Table
from runner.report.metrics import METRICS, metric_of
from runner.report.published import times_by_nodes
from runner.report.runs import Run, filter_runs, unknown_name
from runner.studies import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURE = ("x", "y", "by", "where", "published")
"""What a study may say of a figure: options of `experiments plot`, and whose published values it has beside."""
PAPERS = ("slowmo",)
"""Of which times per iteration are published."""


def table_of(study: Study, runs: Sequence[Run]) -> Table:
    """The study's table. A value that its runs have none of has no column.

    Raises:
        LookupError: none of the runs has finished.
        ConfigError: the study's file asks for a key or value that there is not.
    """
    _check_table(study)
    frame = frames.summaries(runs)
    asked = dict(study.table)
    notes: list[str] = []
    if study.target is not None:
        frame, unread = frames.with_time_to(frame, runs, study.target)
        notes = [tables.target_note(study.target), *unread]
    values = asked.pop("values", [])
    make = tables.pivot if "rows" in asked else tables.comparison
    try:
        measured = [value for value in values if value in frame and frame[value].notna().any()]
        if missing := [metric_of(value).header for value in values if value not in measured]:
            notes.append(f"None of these runs has: {', '.join(missing)}.")
        made = make(frame, **asked, values=measured or None)
    except ValueError as error:
        raise ConfigError(f"conf/experiment/{study.name}.yaml: table: {error}") from error
    made.notes.extend(notes)
    return made


def check(study: Study) -> None:
    """Before its runs are made.

    Raises:
        ConfigError: the study's file asks for a setting, a value or a figure that there is not.
    """
    _check_table(study)
    _check_figures(study)


def _check_table(study: Study) -> None:
    what = f"conf/experiment/{study.name}.yaml: table"
    for key, value in study.table.items():
        names = value if isinstance(value, list) else [value]
        _check_names(f"{what}: {key}", names, METRICS if key == "values" else frames.SETTINGS)
    if "time_to_target_s" in study.table.get("values", []) and study.target is None:
        raise ConfigError(f"{what}: values: time_to_target_s: to which? Add a target, such as target: 0.8")


def _check_figures(study: Study) -> None:
    what = f"conf/experiment/{study.name}.yaml: figures"
    allowed = {"x": ("epoch", "time", "nodes", "staleness"), "y": tuple(figures.QUANTITIES), "published": PAPERS}
    for asked in study.figures:
        for key, value in asked.items():
            if key not in FIGURE:
                raise ConfigError(f"{what}: {key}: there is no such key; {nearest(key, FIGURE)}")
            if key in allowed and value not in allowed[key]:
                raise ConfigError(f"{what}: {key}: {value}: cannot be drawn; {nearest(str(value), allowed[key])}")
            if key in ("by", "where") and not isinstance(value, list):
                raise ConfigError(f"{what}: {key}: {value}: must be a list")
        _check_names(f"{what}: by", asked.get("by", []), frames.SETTINGS)
        for condition in asked.get("where", []):
            key, equals, _ = str(condition).partition("=")
            if not equals:
                raise ConfigError(f"{what}: where: {condition}: write key=value, for example nodes=4")
            if "." not in key:
                _check_names(f"{what}: where", [key], frames.SETTINGS)
        try:
            figures.check_axes(asked.get("x"), asked.get("y"))
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from error


def _check_names(what: str, names: Sequence[Any], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(str(unknown_name(what, str(name), [*known])))


def figures_of(study: Study, scale: str, runs: Sequence[Run]) -> tuple[list[tuple[str, Figure]], list[str]]:
    """Each figure with a name for its file; and what could not be read or drawn.

    One that shows a part of what another does is left out, as where another scale has learners that this one has not.
    """
    _check_figures(study)
    drawn: list[tuple[str, Figure]] = []
    problems: list[str] = []
    wanted: list[tuple[dict[str, Any], dict[str, Any], dict[Path, Run]]] = []
    for asked in study.figures:
        try:
            chosen = {run.folder: run for run in filter_runs(list(runs), asked.get("where", []))}
        except LookupError:  # of runs that are not there, at this scale or yet
            continue
        except ValueError as error:
            problems.append(f"{study.name}: figures: {error}")
            continue
        wanted.append((asked, {key: asked.get(key) for key in ("x", "y", "by")}, chosen))
    for asked, options, chosen in wanted:
        if any(options == other and chosen.keys() < others.keys() for _, other, others in wanted):
            continue
        try:
            marks = times_by_nodes(asked["published"]) if "published" in asked and scale != "laptop" else []
            figure, name, unread = figures.draw([*chosen.values()], **options, marks=marks)
        except KeyError:  # a LookupError too, but ours to mend
            raise
        except (LookupError, ValueError) as error:
            problems.append(f"{study.name}: {error}")
            continue
        drawn.append(("-".join([study.stem, *asked.get("where", []), name]), figure))
        problems += unread
    return drawn, problems
