"""Evaluation curves: as one CSV, and folded over seeds for the figures."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.report.derived import tell_apart
from runner.report.metrics import top1_key
from runner.report.runs import Run, in_order, read_evaluations

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_THE_RUN = (
    *(
        "identity",
        "experiment",
        "algorithm",
        "variant",
        "topology",
        "dataset",
        "model",
        "launcher",
        "nodes",
        "gpus_per_node",
    ),
    *("workers", "batch_size", "global_batch_size", "seed", "cluster", "cost", "failures", "time_as_for"),
    "evaluated_model",
)
_OF_THE_EVALUATION = (
    *(
        "epoch",
        "step",
        "samples",
        "clock",
        "time_s",
        "top1_mean_model",
        "top1_workers_mean",
        "top1_workers_std",
        "top1_centre",
    ),
    *("loss_mean_model", "consensus_distance", "consensus_distance_max"),
)


@dataclass(frozen=True)
class Curve:
    """The curve of runs that agree in `key`, on their common epochs: arrays of one length, NaN where a run was not."""

    key: tuple[Any, ...]
    epoch: "NDArray[Any]"
    time_s: "NDArray[Any]"  # mean over the runs
    mean: "NDArray[Any]"
    low: "NDArray[Any]"
    high: "NDArray[Any]"
    runs: int
    diverged: int  # runs with a value that is not finite


def csv_of(runs: Sequence[Run]) -> tuple[str, list[str]]:
    """Return a CSV with one row per finished run and evaluation, and what could not be read.

    Raises LookupError where no run has an evaluation.
    """
    evaluated, problems = _evaluated(runs)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_OF_THE_RUN, *_OF_THE_EVALUATION])
    for run, rows in evaluated:
        who = [run.values.get(key) for key in _OF_THE_RUN]
        writer.writerows([*who, *map(row.get, _OF_THE_EVALUATION)] for row in rows)
    return out.getvalue(), problems


def folded_curves(runs: Sequence[Run], by: Sequence[str], value: str) -> tuple[list[Curve], list[str]]:
    """Fold the curves of `value` over the runs that agree in `by`; also return what could not be read.

    Curves are interpolated linearly on the union of the runs' epochs, as far as all of them reach.
    Raises LookupError where there is no curve.
    """
    evaluated, problems = _evaluated(runs)
    trained = [run for run in runs if run.summary is not None and not run.timing_only]
    told = tell_apart(run.values for run in trained)  # as tables and labels have them
    known = {run.folder: values for run, values in zip(trained, told, strict=True)}
    groups: dict[tuple[Any, ...], list[list[dict[str, Any]]]] = {}
    for run, rows in evaluated:
        if all(row.get(value) is None for row in rows):
            problems.append(f"{run.folder / 'evaluations.jsonl'}: no {value} in it")
        else:
            groups.setdefault(tuple(known[run.folder].get(key) for key in by), []).append(rows)
    if not groups:
        raise LookupError(f"no finished run has recorded {value}")
    return [_fold(key, groups[key], value) for key in in_order(groups)], problems


Heights = Sequence[tuple[float, float]]
"""(seconds of training, top-1) of a run's evaluations."""


def top1_curve(run: Run) -> tuple[Heights, str | None]:
    """Of the run's own model, of each evaluation that has both, none of a broken file; and what could not be read."""
    key = top1_key(run.values.get("evaluated_model"))
    evaluations, problem = _whole_evaluations(run)
    if problem:
        return [], problem
    rows = [(_number(row.get("time_s")), _number(row.get(key))) for row in evaluations]
    return [(seconds, value) for seconds, value in rows if not math.isnan(seconds + value)], None


def time_to(curve: Heights, top1: float) -> float | None:
    """Seconds until an evaluation first shows that top-1; inf where none does, None where there is no evaluation."""
    return next((seconds for seconds, value in curve if value >= top1), math.inf) if curve else None


def not_before(curve: Heights, top1: float) -> float | None:
    """Seconds at the last evaluation that does not show that top-1 yet; of a run that never does, its last.

    Between this and `time_to` it was reached, if ever. None where there is no evaluation.
    """
    below = itertools.takewhile(lambda row: row[1] < top1, curve)
    return max((seconds for seconds, _ in below), default=0.0) if curve else None


def mean_height(curve: Heights, part: float = 1.0) -> float | None:
    """The mean over the first `part` of training: how high the learning curve lies.

    It is straight between evaluations, and level before the first. None where there is no evaluation.
    """
    if not curve:
        return None
    end, area = part * curve[-1][0], 0.0
    for (start, low), (stop, high) in itertools.pairwise([(0.0, curve[0][1]), *curve]):
        if start < end:
            reached = min(stop, end)
            there = low + (high - low) * (reached - start) / (stop - start)
            area += (reached - start) * (low + there) / 2
    return area / end


def _fold(key: tuple[Any, ...], group: list[list[dict[str, Any]]], value: str) -> Curve:
    import numpy as np

    epochs, times, values = (
        [np.array([_number(row.get(name)) for row in rows]) for rows in group] for name in ("epoch", "time_s", value)
    )
    first, last = max(epoch[0] for epoch in epochs), min(epoch[-1] for epoch in epochs)
    grid = np.unique(np.concatenate(epochs))
    grid = grid[(grid >= first) & (grid <= last)]
    if not grid.size:
        raise LookupError(
            "runs of one line have no epoch in common: draw fewer with --where, or tell them apart with --by"
        )
    stack = np.stack([_at(grid, epoch, column) for epoch, column in zip(epochs, values, strict=True)])
    time_s = np.stack([_at(grid, epoch, column) for epoch, column in zip(epochs, times, strict=True)]).mean(axis=0)
    diverged = sum(not np.isfinite(column).all() for column in values)
    return Curve(key, grid, time_s, stack.mean(axis=0), stack.min(axis=0), stack.max(axis=0), len(group), diverged)


def _at(grid: "NDArray[Any]", epoch: "NDArray[Any]", column: "NDArray[Any]") -> "NDArray[Any]":
    """`column` on the grid; a value that is not finite stays on its epoch and the stretches that touch it."""
    import numpy as np

    return column if np.array_equal(grid, epoch) else np.interp(grid, epoch, column)


def _evaluated(runs: Sequence[Run]) -> tuple[list[tuple[Run, list[dict[str, Any]]]], list[str]]:
    found, problems = [], []
    for run in runs:
        if run.summary is not None and not run.timing_only:
            rows, problem = _whole_evaluations(run)
            for row in rows:
                row["top1"] = row.get(top1_key(run.values["evaluated_model"]))
                row["error"] = None if row["top1"] is None else 1 - row["top1"]
            found += [(run, rows)] if rows else []
            problems += [problem] if problem else []
    if not found:
        raise LookupError("no finished run has an evaluation; `experiments list` shows the runs")
    return found, problems


def _whole_evaluations(run: Run) -> tuple[list[dict[str, Any]], str | None]:
    """As `read_evaluations`; none of a file that ends before training did."""
    rows, problem = read_evaluations(run)
    epochs = run.values.get("epochs") or 0
    if rows and rows[-1]["epoch"] < epochs:
        path, ends = run.folder / "evaluations.jsonl", rows[-1]["epoch"]
        return [], f"skipped {path}: it ends at epoch {ends:g} of {epochs}; rerun=true makes it again"
    return rows, problem


def _number(value: Any) -> float:
    """A float, NaN for whatever is none or infinite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan
