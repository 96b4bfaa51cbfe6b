"""A table, and its text in every format. All formats are written from the same `Table`, so they cannot disagree."""

import csv
import io
import json
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.report.metrics import Kind, written

_SENTENCE = 24  # characters of a line that can still be read
_READABLE = 12  # of a column of text


@dataclass(frozen=True)
class Column:
    """`key` heads the column where raw numbers are written (CSV, JSON), `header` where people read (with the unit)."""

    key: str
    header: str
    kind: Kind = "text"
    measured: bool = False  # a mean over n runs, with a standard deviation
    redundant: bool = False  # repeats what CSV and JSON say elsewhere
    wraps: bool = False  # sentences, which on a terminal take the room that the other columns leave
    spare: int = 0  # on a terminal that is too narrow the columns with the highest go first; those with 0 stay


@dataclass(frozen=True)
class Cell:
    """A value in base units (seconds, bytes, fractions); for a measured one also its standard deviation and n."""

    value: float | str | None
    std: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of cells, and notes that belong below."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [
            [written(cell.value, cell.std, column.kind) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown, columns aligned in the source too."""
    rows = [
        [text.replace("|", r"\|") for text in row]
        for row in ([column.header for column in table.columns], *table.texts())
    ]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(table.columns))]
    left = [column.kind == "text" for column in table.columns]

    def line(cells: list[str]) -> str:
        return (
            "| "
            + " | ".join(
                c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True)
            )
            + " |"
        )

    rule = (
        "|"
        + "|".join("-" * (w + 2) if is_left else "-" * (w + 1) + ":" for w, is_left in zip(widths, left, strict=True))
        + "|"
    )
    parts = [table.title, "\n".join([line(rows[0]), rule, *map(line, rows[1:])]), " ".join(table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(table: Table) -> str:
    r"""A `table` environment for the package booktabs, with the title as its caption."""
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex_escape(table.title)}}}",
        rf"  \begin{{tabular}}{{{''.join('l' if column.kind == 'text' else 'r' for column in table.columns)}}}",
        r"    \toprule",
        *(rf"    {' & '.join(map(_latex_escape, row))} \\" for row in ([column.header for column in table.columns],)),
        r"    \midrule",
        *(rf"    {' & '.join(map(_latex_escape, row))} \\" for row in table.texts()),
        r"    \bottomrule",
        r"  \end{tabular}",
        *([rf"  \par\footnotesize {_latex_escape(' '.join(table.notes))}"] if table.notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(table: Table) -> str:
    """Raw numbers in base units: a measured column `x` becomes `x_mean`, `x_std` and `x_n`; nothing but the table."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [(i, column) for i, column in enumerate(table.columns) if not column.redundant]
    parts = ("_mean", "_std", "_n")
    writer.writerow([column.key + part for _, column in columns for part in (parts if column.measured else ("",))])
    for row in table.rows:
        writer.writerow(
            [x for i, c in columns for x in ((row[i].value, row[i].std, row[i].n) if c.measured else (row[i].value,))]
        )
    return out.getvalue()


def json_text(table: Table) -> str:
    """Raw numbers: title, rows and notes; a measured `x` becomes {"mean", "std", "n"}, what is not finite null."""

    def raw(column: Column, cell: Cell) -> Any:
        return (
            {"mean": _finite(cell.value), "std": _finite(cell.std), "n": cell.n}
            if column.measured
            else _finite(cell.value)
        )

    rows = [
        {c.key: raw(c, cell) for c, cell in zip(table.columns, row, strict=True) if not c.redundant}
        for row in table.rows
    ]
    return (
        json.dumps(
            {"title": table.title, "rows": rows, "notes": table.notes}, indent=2, ensure_ascii=False, allow_nan=False
        )
        + "\n"
    )


def terminal(table: Table, width: int | None = None) -> str:
    """A table of rich for `width` characters, with colours; without `width`, plain and as wide as it needs to be.

    Where it does not fit, columns are left out and named below, spare ones first; what is still too wide wraps, but no
    identity.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    lines = table.texts()
    headers, needed = [], []  # measuring a table of thousands of rows takes rich seconds; we know how wide it is
    for index, column in enumerate(table.columns):
        widest = max((cell_len(line[index]) for line in lines), default=0)
        # Headers wrap, so that they make no column wider than its content.
        headers.append(textwrap.fill(column.header, max(7, widest), break_long_words=False))
        needed.append(max(widest, *map(cell_len, headers[-1].split("\n"))) + 3)
    least = [min(n, _SENTENCE) if column.wraps else n for n, column in zip(needed, table.columns, strict=True)]
    kept = list(range(len(table.columns)))
    for index in sorted(kept, key=lambda index: -table.columns[index].spare):
        if width is not None and table.columns[index].spare and sum(least[i] for i in kept) > width:
            kept.remove(index)
    # What is left wraps, but into no columns that cannot be read: rather, the widest are left out.
    readable = [
        max((cell_len(line[i]) for line in lines), default=0) if column.kind != "text" else min(needed[i], _READABLE)
        for i, column in enumerate(table.columns)
    ]
    stays = {i for i, column in enumerate(table.columns) if column.wraps or column.measured or column.key == "identity"}
    keys = [i for i in kept[1:] if i not in stays]
    measured = [i for i in kept if table.columns[i].measured]
    may_go = [*sorted(keys, key=lambda i: readable[i]), *measured[1:]]  # keys last, for they tell rows apart
    while width is not None and may_go and sum(readable[i] + 2 for i in kept) > width:
        kept.remove(may_go.pop())
    for index in kept:
        column = table.columns[index]
        justify: Literal["left", "right"] = "left" if column.kind == "text" else "right"
        grid.add_column(Text(headers[index]), justify=justify, overflow="fold", no_wrap=column.key == "identity")
    for line in lines:
        grid.add_row(*(Text(line[index]) for index in kept))
    out = io.StringIO()
    console = Console(file=out, width=width or sum(needed), force_terminal=width is not None, highlight=False)
    console.print(grid)
    printed = [line.rstrip() for line in out.getvalue().split("\n") if line.strip()]
    notes = list(table.notes)
    if hidden := [column.header for index, column in enumerate(table.columns) if index not in kept]:
        notes.append(f"No room here for: {', '.join(hidden)}. Widen the terminal, or write a file with --output.")
    return "\n".join([*([table.title, ""] if table.title else []), *printed, *(["", *notes] if notes else [])]) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "json": json_text,
}
SUFFIXES = {".txt": "terminal", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}

_LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
}


def _latex_escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
