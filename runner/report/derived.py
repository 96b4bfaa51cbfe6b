"""What follows from several runs together: names that tell them apart, shared settings, speed-up and efficiency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from runner.identity import as_typed, ledger

if TYPE_CHECKING:
    import pandas as pd

_FOLLOWS_FROM_SIZE = {"nodes", "workers", "batch_size", "global_batch_size", "lr", "seed", "gpus_per_node"}


def tell_apart(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What runs say of themselves, as tables and figures have it: see `name_alike` and `share_settings`."""
    return name_alike(share_settings(runs))


def name_alike(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their `method` naming each setting that another variant of the algorithm names.

    A method names only what differs from its defaults: beside `hier_avg (K2=32, S=4)`, `hier_avg (S=4)` is
    `hier_avg (K2=8, S=4)`. One that names nothing is the plain form, and stays so.
    """
    rows = list(rows)
    keys = [(str(row.get("algorithm")), row.get("variant") or "") for row in rows]
    variants = {key: _named(key[1]) for key in dict.fromkeys(keys) if key[1]}  # each once: there are few
    named: dict[str, set[str]] = defaultdict(set)
    for (algorithm, _), variant in variants.items():
        named[algorithm].update(variant)
    methods = {key: _method(key[0], variant, named[key[0]]) for key, variant in variants.items()}
    return [row | ({"method": methods[key]} if key in methods else {}) for row, key in zip(rows, keys, strict=True)]


def _named(variant: str) -> dict[str, str]:
    """Setting -> value, of "K2=32, S=4"."""
    parts = (part.partition("=") for part in variant.split(", ") if part)
    return {name: value for name, _, value in parts}


def _method(algorithm: str, variant: dict[str, str], named: set[str]) -> str:
    known = ledger().get(f"algorithm/{algorithm}", {})
    defaults = {key: as_typed(value) for key, value in known.items() if value is not None}  # null says nothing
    settings = {key: value for key, value in (defaults | variant).items() if key in variant or key in named}
    return f"{algorithm} ({', '.join(f'{key}={value}' for key, value in settings.items())})"


def share_settings(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with what all their `settings` have in common moved to `shared_settings`.

    >>> share_settings([{"settings": "epochs=2, k=1"}, {"settings": "epochs=2"}])[0]
    {'settings': 'k=1', 'shared_settings': 'epochs=2'}
    """
    rows = list(rows)
    parts = [str(row.get("settings") or "").split(", ") for row in rows]
    shared = set(parts[0]).intersection(*parts[1:]) if parts else set()
    common = {"shared_settings": ", ".join(part for part in parts[0] if part in shared)} if parts else {}
    return [
        row | {"settings": ", ".join(part for part in mine if part not in shared)} | common
        for row, mine in zip(rows, parts, strict=True)
    ]


def with_scaling(frame: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """The frame with throughput, and with what that is of the same method's with the fewest workers.

    Args:
        settings: keys in which runs of one series agree, whatever their size.
    """
    rows = frame.to_dict("records")
    keys = [key for key in settings if key in frame and key not in _FOLLOWS_FROM_SIZE]
    series: dict[tuple[Any, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    rates: list[float | None] = []
    for row in rows:
        seconds, samples = row.get("iteration_time_s"), row.get("global_batch_size")
        rates.append(samples / seconds if seconds and samples and row.get("workers") else None)
        if rates[-1] is not None:
            series[tuple(row[key] for key in keys)][int(row["workers"])].append(rates[-1])
    speedups: list[float | None] = []
    efficiencies: list[float | None] = []
    for row, rate in zip(rows, rates, strict=True):
        speedup = efficiency = None
        if rate is not None:
            by_workers = series[tuple(row[key] for key in keys)]
            if len(by_workers) > 1:  # with one size there is nothing to hold it against
                fewest = min(by_workers)
                speedup = rate * len(by_workers[fewest]) / sum(by_workers[fewest])
                efficiency = speedup * fewest / row["workers"]
        speedups.append(speedup)
        efficiencies.append(efficiency)
    return frame.assign(
        **{
            name: _objects(values, frame)
            for name, values in (
                ("samples_per_s", rates),
                ("speedup", speedups),
                ("scaling_efficiency", efficiencies),
            )
        }
    )


def _objects(values: Sequence[Any], frame: pd.DataFrame) -> pd.Series[Any]:
    import pandas as pd

    return pd.Series(values, index=frame.index, dtype=object)  # None stays None
