"""`experiments claims`: what the papers claim, and what came out here."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.commands.options import Format, ResultsDir, is_folder, say, text_of, user_errors
from runner.commands.report import TITLES
from runner.report.formats import FORMATS, Cell, Column, Table
from runner.report.runs import unknown_name
from runner.studies import SCALES

if TYPE_CHECKING:
    from runner.claims.register import Judged


BRIEF = ("id", "claim", "verdict", "n")


def claims(
    of: Annotated[
        str | None, typer.Argument(metavar="PAPER|ID", help="Only this paper's, or this one.", show_default="all")
    ] = None,
    scale: Annotated[str, typer.Option(help=f"Of the runs: {', '.join(SCALES)}.")] = "virtual",
    brief: Annotated[bool, typer.Option("--brief", help="One row a claim: its verdict alone.")] = False,
    table_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.terminal,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """A verdict on each claim of the papers, and the command that makes the runs it lacks.

    Reads results/runs, and of what is not there results/showcase.
    """
    from runner.claims.register import judge, papers, published

    with user_errors():
        is_folder(results_dir)
        if scale not in SCALES:
            raise unknown_name("--scale", scale, SCALES)
        known = [*papers(), *(row["id"] for row in published())]
        if of in TITLES and of not in known:
            raise LookupError(f"{of}: no claim of it is known; `experiments report {of}` has its tables")
        if of is not None and of not in known:
            raise unknown_name("paper or claim", of, known)
        kept = results_dir / "showcase"
        judged = judge([results_dir, kept], scale, of)
        for problem in dict.fromkeys(problem for each in judged for problem in each.problems):
            say(problem)
        if not kept.is_dir() and any(each.verdict == "not run" for each in judged):
            say(f"no kept runs: there is no {kept}; --results-dir names the folder that has it")
        if table_format == Format.json:
            told_of = [{key: each.as_json()[key] for key in BRIEF} if brief else each.as_json() for each in judged]
            typer.echo(json.dumps(told_of, indent=2))
        elif brief:
            typer.echo(text_of(verdicts(judged, scale), table_format), nl=False)
        elif table_format == Format.terminal:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
            for each in judged:
                typer.echo(told(each, width))
        else:
            typer.echo(FORMATS[table_format](table(judged, scale)), nl=False)


def told(judged: Judged, width: int) -> str:
    """A claim as a paragraph."""
    lines = [f"{judged.id}: {judged.verdict.upper()}", f"{judged.claim}. {judged.source}"]
    if judged.expression:
        lines.append(f"checked: {judged.expression}")
    lines += [f"{answer.verdict}{answer.about and f' ({answer.about})'}: {answer.numbers}" for answer in judged.answers]
    if judged.reason:
        lines.append(reason(judged))
    if judged.answers:
        lines.append(f"n = {judged.n}, {judged.clock} clock, scale {judged.scale}; {judged.task}; {judged.runs}")
    first, *rest = lines
    wrapped = [textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ") for line in rest]
    commands = [f"  {judged.command}"] if judged.command else []  # in one line, to be typed again
    return "\n".join([first, *wrapped, *commands, ""])


def reason(judged: Judged) -> str:
    """Of a verdict that is none; of another, what speaks against it."""
    return f"{'but' if judged.verdict in ('holds', 'does not hold') else 'why'}: {judged.reason}"


def verdicts(judged: list[Judged], scale: str) -> Table:
    """One row for each claim."""
    columns = [Column(key, key, "count" if key == "n" else "text", wraps=key == "claim") for key in BRIEF]
    rows = [[Cell(getattr(each, key)) for key in BRIEF] for each in judged]
    return Table(_title(scale), columns, rows)


def table(judged: list[Judged], scale: str) -> Table:
    """One row for each claim as a whole, with why it is undecided; below it one for each of its answers."""
    columns = [
        Column("id", "claim"),
        Column("assumption", "with", wraps=True),
        Column("verdict", "verdict"),
        Column("numbers", "numbers", wraps=True),
        Column("n", "n", "count"),
        Column("clock", "clock"),
        Column("command", "command", wraps=True),
    ]
    rows = []
    for each in judged:
        words = [f"{each.claim}. {each.source}."]
        words += [f"Checked: {each.expression}"] if each.expression else []
        why = reason(each)
        words += [f"{why[:1].upper()}{why[1:]}"] if each.reason else []
        answers = [("all together", each.verdict, " ".join(words), each.n)]
        answers += [(answer.about, answer.verdict, answer.numbers, answer.n) for answer in each.answers]
        rows += [[Cell(value) for value in (each.id, *answer, each.clock, each.command)] for answer in answers]
    return Table(_title(scale), columns, rows)


def _title(scale: str) -> str:
    from runner.claims.register import SCALE

    return f"Claims of the papers, scale {scale}{'' if scale == SCALE else f'; they are checked at scale {SCALE} only'}"
