"""Published values beside measured ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from runner import studies
from runner.claims import sgp
from runner.claims.evidence import SEEDS, Evidence, MissingRunsError, Values
from runner.report.formats import Cell, Column, Table
from runner.report.published import SHOWN, rows
from runner.study_runs import runs_of

DATASETS = {"CIFAR-10": "cifar10", "ImageNet": "imagenet"}
"""What papers call them, and we."""
WITH_SLOWMO = {"local_sgd": "slowmo", "sgp": "slowmo_sgp", "osgp": "slowmo_osgp"}
ON_ETHERNET = (
    "Measured times: 10 Gbit/s Ethernet, ideal links, no overlap with the backward pass, as for ResNet-50 on V100."
)
DISAGREE = (
    "The published values are of several sources, which do not agree: 90 epochs in 5 hours are 1.28 s an iteration on "
    "32 nodes, where the sister paper has 0.42 s."
)
OF_ANOTHER_TASK = "Measured accuracies are of another task and network, so that no difference is taken."


Timing = Callable[..., Values]
"""Times of the runs of (algorithm, nodes, metric="iteration_time_s", **conditions)."""


def beside_measured(paper: str, scale: str, places: Sequence[Path]) -> Table | None:
    """The paper's numbers, and what its runs at that scale say; None where no number of it is known, or none fits."""
    if paper not in ("sgp", "slowmo") or scale == "laptop":
        return None
    preset, same_task = f"{paper}/{scale}", scale == "paper"
    mine = [study for study in studies.of_paper(paper) if scale in study.lines and study.preset(scale) == preset]
    evidence = Evidence.of(preset, places, partial(runs_of, mine, scale, places))
    timing = partial(sgp.timing if (paper, scale) == ("sgp", "virtual") else _timing, evidence)
    if scale == "virtual" and paper != "sgp":
        timing = partial(timing, problem="none")
    if same_task:
        timing = partial(timing, dataset="imagenet")
    if paper == "sgp":
        body = [_of_sgp(row, evidence, timing, same_task) for row in rows("sgp")]
        for row in rows("slowmo"):
            if row["dataset"] == "ImageNet" and row["algorithm"] != "local_sgd":  # no study of this paper has it
                overlap: dict[str, Any] = {"algorithm__overlap": 1} if row["algorithm"] == "osgp" else {}
                name = "sgp" if overlap else row["algorithm"]
                body.append(_time(row, False, partial(timing, name, int(row["nodes"]), **overlap), same_task))
    else:
        body = [
            line
            for row in rows("slowmo")
            for with_it in (False, True)
            for line in _of_slowmo(row, with_it, evidence, timing, same_task)
        ]
    columns = [
        Column("what", "what", wraps=True),
        Column("published", "published"),
        Column("measured", "measured"),
        Column("difference", "difference"),
        Column("source", "source", wraps=True),
    ]
    notes = [*((ON_ETHERNET, OF_ANOTHER_TASK) if scale == "virtual" else ())]
    notes += ["† from secondary notes.", DISAGREE] if paper == "sgp" else []
    return Table("", columns, [[Cell(text) for text in line] for line in body], notes)


def _timing(evidence: Evidence, name: str, nodes: int, metric: str = "iteration_time_s", **conditions: Any) -> Values:
    overlap = {"algorithm__overlap": 0} if name == "sgp" else {}
    return evidence.measured(metric, seeds=1, algorithm=name, nodes=nodes, **overlap | conditions)


def _of_sgp(row: dict[str, str], evidence: Evidence, timing: Timing, same_task: bool) -> list[str]:
    measured, difference = _measured(row, evidence, timing, same_task)
    if row["relation"] in ("over", "at most", "up to"):  # a bound, and nothing to differ from
        difference = "–"
    relation = "" if row["relation"] == "equal" else f"{row['relation']} "
    unit = {"hour": "h", "percent": "%", "percentage point": "points", "ratio": "times"}[row["unit"]]
    nodes = f", {row['nodes']} nodes" if row["nodes"] else ""
    sides = " - ".join(reversed(row["algorithm"].split(" - ")))  # how much higher the baseline is, as claims say it
    what = f"{row['metric'].replace('_', ' ').replace('top1', 'top-1')}, {sides}{nodes}"
    published = f"{relation}{row['value']} {unit}{SHOWN[row['mark']]}"
    return [what, published, measured, difference, f"{row['version']}: {row['source']}"]


def _measured(row: dict[str, str], evidence: Evidence, timing: Timing, same_task: bool) -> tuple[str, str]:
    """What the runs say of a row of sgp.csv, and by how much that differs."""
    value = float(row["value"])
    try:
        if row["metric"] == "training_time" and row["algorithm"] in ("sgp", "allreduce"):
            epoch_s = timing(row["algorithm"], int(row["nodes"]), "epoch_time_s").mean
            hours = float(row["epochs"]) * epoch_s / 3600
            return f"{hours:.2f} h", f"{100 * (hours / value - 1):+.0f} %"
        if row["metric"] == "speedup":
            ratio = (timing("allreduce", 32) / timing("sgp", 32)).mean
            return f"{ratio:.2f} times", f"{100 * (ratio / value - 1):+.0f} %"
        if row["metric"] == "scaling_efficiency":
            kept = 100 * (timing("sgp", 4) / timing("sgp", 32)).mean
            return f"{kept:.1f} %", f"{kept - value:+.1f} points"
        if row["metric"] == "top1_gap":
            told = []
            for nodes in row["nodes"].split(" to "):
                gap = sgp.gap(evidence, int(nodes))
                told.append(f"{gap.points:.2f} points ({gap.low:.2f} to {gap.high:.2f}) on {nodes} nodes")
            return "; ".join(told), "–"
        if row["metric"] == "top1" and row["algorithm"] == "allreduce" and same_task:
            return _accuracy(evidence, value, "imagenet", algorithm="allreduce", nodes=int(row["nodes"]))
    except (MissingRunsError, ValueError):
        return "not run", "–"
    return "–", "–"


def _of_slowmo(
    row: dict[str, str], with_it: bool, evidence: Evidence, timing: Timing, same_task: bool
) -> list[list[str]]:
    """What a row of slowmo.csv says of a method with or without SlowMo: its accuracy, its time."""
    column, lines = "_slowmo" if with_it else "", []
    name, nodes = WITH_SLOWMO.get(row["algorithm"], "") if with_it else row["algorithm"], int(row["nodes"])
    if row[f"train_loss{column}"]:
        loss = f"{row[f'train_loss{column}']}{SHOWN[row['mark']]}"
        lines.append([f"training loss, {row['dataset']}, {_named(row, with_it)}", loss, "–", "–", row["source"]])
    if row[f"val{column}"]:
        top1, difference, value = "–", "–", float(row[f"val{column}"])
        if same_task and row["dataset"] in DATASETS:
            top1, difference = _accuracy(evidence, value, DATASETS[row["dataset"]], algorithm=name, nodes=nodes)
        elif row["dataset"] == "CIFAR-10":  # whose place the small task takes
            top1, _ = _accuracy(evidence, value, algorithm=name, nodes=nodes)
        unit = row["val_unit"].replace("percent top-1", "%")
        published = f"{row[f'val{column}']} {unit}{SHOWN[row['mark']]}"
        lines.append(
            [f"accuracy, {row['dataset']}, {_named(row, with_it)}", published, top1, difference, row["source"]]
        )
    if row[f"ms_per_iteration{column}"]:
        lines.append(_time(row, with_it, partial(timing, name, nodes), same_task))
    return lines


def _named(row: dict[str, str], with_it: bool) -> str:
    return f"{row['algorithm']} with SlowMo" if with_it else row["algorithm"]


def _accuracy(evidence: Evidence, published: float, dataset: str | None = None, **conditions: Any) -> tuple[str, str]:
    """What the runs say, and by how much that differs where they are of the paper's data set."""
    task = {} if dataset is None else {"dataset": dataset}
    try:
        top1 = evidence.measured(
            "top1", seeds=SEEDS if dataset is None else 1, problem="supervised", **conditions, **task
        )
    except (MissingRunsError, ValueError):
        return "not run", "–"
    return top1.told(".2f", 100, "%"), "–" if dataset is None else f"{100 * top1.mean - published:+.2f} points"


def _time(row: dict[str, str], with_it: bool, timing: Callable[[], Values], same_task: bool) -> list[str]:
    """A time per iteration of slowmo.csv beside a measured one; the clock knows but one of its tasks."""
    published = float(row["ms_per_iteration_slowmo" if with_it else "ms_per_iteration"])
    what = f"time per iteration, {row['dataset']}, {_named(row, with_it)}, {row['nodes']} nodes"
    measured, difference = "–", "–"
    if row["dataset"] == "ImageNet":
        try:
            milliseconds = 1000 * timing().mean
            measured, difference = f"{milliseconds:.0f} ms", f"{100 * (milliseconds / published - 1):+.0f} %"
            calibrated = row["algorithm"] == "osgp" and not with_it  # cost=resnet50_v100 has a gradient's time from it
            if calibrated and not same_task:
                difference = "the clock is calibrated on it"
        except (MissingRunsError, ValueError):
            measured = "not run"
    return [what, f"{published:.0f} ms{SHOWN[row['mark']]}", measured, difference, row["source"]]
