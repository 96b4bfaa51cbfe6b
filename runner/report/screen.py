"""A table of many rows on a terminal, at once: laying out 1,000 rows takes rich more than a second."""

from __future__ import annotations

from runner.report.formats import Column, Table

COLOURS = {"failed": "31", "finished": "32", "interrupted": "33", "running": "36"}
_BETWEEN = "  "
_LEGIBLE = 22  # characters of what is cut


def screen(table: Table, width: int | None = None, *, colour: bool = False) -> str:
    """A line per row, as wide as the table needs to be or, with `width`, at most so many characters.

    Where it does not fit, spare columns are left out and named below; then what wraps elsewhere is cut.
    """
    texts = table.texts()
    widths = [
        max(len(column.header), *(len(row[i]) for row in texts)) if texts else len(column.header)
        for i, column in enumerate(table.columns)
    ]
    kept = list(range(len(table.columns)))
    least = {i: min(widths[i], _LEGIBLE) if table.columns[i].wraps else widths[i] for i in kept}

    def needed(sizes: dict[int, int]) -> int:
        return sum(sizes[i] for i in kept) + len(_BETWEEN) * (len(kept) - 1)

    for i in sorted(kept, key=lambda i: -table.columns[i].spare):
        if width is not None and table.columns[i].spare and needed(least) > width:
            kept.remove(i)
    sizes = {i: widths[i] for i in kept}
    for i in kept:
        if width is not None and table.columns[i].wraps:
            sizes[i] -= min(sizes[i] - least[i], max(0, needed(sizes) - width))

    def line(cells: list[str]) -> str:
        return _BETWEEN.join(_fitted(cells[i], sizes[i], table.columns[i]) for i in kept).rstrip()

    def coloured(row: list[str]) -> str:
        text, first = line(row), row[0]
        return f"\x1b[{COLOURS[first]}m{first}\x1b[0m{text[len(first) :]}" if colour and first in COLOURS else text

    head = line([column.header for column in table.columns])
    lines = [f"\x1b[1m{head}\x1b[0m" if colour else head, "─" * needed(sizes), *map(coloured, texts)]
    notes = list(table.notes)
    if hidden := [column.header for i, column in enumerate(table.columns) if i not in kept]:
        notes.append(f"No room here for: {', '.join(hidden)}. Widen the terminal, or use --format csv or json.")
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _fitted(text: str, size: int, column: Column) -> str:
    text = text if len(text) <= size else text[: size - 1] + "…"
    return text.ljust(size) if column.kind == "text" else text.rjust(size)
