"""The runs of a study: composed, and found on the disk by their identities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner import identity, studies
from runner.build import ConfigError
from runner.composing import compose_all
from runner.config import Config, known_lr, simulated
from runner.report import configured
from runner.report.runs import Run, finished, read_run

OF_THE_MACHINE = {"launcher", "device", "backend", "threads_per_worker"}
"""Settings that a machine gives to a run where nobody has chosen."""
FILLED_IN = {"gpus_per_node", "batch_size", "optimizer.lr"}
"""Settings that follow from others where they are left open."""


def cells_of(study: studies.Study, scale: str) -> list[Config]:
    """The composed configurations of all its lines, each once.

    Raises:
        ConfigError: as for `run-experiment`.
    """
    composed = [config for line in compose_all(study.commands(scale)) for config, _ in line]
    return [*{identity.identity(config): config for config in composed}.values()]


def found(cells: Sequence[Config], preset: str, places: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Those of the cells that have finished, each once, the first place first; and what could not be read.

    A cell that cannot run here, for want of its data or of a cluster, or has not, may have been run elsewhere: its runs
    are those that have all its settings, whatever the machine.
    """
    from runner.prepare import resolve

    runs, problems = finished(preset, places)
    here, elsewhere = set(), []
    for config in cells:
        try:
            name = identity.identity(resolve(config))
        except ConfigError:
            name = ""
        if name in runs:
            here.add(name)
        else:
            elsewhere.append(_fixed(config) | {"optimizer.lr": known_lr(config)})
    return [run for name, run in runs.items() if name in here or (elsewhere and _is_one_of(run, elsewhere))], problems


def runs_of(those: Sequence[studies.Study], scale: str, places: Sequence[Path]) -> list[Run]:
    """The finished runs of studies that share a preset; errors as `cells_of`."""
    cells = [cell for study in those for cell in cells_of(study, scale)]
    return found(cells, those[0].preset(scale), places)[0]


def _fixed(config: Config) -> dict[str, Any]:
    """What determines results, whatever the machine; a virtual one is no machine."""
    settings = {key: value for key, value in identity.flat(identity.content(config)) if key not in OF_THE_MACHINE}
    return settings | {"simulated": simulated(config)}


def _is_one_of(run: Run, cells: Sequence[dict[str, Any]]) -> bool:
    try:
        its = _fixed(configured.whole(run.folder / "config.yaml"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return False

    def differing(cell: dict[str, Any]) -> set[str]:
        keys = {key for key in cell.keys() | its.keys() if cell.get(key) != its.get(key)}
        return {key for key in keys if key not in FILLED_IN or cell.get(key) is not None}

    return any(not differing(cell) for cell in cells)


def show(study: studies.Study, scale: str, cells: Sequence[Config], results_dir: Path, part: str = "") -> str:
    """The study's table, of those of these cells that have finished, and where its figures have been written.

    Args:
        part: what figures' names end in, beside the scale: of a part of a study, what was typed to narrow it.
    """
    from runner.report import figures, formats
    from runner.report.study import figures_of, table_of
    from runner.results import run_folder

    runs = [read_run(Run(folder, "", "unknown")) for folder in dict.fromkeys(map(run_folder, cells))]
    if not any(run.summary is not None for run in runs):
        return ""
    drawn, problems = figures_of(study, scale, runs)
    problems += [f"skipped {run.problem}; rerun=true makes it again" for run in runs if run.problem]
    paths = [results_dir / "figures" / f"{stem}-{scale}{part}.png" for stem, _ in drawn]
    for path, (_, figure) in zip(paths, drawn, strict=True):
        figures.save(figure, path)
    return "\n".join([formats.terminal(table_of(study, runs)), *map(str, paths), *problems])
