"""`experiments report`: a paper's claims, tables and figures as one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner import studies
from runner.commands.options import ResultsDir, is_folder, say, user_errors
from runner.report.runs import finished, unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from runner.report.formats import Table
    from runner.report.page import Section

TITLES = {
    "sgp": "Stochastic Gradient Push (Assran et al. 2019)",
    "gossip": "How to scale distributed deep learning? (Jin et al. 2016)",
    "hier_avg": "Hier-AVG (Zhou & Cong 2019)",
    "sasgd": "SASGD (Cong, Bhardwaj, Feng 2017)",
    "slowmo": "SlowMo (Wang et al. 2020)",
}


def report(
    paper: Annotated[str, typer.Argument(help=f"Of {', '.join(TITLES)}.", show_default=False)],
    scale: Annotated[str, typer.Option(help=f"Of the runs: {', '.join(studies.SCALES)}.")] = "virtual",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file.", show_default="results/reports/<paper>-<scale>.html"),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(
            help="Also write every table (md, tex, csv, json, txt) and figure (png, pdf, svg) into this folder."
        ),
    ] = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """One HTML page of a paper: claims, tables, figures, deviations, commands.

    Reads results/runs, and of what is not there results/showcase.
    """
    with user_errors():
        is_folder(results_dir)
        if paper not in TITLES:
            raise unknown_name("paper", paper, list(TITLES))
        if scale not in studies.SCALES:
            raise unknown_name("--scale", scale, studies.SCALES)

        from rich.console import Console

        from runner.claims.published import beside_measured
        from runner.claims.register import judge
        from runner.deviations import paper_setting
        from runner.report.page import Page

        if output is not None and output.suffix not in (".html", ".htm"):
            raise ValueError(f"--output {output}: is a web page; let its name end in .html, and print it for a PDF")
        places = [results_dir, results_dir / "showcase"]
        every = studies.of_paper(paper)
        mine = sorted((study for study in every if scale in study.lines), key=lambda study: not study.in_paper)
        if not mine:
            known = sorted({each for study in every for each in study.lines})
            raise ValueError(f"--scale {scale}: {paper} has the scales {', '.join(known)}")
        sections = []
        with Console(stderr=True).status("") as status:  # on a terminal: a page takes seconds for each study
            for number, study in enumerate(mine, 1):
                status.update(f"{study.name}, {number} of {len(mine)}")
                sections.append(section_of(study, scale, places, files))
        for problem in dict.fromkeys(each for section in sections for each in section.problems if "skipped" in each):
            say(problem)  # once, of whichever studies could have had it
        page = Page(
            title=TITLES[paper],
            subtitle=f"Scale {scale}. Made by `experiments report {paper} --scale {scale}`.",
            setting=paper_setting(paper),
            claims=judge(places, scale, paper),
            sections=sections,
            published=beside_measured(paper, scale, places),
            environment=environment(paper, scale, places),
        )
        path = output or results_dir / "reports" / f"{paper}-{scale}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.html(), encoding="utf-8")
        typer.echo(str(path))


def section_of(study: studies.Study, scale: str, places: Sequence[Path], files: Path | None) -> Section:
    """The study's table and figures, of its finished runs; also as files, where a folder is named."""
    from runner.deviations import deviations_of
    from runner.report.page import Section, picture
    from runner.report.study import figures_of, table_of
    from runner.study_runs import cells_of, found

    cells = cells_of(study, scale)
    runs, problems = found(cells, study.preset(scale), places)
    if len(runs) < len(cells):
        unfinished = f"{len(cells) - len(runs)} of {len(cells)} runs have not finished."
        problems.append(unfinished)
        say(f"{study.name}: {unfinished}")
    section = Section(
        anchor=study.stem,
        title=study.title,
        source=study.source,
        command=f"run-experiment experiment={study.name} scale={scale}",
        notes=study.notes_at(scale),
        deviations=deviations_of(study, cells),
        problems=problems,
    )
    if not runs:
        return section
    figures, unread = figures_of(study, scale, runs)
    table = table_of(study, runs)
    if files is not None:
        write(files, study.stem, table, figures)
    pictures = [picture(figure) for _, figure in figures]
    return replace(section, table=table, figures=pictures, problems=[*problems, *unread])


def write(folder: Path, name: str, table: Table, figures: Sequence[tuple[str, Figure]]) -> None:
    """A study's table and figures in every format."""
    from runner.report.figures import save
    from runner.report.formats import FORMATS, SUFFIXES

    folder.mkdir(parents=True, exist_ok=True)
    for suffix, table_format in SUFFIXES.items():
        (folder / f"{name}{suffix}").write_text(FORMATS[table_format](table), encoding="utf-8")
    for stem, figure in figures:
        for suffix in (".png", ".pdf", ".svg"):
            save(figure, folder / f"{stem}{suffix}")


def environment(paper: str, scale: str, places: Sequence[Path]) -> list[str]:
    """What the runs say of their machines, and the showcase of how long they took."""
    lines: dict[str, None] = {}
    for place in places:
        told = _object(place / "measured" / f"{paper}-{scale}.json")
        lines.update(dict.fromkeys(f"{key}: {value}" for key, value in told.items()))
    for run in finished(f"{paper}/{scale}", places)[0].values():
        if told := _object(run.folder / "environment.json"):
            machine = f"{told.get('cpus')} cores, Python {told.get('python')}, torch {told.get('torch')}"
            lines[f"{machine}, commit {str(told.get('commit'))[:12]}"] = None
    return list(lines)


def _object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing or broken."""
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
