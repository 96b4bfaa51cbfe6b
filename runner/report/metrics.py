"""What can be reported of a run: settings, measured values, and how each is written."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "count", "accuracy", "share", "seconds", "milliseconds", "bytes", "number"]


@dataclass(frozen=True)
class Metric:
    """A measured value: its header, with the unit it is shown in, and its kind."""

    header: str
    kind: Kind


METRICS = {
    "top1": Metric("top-1 (%)", "accuracy"),  # of whichever model is the run's own to be evaluated
    "top1_mean_model": Metric("top-1, mean model (%)", "accuracy"),
    "top1_workers_mean": Metric("top-1, workers' mean (%)", "accuracy"),
    "top1_workers_std": Metric("top-1, std over workers (%)", "accuracy"),
    "top1_centre": Metric("top-1, centre (%)", "accuracy"),
    "loss_mean_model": Metric("loss, mean model", "number"),
    "loss_workers_mean": Metric("loss, workers' mean", "number"),
    "consensus_distance": Metric("consensus distance", "number"),
    "consensus_distance_max": Metric("largest consensus distance", "number"),
    "epoch_time_s": Metric("epoch time (s)", "seconds"),
    "training_time_s": Metric("training time (s)", "seconds"),
    "iteration_time_s": Metric("time per iteration (ms)", "milliseconds"),
    "time_to_target_s": Metric("time to target (s)", "seconds"),  # see --target
    "samples_per_s": Metric("samples per second", "number"),
    "speedup": Metric("speed-up", "number"),  # in samples per second, over the fewest workers of the same method
    "scaling_efficiency": Metric("scaling efficiency (%)", "share"),
    "iterations": Metric("iterations", "count"),
    "compute_share": Metric("compute (%)", "share"),
    "wait_share": Metric("wait (%)", "share"),
    "data_share": Metric("data (%)", "share"),
    "compute_s": Metric("compute (s)", "seconds"),
    "wait_s": Metric("wait (s)", "seconds"),
    "data_s": Metric("data (s)", "seconds"),
    "bytes_sent": Metric("sent per worker", "bytes"),
    "staleness_mean": Metric("staleness", "number"),
    "restarts": Metric("restarts", "count"),
}
DEFAULT_METRICS = ("epoch_time_s", "compute_share", "wait_share", "data_share", "bytes_sent")
"""Beside the accuracy, and the staleness where any run has some."""

EVALUATED = {"mean": "mean model", "workers": "workers' mean", "centre": "centre"}
"""The models whose accuracy a run may be known by (`evaluated_model` of its summary), for people."""

HEADERS = {
    "gpus_per_node": "processes per node",
    "batch_size": "batch per process",
    "global_batch_size": "global batch",
    "evaluated_model": "top-1 of",
}


def top1_key(evaluated_model: str | None) -> str:
    """Where summaries and evaluations hold a run's own top-1."""
    return {"centre": "top1_centre", "workers": "top1_workers_mean"}.get(evaluated_model or "", "top1_mean_model")


def metric_of(key: str) -> Metric:
    """The metric called `key`; a value that only some algorithm writes into its summary is a plain number."""
    return METRICS.get(key) or Metric(key.replace("_", " "), "number")


def header_of(setting: str) -> str:
    """The header of a setting's column."""
    return HEADERS.get(setting, setting.replace("_", " "))


def written(value: float | str | None, std: float | None, kind: Kind) -> str:
    """`mean ± std` in the unit of `kind`; without `± std` where that is missing or says little (shares, bytes, counts).

    >>> written(0.97224, 0.0028, "accuracy"), written(0.75, None, "share"), written(12_500_000, None, "bytes")
    ('97.22 ± 0.28', '75.0', '12.5 MB')
    """
    if value is None:
        return "–"
    if isinstance(value, str) or kind == "text":
        return str(value)
    if value == math.inf and kind == "seconds":
        return "never"
    if kind == "bytes":
        return bytes_written(value)
    if kind == "count":
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if kind == "share":
        return f"{value * 100:.1f}"
    scale = {"accuracy": 100, "milliseconds": 1000}.get(kind, 1)
    form = ".2f" if kind == "accuracy" else ".2e" if 0 < abs(value * scale) < 1e-3 else f".{_places(value * scale)}f"
    return f"{value * scale:{form}}" + (f" ± {std * scale:{form}}" if std is not None else "")


def bytes_written(count: float) -> str:
    """A number of bytes with three digits and a decimal unit: 512 B, 4.1 kB, 3.28 GB."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while abs(count) >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def duration(seconds: float) -> str:
    """A time as people read it, in the unit that suits it.

    >>> duration(0.0123), duration(43.45), duration(5000), duration(36000)
    ('0.0123 s', '43.5 s', '83.3 min', '10.0 h')
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _places(value: float) -> int:
    """Decimal places that leave three significant digits."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 2
