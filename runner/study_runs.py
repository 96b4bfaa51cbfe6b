"""The runs of a study: composed, and found on the disk by their identities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner import studies
from runner.build import ConfigError
from runner.config import Config
from runner.report.runs import Run, find_runs, read_run


def cells_of(study: studies.Study, scale: str) -> list[Config]:
    """The composed configurations of all its lines.

    Raises:
        ConfigError: as for `run-experiment`.
    """
    from runner.main import compose

    return [config for command in study.commands(scale) for config, _ in compose(command)]


def found(cells: Sequence[Config], preset: str, places: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Those of the cells that have finished, each once, the first place first; and what could not be read."""
    from runner.identity import identity
    from runner.prepare import resolve

    wanted = {identity(resolve(config)) for config in cells}
    runs: dict[str, Run] = {}
    problems = []
    for place in places:
        if not (place / "runs" / preset).is_dir():
            continue
        try:
            there = find_runs(place, preset)
        except LookupError:  # nothing in it is a run
            continue
        for run in there:
            if run.problem:
                problems.append(f"skipped {run.problem}")
            elif run.summary is not None and run.identity in wanted:
                runs.setdefault(run.identity, run)
    return list(runs.values()), problems


def deviations_of(study: studies.Study, cell: Config) -> list[str]:
    """In which settings one of its cells differs from the paper's preset; none where that knows no such run."""
    from runner.main import compose

    alike = (f"algorithm={cell['choices']['algorithm']}", f"nodes={cell['nodes']}", f"seed={cell['seed']}")
    try:
        [(paper, _)] = compose([f"experiment={study.paper}/paper", *alike])
    except ConfigError:  # an option of the user's own has nothing to be held against
        return []
    return studies.deviations(cell, paper)


def show(study: studies.Study, cells: Sequence[Config], results_dir: Path) -> str:
    """The study's table, of those of its cells that have finished, and where its figures have been written."""
    from runner.report import figures, formats
    from runner.report.study import figures_of, table_of
    from runner.results import run_folder

    runs = [read_run(Run(run_folder(config), "", "unknown")) for config in cells]
    if not any(run.summary is not None for run in runs):
        return ""
    drawn, problems = figures_of(study, runs)
    paths = [results_dir / "figures" / f"{name}.png" for name, _ in drawn]
    for path, (_, figure) in zip(paths, drawn, strict=True):
        figures.save(figure, path)
    return "\n".join([formats.terminal(table_of(study, runs)), *map(str, paths), *problems])
