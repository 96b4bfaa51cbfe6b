"""The runs of a study: composed, and found on the disk by their identities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner import studies
from runner.build import ConfigError
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


def deviations_of(study: studies.Study, cells: Sequence[Config]) -> list[str]:
    """In which settings any of its cells differs from its counterpart among the study's runs at scale=paper.

    Where both have equally many runs of a method, they are counterparts in their order; else a cell's is the one that
    is most like it. Where the study has none of that method, cells differ from what the preset of that scale sets.
    """
    if not studies.has_paper_setting(study.paper):
        return []
    told: dict[str, None] = {}
    for name in dict.fromkeys(cell["choices"]["algorithm"] for cell in cells):
        mine = _of_one_seed([cell for cell in cells if cell["choices"]["algorithm"] == name])
        theirs, known = _at_scale_paper(study, name)
        for number, cell in enumerate(mine):
            counterparts = [theirs[number]] if len(theirs) == len(mine) else theirs
            differences = [
                (studies.deviations(cell, paper | {"seed": cell["seed"]}, known), paper["nodes"] != cell["nodes"])
                for paper in counterparts
            ]
            if differences:  # on as many nodes where several are as like it
                fewest, _ = min(differences, key=lambda each: (len(each[0]), each[1]))
                told.update(dict.fromkeys(fewest))
    return list(told)


def _at_scale_paper(study: studies.Study, algorithm: str) -> tuple[list[Config], set[str] | None]:
    """The study's runs of that method, of one seed; and the keys by which to compare, where not by all."""
    from runner.main import compose_all

    lines = study.commands("paper") if "paper" in study.lines else []
    lines = [line for line in lines if f"algorithm={algorithm}" in line]
    known = None if lines else studies.paper_keys(study.paper)
    lines = lines or [[f"experiment={study.paper}/paper", f"algorithm={algorithm}"]]
    try:
        return _of_one_seed([config for line in compose_all(lines) for config, _ in line]), known
    except ConfigError:  # an option of the user's own has nothing to be held against
        return [], known


def _of_one_seed(configs: Sequence[Config]) -> list[Config]:
    return [config for config in configs if config["seed"] == configs[0]["seed"]]


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
