"""The tables: one row a run, one row a method with its seeds folded, or two settings against each other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runner.report.formats import Cell, Column, Table
from runner.report.metrics import DEFAULT_METRICS, EVALUATED, header_of, metric_of
from runner.report.runs import Run, natural_order

if TYPE_CHECKING:
    import pandas as pd


_TOP1 = {"top1": 3, "top1_mean_model": 3, "top1_workers_mean": 3, "top1_centre": 3, "evaluated_model": 3}
_SPARE = {"method": 2, "workers": 2, "seed": 3, **_TOP1, "model": 5, "dataset": 6, "epoch_time_s": 6}
"""Which columns a list of runs can do without on a narrow terminal: the highest first."""
_TOLD_ANYWAY = ("identity", "variant", "evaluated_model")
"""In columns that a list always has, or by other rules."""


def run_list(runs: Sequence[Run]) -> Table:
    """One row a run, finished or not, with the first line of the reason why one has stopped."""
    from runner.report import derived, frames

    shown = sorted(
        (run for run in runs if run.readable),
        key=lambda run: [
            natural_order(x) for x in (run.group, *map(run.values.get, ("method", "workers", "seed")), run.identity)
        ],
    )
    finished = [run for run in shown if run.summary is not None]
    told = iter(derived.share_settings(run.values for run in finished))
    values = [run.values if run.summary is None else next(told) for run in shown]
    settings = ["workers", "dataset", "model", "seed"]
    if any(run.values["method"] not in (run.group, "?") for run in shown):
        settings.insert(0, "method")
    clocks = {run.values.get("clock") for run in finished}
    if len(clocks) > 1:
        settings.append("clock")
    settings += [key for key in frames.OF_VIRTUAL_RUNS if len({run.values.get(key) for run in shown} - {None}) > 1]
    if any(row.get("settings") for row in values):
        settings.append("settings")
    for key in frames.SETTINGS:
        if key not in (*settings, *_TOLD_ANYWAY) and _tells_apart(key, settings, values):
            settings.append(key)
    top1 = frames.shown_top1(values)
    if top1 == "top1":
        settings.append("evaluated_model")
    columns = [
        Column("status", "status"),
        Column("group", "experiment", spare=1),
        Column("identity", "identity"),
        *(
            Column(key, header_of(key), _kind(row.get(key) for row in values), spare=_SPARE.get(key, 4))
            for key in settings
        ),
        *(Column(key, metric_of(key).header, metric_of(key).kind, spare=_SPARE[key]) for key in (top1, "epoch_time_s")),
        Column("updated", "when", spare=7),
    ]
    rows = [
        [
            *(Cell(row.get(column.key)) for column in columns[:-1]),
            Cell(_when(run.state.get("updated"))),
            Cell((str(run.state.get("reason") or "").strip().splitlines() or [""])[0]),
        ]
        for run, row in zip(shown, values, strict=True)
    ]
    if any(row[-1].value for row in rows):
        columns.append(Column("reason", "reason", wraps=True))
    else:
        rows = [row[:-1] for row in rows]
    notes = [f"Times on the {clock} clock." for clock in clocks if len(clocks) == 1 and clock]
    return Table("", columns, rows, [*notes, *frames.time_notes(run.values for run in shown)])


def _tells_apart(key: str, keys: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some of the rows that have it agree in the experiment and all of `keys`, and differ in `key`."""
    found = {(tuple(map(row.get, ("group", *keys))), row[key]) for row in rows if row.get(key) is not None}
    return len(found) > len({others for others, _ in found})


def comparison(frame: "pd.DataFrame", by: Sequence[str] | None = None, values: Sequence[str] | None = None) -> Table:
    """One row per method and differing setting, or per combination of `by`; the seeds folded into mean ± std.

    Raises ValueError for a key or value that these runs do not have.
    """
    from runner.report import frames

    frames.check_keys("--by", by or (), frame)
    frames.check_values("--values", values or (), frame)
    values = list(values or _default_metrics(frame))
    keys = frames.evaluated_apart(frame, frames.timed_apart(frame, by or frames.row_keys(frame)), values)
    folded = frames.fold(frame, keys, values)
    columns = [
        *(Column(key, header_of(key), _kind(frame[key])) for key in keys),
        Column("runs", "n", "count"),
        *(Column(value, metric_of(value).header, metric_of(value).kind, measured=True) for value in values),
    ]
    records = folded.to_dict("records")
    rows = [
        [*(Cell(row[key]) for key in keys), Cell(row["runs"]), *(_measured(row, value) for value in values)]
        for row in records
    ]
    notes = _notes(frame, keys, values, rows)
    fewer = [metric_of(value).header for value in values if any(0 < row[f"{value}_n"] < row["runs"] for row in records)]
    if fewer:
        notes.append(f"Of fewer runs than n, because some have none: {', '.join(fewer)}.")
    return Table(frames.setting_sentence(frame, keys), columns, rows, notes)


def pivot(frame: "pd.DataFrame", rows: str, columns: str, values: Sequence[str] | None = None) -> Table:
    """The settings `rows` down, `columns` across, one column per setting and value; errors as `comparison`."""
    from runner.report import frames

    frames.check_keys("--rows", [rows], frame)
    frames.check_keys("--columns", [columns], frame)
    frames.check_values("--values", values or (), frame)
    if rows == columns:
        raise ValueError(f"--rows and --columns are both {rows}; name two different settings")
    values = list(values or _default_metrics(frame)[:1])
    asked = frames.evaluated_apart(frame, [rows, columns], values)
    models = _models_across(frame, columns) if len(asked) > 2 else {}
    if models:  # each column has its own model, and says so
        asked.remove("evaluated_model")
    row_keys = [key for key in frames.timed_apart(frame, asked) if key != columns]
    folded = frames.fold(frame, [*row_keys, columns], values).to_dict("records")
    across = sorted({row[columns] for row in folded}, key=natural_order)
    cells = {
        (*(row[key] for key in row_keys), row[columns], value): _measured(row, value)
        for row in folded
        for value in values
    }
    down = list(dict.fromkeys(tuple(row[key] for key in row_keys) for row in folded))
    only = f": {metric_of(values[0]).header}" if len(values) == 1 else ""
    heads = [
        *(Column(key, header_of(key), _kind(frame[key])) for key in row_keys),
        *(
            Column(
                f"{value}[{columns}={there}]",
                f"{header_of(columns)} {there}{models.get(there, '')}"
                + ("" if only else f": {metric_of(value).header}"),
                metric_of(value).kind,
                measured=True,
            )
            for there in across
            for value in values
        ),
    ]
    body = [
        [*map(Cell, key), *(cells.get((*key, there, value), Cell(None, n=0)) for there in across for value in values)]
        for key in down
    ]
    title = f"{header_of(rows)} by {header_of(columns)}{only}. {frames.setting_sentence(frame, [*row_keys, columns])}"
    counts = sorted({row["runs"] for row in folded})
    notes = [f"n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} per cell."]
    notes += frames.cells_note(frame, [*row_keys, columns])
    return Table(title, heads, body, [*notes, *_notes(frame, [*row_keys, columns], values, body)])


def left_out(runs: Sequence[Run]) -> str | None:
    """How many runs a table or figure leaves out and why; None where it is none."""
    counts = Counter(
        "being prepared" if run.status == "unknown" else run.status
        for run in runs
        if run.summary is None and run.status != "foreign"
    )
    return (
        f"Left out: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}." if counts else None
    )


def target_note(top1: float) -> str:
    return (
        f"Target: a top-1 of {100 * top1:g} %, as evaluations first show it; never: a run behind it did not get there."
    )


def _notes(frame: "pd.DataFrame", keys: Sequence[str], values: Sequence[str], rows: list[list[Cell]]) -> list[str]:
    from runner.report import frames

    notes = frames.seeds_note(frame, keys)
    if any(cell.std is not None for row in rows for cell in row):
        notes.append("± is the sample standard deviation over n runs.")
    if any(value.endswith("_share") for value in values):
        notes.append(
            "Compute, wait (for communication, at the end for the last worker) and data (waiting for it): percent of a "
            "worker's training time."
        )
    if "speedup" in values or "scaling_efficiency" in values:
        notes.append(
            "Speed-up and scaling efficiency: in samples per second, over the same method's fewest workers here."
        )
    if "staleness_mean" in values:
        notes.append("Staleness: by how many steps or updates what was merged lagged behind, in the mean.")
    if "bytes_sent" in values:
        inside = any((gpus or 1) > 1 for gpus in frame["gpus_per_node"])
        notes.append(f"Sent: payload over the whole run{', inside nodes too' if inside else ''}.")
    return [*notes, *frames.time_notes(frame.to_dict("records"))]


def _models_across(frame: "pd.DataFrame", columns: str) -> dict[Any, str]:
    """By column, the model behind its accuracies; nothing where a column has several."""
    from runner.report import frames

    models = {
        there: frames.evaluated(frame[frame[columns] == there].to_dict("records"))
        for there in frame[columns].dropna().unique()
    }
    if any(len(each) > 1 for each in models.values()):
        return {}
    return {there: f" ({EVALUATED[each[0]]})" for there, each in models.items() if each}


def _default_metrics(frame: "pd.DataFrame") -> list[str]:
    """What to show when nothing is asked for: timing has no accuracy, and most methods no staleness."""
    from runner.report import frames

    shown = [frames.shown_top1(frame.to_dict("records")), *DEFAULT_METRICS]
    if "staleness_mean" in frame and (frame["staleness_mean"].dropna() > 0).any():
        shown.append("staleness_mean")
    return [value for value in shown if value in frame and frame[value].notna().any()]


def _measured(row: dict[Any, Any], value: str) -> Cell:
    return Cell(row[f"{value}_mean"], row[f"{value}_std"], row[f"{value}_n"])


def _kind(values: Any) -> Any:
    return (
        "count" if any(isinstance(value, int | float) and not isinstance(value, bool) for value in values) else "text"
    )


def _when(updated: Any) -> str | None:
    """`2026-01-31 12:05` in local time, from an ISO time or seconds since 1970."""
    try:
        moment = (
            datetime.fromtimestamp(updated) if isinstance(updated, int | float) else datetime.fromisoformat(updated)
        )
        return moment.astimezone().strftime("%Y-%m-%d %H:%M")
    except (TypeError, ValueError, OverflowError, OSError):
        return None
