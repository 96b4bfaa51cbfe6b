"""Staleness: how often what was merged had lagged behind by how many steps or updates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.report.runs import in_order

if TYPE_CHECKING:
    import pandas as pd


def counts_of(text: str) -> Counter[int]:
    """Counts by age.

    >>> counts_of("0:120,1:30")
    Counter({0: 120, 1: 30})
    """
    return Counter({int(age): int(count) for age, count in (part.split(":") for part in text.split(",") if part)})


def folded(frame: "pd.DataFrame", keys: Sequence[str]) -> dict[tuple[Any, ...], Counter[int]]:
    """Counts by age over the runs that agree in `keys`, in the natural order of these; only where there are some."""
    found: dict[tuple[Any, ...], Counter[int]] = {}
    for *key, text in frame[[*keys, "staleness"]].itertuples(index=False, name=None):
        found.setdefault(tuple(key), Counter()).update(counts_of(text or ""))
    return {key: found[key] for key in in_order(found) if found[key]}


def mean(counts: Mapping[int, int]) -> float:
    """The mean age.

    >>> mean({0: 3, 4: 1})
    1.0
    """
    return sum(age * count for age, count in counts.items()) / sum(counts.values())
