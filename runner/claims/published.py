"""Published values beside measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.claims import sgp
from runner.claims.evidence import Evidence, MissingRunsError
from runner.report.formats import Cell, Column, Table
from runner.report.published import SHOWN, rows


def beside_measured(paper: str, scale: str, places: Sequence[Path]) -> Table | None:
    """The paper's numbers, and what its runs at that scale say; None where no number of it is known."""
    if paper != "sgp":
        return None
    evidence = Evidence.of(f"{paper}/{scale}", places)
    body = [_of_sgp(row, evidence) for row in rows("sgp")]
    body += [_of_slowmo(row, evidence) for row in rows("slowmo") if row["dataset"] == "ImageNet"]
    columns = [
        Column("what", "what", wraps=True),
        Column("published", "published"),
        Column("measured", "measured"),
        Column("difference", "difference"),
        Column("source", "source", wraps=True),
    ]
    notes = [
        "Measured times: 10 Gbit/s Ethernet, ideal links, no overlap with the backward pass, as for ResNet-50 on V100.",
        "Measured accuracies are of another task and network, so that no difference is taken.",
        "† from secondary notes.",
    ]
    return Table("", columns, [[Cell(text) for text in line] for line in body], notes)


def _of_sgp(row: dict[str, str], evidence: Evidence) -> list[str]:
    measured, difference = _measured(row, evidence)
    if row["relation"] in ("over", "at most", "up to"):  # a bound, and nothing to differ from
        difference = "–"
    relation = "" if row["relation"] == "equal" else f"{row['relation']} "
    unit = {"hour": "h", "percent": "%", "percentage point": "points", "ratio": "times"}[row["unit"]]
    nodes = f", {row['nodes']} nodes" if row["nodes"] else ""
    what = f"{row['metric'].replace('_', ' ').replace('top1', 'top-1')}, {row['algorithm']}{nodes}"
    published = f"{relation}{row['value']} {unit}{SHOWN[row['mark']]}"
    return [what, published, measured, difference, f"{row['version']}: {row['source']}"]


def _measured(row: dict[str, str], evidence: Evidence) -> tuple[str, str]:
    """What the runs say of a row of sgp.csv, and by how much that differs."""
    value = float(row["value"])
    try:
        if row["metric"] == "training_time" and row["algorithm"] in ("sgp", "allreduce"):
            epoch_s = sgp.timing(evidence, row["algorithm"], int(row["nodes"]), "epoch_time_s").mean
            hours = float(row["epochs"]) * epoch_s / 3600
            return f"{hours:.2f} h", f"{100 * (hours / value - 1):+.0f} %"
        if row["metric"] == "speedup":
            ratio = (sgp.timing(evidence, "allreduce", 32) / sgp.timing(evidence, "sgp", 32)).mean
            return f"{ratio:.2f} times", f"{100 * (ratio / value - 1):+.0f} %"
        if row["metric"] == "scaling_efficiency":
            kept = 100 * (sgp.timing(evidence, "sgp", 4) / sgp.timing(evidence, "sgp", 32)).mean
            return f"{kept:.1f} %", f"{kept - value:+.1f} points"
        if row["metric"] == "top1_gap":
            told = []
            for nodes in row["nodes"].split(" to "):
                gap, low, high, _ = sgp.gap(evidence, int(nodes))
                told.append(f"{-gap:.2f} points ({-high:.2f} to {-low:.2f}) on {nodes} nodes")
            return "; ".join(told), "–"
    except (MissingRunsError, ValueError):
        return "not run", "–"
    return "–", "–"


def _of_slowmo(row: dict[str, str], evidence: Evidence) -> list[str]:
    algorithm = {"osgp": "sgp"}.get(row["algorithm"], row["algorithm"])
    published = float(row["ms_per_iteration"])
    measured, difference = "not run", "–"
    try:
        overlap: dict[str, Any] = {"algorithm__overlap": 1} if row["algorithm"] == "osgp" else {}
        milliseconds = 1000 * sgp.timing(evidence, algorithm, int(row["nodes"]), **overlap).mean
        measured, difference = f"{milliseconds:.0f} ms", f"{100 * (milliseconds / published - 1):+.0f} %"
        if row["algorithm"] == "osgp":  # where cost=resnet50_v100 has its time of a gradient from
            difference = "the clock is calibrated on it"
    except (MissingRunsError, ValueError):
        pass
    what = f"time per iteration, {row['algorithm']}, {row['nodes']} nodes"
    return [what, f"{published:.0f} ms{SHOWN[row['mark']]}", measured, difference, row["source"]]
