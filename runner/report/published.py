"""Published values, as data: results/published/*.csv. What is only recalled is never shown as published."""

from __future__ import annotations

import csv

from runner.config import conf_dir
from runner.report.figures import Mark

FOLDERS = (conf_dir().with_name("published"), conf_dir().parent / "results/published")
"""Where they are, of an installed package and of a checkout."""
SHOWN = {"text": "", "code": " (authors' code)", "second": " †"}
"""How each mark stands beside its value; rows with another mark are left out."""


def rows(name: str) -> list[dict[str, str]]:
    """Of results/published/<name>.csv that may be shown; none where there is no such file."""
    path = next(folder for folder in FOLDERS if folder.is_dir()) / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["mark"] in SHOWN]


def times_by_nodes(name: str) -> list[Mark]:
    """Times per iteration on ImageNet, for a figure."""
    return [
        Mark(
            {"osgp": "sgp (overlap=1)"}.get(row["algorithm"], row["algorithm"]),
            int(row["nodes"]),
            float(row["ms_per_iteration"]) / 1000,
            row["source"].partition(" (")[0] + SHOWN[row["mark"]],
        )
        for row in rows(name)
        if row["dataset"] == "ImageNet" and row["ms_per_iteration"]
    ]
