"""Summaries as a pandas frame, seeds folded into mean and standard deviation, and the settings that tell runs apart."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.report.derived import tell_apart, with_scaling
from runner.report.metrics import METRICS, top1_key
from runner.report.runs import COUNTS, Run, in_order, natural_order, shorten, unknown_name

if TYPE_CHECKING:
    import pandas as pd

OF_VIRTUAL_RUNS = ("cluster", "cost", "failures")
"""Groups that other runs do not have: null there, and the clock tells them apart."""

# Settings that show whenever they differ, and those that show only where they tell apart runs that nothing else does:
# the global batch follows from the nodes, the topology mostly from the method.
_SHOWN = (
    "experiment",
    "dataset",
    "model",
    "clock",
    *OF_VIRTUAL_RUNS,
    "gpus_per_node",
    "batch_size",
    "epochs",
    "optimizer",
    "schedule",
    "sampling",
    "batch_norm",
)
_SHOWN_IF_NEEDED = (
    *("topology", "launcher", "global_batch_size", "lr", "device", "backend", "evaluated_model"),
    "settings",  # whatever else differs from its default
)
# A method brings its topology, and the global batch its learning rate: one that was chosen by hand shows.
_USUALLY_FOLLOWS_FROM = {"topology": ["method"], "lr": ["method", "global_batch_size"], "settings": ["method"]}
SETTINGS = (
    *("method", "algorithm", "variant", "nodes", "workers", "seed", "identity"),
    *(*_SHOWN, *_SHOWN_IF_NEEDED),
    *("problem", "time_as_for", "scale"),
)
"""Of any run, what can make a row or a line."""
_NO_ROW_KEY = {"status", "group", "seed", "identity", "staleness", *METRICS}


def summaries(runs: Iterable[Run]) -> "pd.DataFrame":
    """One row per finished run, one column per key of any summary; object columns, None where a run has no such key.

    Variants of an algorithm name the same settings; what all `settings` have in common stands in `shared_settings`;
    `speedup` and the like are beside what was measured.

    Raises LookupError where no run is finished.
    """
    import pandas as pd

    rows = tell_apart(run.values for run in runs if run.summary is not None)
    if not rows:
        raise LookupError("none of the runs has finished; `experiments list` shows where they are")
    keys = list(
        dict.fromkeys(
            key for row in rows for key in (*row, *_SHOWN, "nodes", "workers", "seed", "evaluated_model", "top1")
        )
    )
    # An object array from the start: pandas would turn None into NaN, and a loss that is NaN is no missing one.
    frame = pd.DataFrame({key: pd.Series([row.get(key) for row in rows], dtype=object) for key in keys})
    return with_scaling(frame, ("method", "topology", "settings", *_SHOWN))


def refuse_mixtures(frame: "pd.DataFrame", besides: Iterable[str] = ()) -> None:
    """
    Raises:
        ValueError: the runs are of several clocks, or of several scales of a paper's studies.
    """
    for key in (key for key in ("clock", "scale") if key not in besides):
        values = sorted(value for value in frame[key].dropna().unique())
        if len(values) > 1:
            raise ValueError(
                f"these runs have a {key} of {' and '.join(values)}, which say little side by side: narrow them down "
                f"with --where {key}={values[0]}, or ask for all with --mixed"
            )


def with_time_to(frame: "pd.DataFrame", runs: Iterable[Run], top1: float) -> tuple["pd.DataFrame", list[str]]:
    """The frame of these runs with `time_to_target_s`, the seconds of training until that top-1 was first seen.

    And what could not be read: such runs have no time.
    """
    import pandas as pd

    from runner.report.curves import time_to, top1_curve

    curves = [([], None) if run.timing_only else top1_curve(run) for run in runs if run.summary is not None]
    times = pd.Series([time_to(curve, top1) for curve, _ in curves], index=frame.index, dtype=object)
    return frame.assign(time_to_target_s=times), [problem for _, problem in curves if problem]


def fold(frame: "pd.DataFrame", by: Sequence[str], values: Sequence[str]) -> "pd.DataFrame":
    """Fold the runs that agree in `by` into a row: `by`, `runs`, and per value `_mean`, `_std`, `_low`, `_high`, `_n`.

    The standard deviation is the sample's (n - 1), None for n = 1. A missing value (None) is left out, a NaN makes the
    mean NaN: a run that diverged must not vanish. Rows are in the natural order of `by`.
    """
    import pandas as pd

    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, key in enumerate(frame[list(by)].itertuples(index=False, name=None)):
        groups.setdefault(key, []).append(position)
    rows = []
    for key in in_order(groups):
        row: dict[str, Any] = dict(zip(by, key, strict=True)) | {"runs": len(groups[key])}
        for value in values:
            present = [float(x) for x in frame[value].iloc[groups[key]] if x is not None]
            row[f"{value}_mean"], row[f"{value}_std"] = mean_and_std(present)
            row[f"{value}_low"], row[f"{value}_high"] = min(present, default=None), max(present, default=None)
            row[f"{value}_n"] = len(present)
        rows.append(row)
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in rows[0]})


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None for the mean of nothing and for the deviation of one value."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def row_keys(frame: "pd.DataFrame", first: Sequence[str] = ("method", "workers")) -> list[str]:
    """The keys that make a row when none are asked for: `first`, and every other setting in which the runs differ."""
    keys = [*first, *(key for key in _SHOWN if key not in first and differs(frame, key))]
    if "nodes" not in keys and differs(frame, "nodes") and not frame["nodes"].equals(frame["workers"]):
        keys.append("nodes")
    for key in _SHOWN_IF_NEEDED:
        if tells_apart(frame, key, _USUALLY_FOLLOWS_FROM.get(key, keys)):
            keys.append(key)
    return keys


def tells_apart(frame: "pd.DataFrame", key: str, keys: Sequence[str]) -> bool:
    """Whether some runs agree in all of `keys` and differ in `key`."""
    return key in frame and len(frame[[*keys, key]].drop_duplicates()) > len(frame[list(keys)].drop_duplicates())


def timed_apart(frame: "pd.DataFrame", keys: Sequence[str]) -> list[str]:
    """`keys`, and what tells times apart that are never averaged: scale, clock, what it tells the time of."""
    keys = [*keys, *(key for key in ("scale", "clock") if key not in keys and differs(frame, key))]
    if "time_as_for" not in keys and tells_apart(frame, "time_as_for", keys):
        keys = [*keys, "time_as_for"]
    return list(keys)


def shown_top1(runs: Iterable[Mapping[Any, Any]]) -> str:
    """Which key holds the top-1 that tables show: that of the one model that all runs were evaluated by, or `top1`."""
    models = evaluated(runs)
    return "top1" if len(models) > 1 else top1_key(models[0] if models else None)


def evaluated(runs: Iterable[Mapping[Any, Any]]) -> list[str]:
    """The models by which the runs were evaluated: `mean`, `centre` or both; none where there is no accuracy."""
    return sorted({run["evaluated_model"] for run in runs if run.get("top1") is not None}, reverse=True)


def evaluated_apart(frame: "pd.DataFrame", keys: Sequence[str], values: Sequence[str]) -> list[str]:
    """`keys`, and the model where several are behind the top-1 or error among the values: these are never averaged."""
    mixed = (
        not {"top1", "error"}.isdisjoint(values)
        and "evaluated_model" not in keys
        and len(evaluated(frame.to_dict("records"))) > 1
    )
    return [*keys, "evaluated_model"] if mixed else list(keys)


def differs(frame: "pd.DataFrame", key: str) -> bool:
    """Whether the runs differ in `key`."""
    return key in frame and frame[key].nunique(dropna=key in OF_VIRTUAL_RUNS) > 1


def check_keys(option: str, keys: Sequence[str], frame: "pd.DataFrame") -> None:
    """Raise ValueError unless every key is a setting of these runs."""
    allowed = [str(key) for key in frame if key not in _NO_ROW_KEY] + ["seed", "identity"]
    for key in keys:
        if key not in allowed:
            raise unknown_name(option, key, allowed)


def check_values(option: str, values: Sequence[str], frame: "pd.DataFrame") -> None:
    """Raise ValueError unless every value is a number that these runs measured."""
    others = [str(key) for key in frame if key not in (*METRICS, *COUNTS, "epochs") and _holds_numbers(frame[key])]
    allowed = [key for key in METRICS if key in frame] + others
    for value in values:
        if value not in allowed:
            raise unknown_name(option, value, allowed)


def setting_sentence(frame: "pd.DataFrame", besides: Iterable[str] = ()) -> str:
    """The setting that the runs share, without the keys in `besides`: `digits, mlp, 4 nodes, ..., wall clock`.

    A setting in which they differ is named with all its values.
    """
    besides = set(besides)
    parts = []
    for key, form in (
        ("experiment", "experiment {}"),
        ("dataset", "{}"),
        ("model", "{}"),
        ("nodes", "{} node(s)"),
        ("gpus_per_node", "{} process(es) per node"),
        ("batch_size", "batch {} per process"),
        ("global_batch_size", "{} in all"),
        ("epochs", "{} epoch(s)"),
        ("batch_norm", "batch norm statistics: {}"),
        ("launcher", "{} launcher"),
        ("clock", "{} clock"),
        ("cluster", "cluster {}"),
        ("cost", "cost {}"),
        ("failures", "failures {}"),
        ("shared_settings", "{}"),
        ("settings", "{}"),
    ):
        if key in besides or key not in frame:
            continue
        values = sorted(frame[key].dropna().unique(), key=natural_order)
        if values in ([""], ["none"]):
            continue
        if values and not (key in ("nodes", "global_batch_size", "settings") and len(values) > 1):  # columns show them
            text = form.format(shorten([f"{v:g}" if isinstance(v, float) else v for v in values]))
            parts.append(re.sub(r"\((e?s)\)", "" if values == [1] else r"\1", text))
    return ", ".join(parts)


def time_notes(runs: Iterable[Mapping[Any, Any]]) -> list[str]:
    """What the virtual clock tells the time of, where that is not what was trained.

    >>> time_notes([{"clock": "virtual", "cluster": "10gbe", "time_as_for": "ResNet-50", "model": "mlp"}])
    ['Time as for ResNet-50 on cluster 10gbe, no accuracy.']
    """
    told: dict[tuple[str, str], set[str]] = {}
    others = False
    for run in runs:
        of, dataset = run.get("time_as_for"), run.get("dataset")
        if run.get("clock") == "virtual" and (of or not dataset):
            accuracy = f"accuracy of {run.get('model')} on {dataset}" if dataset else "no accuracy"
            told.setdefault((of or "the cost given", accuracy), set()).add(str(run.get("cluster")))
        else:
            others = True
    notes = [
        f"Time as for {of} on cluster {' or '.join(sorted(clusters))}, {accuracy}."
        for (of, accuracy), clusters in sorted(told.items())
    ]
    return [*notes, "Other times are of what was trained."] if notes and others else notes


def cells_note(frame: "pd.DataFrame", by: Sequence[str]) -> list[str]:
    """Warn of cells that stand side by side and differ in more than what the table is about."""
    mixed = [key for key in _SHOWN if key not in by and differs(frame, key)]
    return [f"Caution: the cells differ in {shorten(mixed)} too; narrow them down with --where."] if mixed else []


def seeds_note(frame: "pd.DataFrame", by: Sequence[str]) -> list[str]:
    """Warn of rows that fold more than seeds: settings that differ inside a row, a seed that occurs twice in one."""
    groups = [group for _, group in frame.groupby(list(by), dropna=False, sort=False)]
    candidates = ("method", "topology", *_SHOWN, "settings", "lr", "nodes", "workers")
    mixed = [key for key in candidates if key not in by and any(differs(group, key) for group in groups)]
    if mixed:
        return [f"Caution: some means are over runs that differ in {shorten(mixed)}, not only in the seed."]
    if any(group["seed"].duplicated().any() for group in groups):
        return [
            "Caution: some means hold a seed twice; their runs differ in a setting that no summary names. "
            "Narrow them down by experiment or --where."
        ]
    return []


def _holds_numbers(column: "pd.Series[Any]") -> bool:
    present = [value for value in column if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
