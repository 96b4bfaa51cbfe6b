"""The runs of a study: composed, and found on the disk by their identities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner import studies
from runner.config import Config
from runner.report.runs import Run, finished, read_run


def cells_of(study: studies.Study, scale: str) -> list[Config]:
    """The composed configurations of all its lines.

    Raises:
        ConfigError: as for `run-experiment`.
    """
    from runner.main import compose_all

    return [config for line in compose_all(study.commands(scale)) for config, _ in line]


def found(cells: Sequence[Config], preset: str, places: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Those of the cells that have finished, each once, the first place first; and what could not be read."""
    from runner.identity import identity
    from runner.prepare import resolve

    wanted = {identity(resolve(config)) for config in cells}
    runs, problems = finished(preset, places)
    return [run for name, run in runs.items() if name in wanted], problems


def show(study: studies.Study, scale: str, cells: Sequence[Config], results_dir: Path, part: str = "") -> str:
    """The study's table, of those of these cells that have finished, and where its figures have been written.

    Args:
        part: what figures' names end in, beside the scale.
    """
    from runner.report import figures, formats
    from runner.report.study import figures_of, table_of
    from runner.results import run_folder

    runs = [read_run(Run(run_folder(config), "", "unknown")) for config in cells]
    if not any(run.summary is not None for run in runs):
        return ""
    drawn, problems = figures_of(study, scale, runs)
    problems += [f"skipped {run.problem}; rerun=true makes it again" for run in runs if run.problem]
    paths = [results_dir / "figures" / f"{stem}-{scale}{part}.png" for stem, _ in drawn]
    for path, (_, figure) in zip(paths, drawn, strict=True):
        figures.save(figure, path)
    return "\n".join([formats.terminal(table_of(study, runs)), *map(str, paths), *problems])
