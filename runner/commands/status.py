"""Where each run is, from its own records and from SLURM's queue: read so sparingly that 1,000 runs take a second."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.report.formats import Cell, Column, Table
from runner.report.metrics import duration, top1_key
from runner.report.runs import ACTIVE, Run, natural_order

if TYPE_CHECKING:
    from runner.launchers.queue import Job

Row = dict[str, Any]
TAIL_BYTES = 4096  # of a file of rows: more than ten of them
IN_TITLE = ("algorithm", "nodes", "gpus_per_node", "seed", "experiment", "+experiment", "launcher", "results_dir")
STOPPED = ("failed", "interrupted")
MOST_REASONS = 20


def describe(runs: Sequence[Run], queue: Mapping[str, Job]) -> list[Row]:
    """A row a run: what is known of it, under the keys of JSON."""
    typed = {run.folder: _overrides(run.folder) for run in runs}
    common = set.intersection(*map(set, typed.values())) if typed else set()
    rows = [_row(run, queue, [key for key in typed[run.folder] if key not in common]) for run in runs]
    return sorted(rows, key=lambda row: [natural_order(row[key]) for key in ("group", "run", "identity")])


def _row(run: Run, queue: Mapping[str, Job], apart: Sequence[str]) -> Row:
    values, state = run.values, run.state
    job = _job(run.folder) if run.submitted else {}
    known = queue.get(str(job.get("job")))
    status, epochs = run.status, values.get("epochs")
    if status in ACTIVE and known is not None:  # between two lives its records lag behind
        status = "queued" if known.waiting else "running"
    row: Row = {
        "status": status,
        "group": run.group,
        "identity": run.identity,
        "run": " ".join([title(values), *apart]),
        "job": job.get("job"),
        "where": (known.reason if known.waiting else known.nodes) if known else state.get("nodes"),
        "epoch": epochs if run.summary is not None else None,
        "epochs": epochs,
        "clock": values.get("clock"),
        "time_s": values.get("training_time_s"),
        "left_s": None,
        "job_left": known.left if known is not None and status == "running" else None,
        "restarts": state.get("restarts") or 0,
        "top1": values.get("top1"),
        "reason": next(iter(str(state.get("reason") or "").strip().splitlines()), None) if status in STOPPED else None,
        "log": _log(run, job) if status in STOPPED else None,
        "folder": str(run.folder),
    }
    if run.summary is None:
        row |= _progress(run, values, status)
    return row


def title(values: Mapping[str, Any]) -> str:
    """A run in a few words: sgp 4 nodes x 2 seed 0."""
    nodes, gpus = values.get("nodes"), values.get("gpus_per_node") or 1
    size = f"{nodes} node{'' if nodes == 1 else 's'}{f' x {gpus}' if gpus != 1 else ''}"
    return f"{values.get('method', '?')} {size} seed {values.get('seed')}"


def _overrides(folder: Path) -> list[str]:
    """What was typed, but for what every title has."""
    try:
        lines = (folder / "overrides.txt").read_text().splitlines()
    except OSError:
        return []
    return [line for line in lines if line.partition("=")[0] not in IN_TITLE]


def _job(folder: Path) -> Row:
    try:
        job = json.loads((folder / "job.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return job if isinstance(job, dict) else {}


def _progress(run: Run, values: Mapping[str, Any], status: str) -> Row:
    """How far it is, and how long it still needs at the pace so far."""
    rows = tail(run.folder / "rank-00000.jsonl")
    evaluations = tail(run.folder / "evaluations.jsonl")
    last = max((row for row in (*rows, *evaluations) if "step" in row), key=lambda row: row["step"], default=None)
    found: Row = {}
    if evaluations:
        found["top1"] = evaluations[-1].get(top1_key(values.get("evaluated_model")))
    if last is None:
        return found
    epoch, epochs = last.get("epoch"), values.get("epochs")
    found |= {"epoch": epoch, "time_s": last.get("time_s"), "clock": last.get("clock")}
    if status == "running" and epoch and epochs:
        # A virtual clock says nothing about ours.
        passed = last["time_s"] if last.get("clock") != "virtual" else _seconds_since(run.state.get("updated"))
        found["left_s"] = passed * max(0.0, epochs - epoch) / epoch if passed is not None else None
    return found


def tail(path: Path) -> list[Row]:
    """The last rows of a .jsonl file, without one that is still being written."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read()
    except OSError:
        return []
    whole = text[: text.rfind(b"\n") + 1].splitlines()
    rows = []
    for line in whole[1:] if size > TAIL_BYTES else whole:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _seconds_since(updated: Any) -> float | None:
    try:
        return max(0.0, time.time() - datetime.fromisoformat(str(updated)).timestamp())
    except ValueError:
        return None


def first_rank(run: Run) -> int | None:
    """The rank that a failed run's reason names."""
    match = re.search(r"\branks? (\d+)", str(run.state.get("reason") or "").partition("\n")[0])
    return int(match[1]) if match else None


def _log(run: Run, job: Row) -> str | None:
    """Where to read on: the log of the rank that failed first, or the job's own."""
    rank = first_rank(run)
    path = run.folder / "log" / f"rank-{rank or 0:05d}.log"
    if rank is None and job.get("log"):
        from runner import jobs

        return str(jobs.errors(run.folder, job))
    return str(path) if path.exists() else None


def table(rows: Sequence[Row], *, raw: bool = False) -> Table:
    """The rows for people, or with `raw` under their keys for programs."""
    if raw:
        keys = list(rows[0])
        kinds = ["text" if any(isinstance(row[key], str) for row in rows) else "number" for key in keys]
        columns = [Column(key, key, kind) for key, kind in zip(keys, kinds, strict=True)]  # type: ignore[arg-type]
        return Table("", columns, [[Cell(row[key]) for key in keys] for row in rows])
    columns = [
        Column("status", "status"),
        Column("group", "experiment", spare=8),
        Column("identity", "identity"),
        Column("run", "run", wraps=True),
        Column("job", "job", spare=3),
        Column("where", "nodes or queue", spare=5),
        Column("epoch", "epoch", "count"),
        Column("time", "time", "count", spare=6),
        Column("left", "left", "count", spare=1),
        Column("job_left", "job's limit", "count", spare=7),
        Column("restarts", "restarts", "count", spare=4),
        Column("top1", "top-1 (%)", "accuracy", spare=2),
    ]
    shown = [for_people(row) for row in rows]
    empty = {"job", "where", "job_left", "restarts", "left", "top1"} - {key for row in shown for key in row if row[key]}
    if len({row["group"] for row in rows}) == 1 or all(row["run"].startswith(f"{row['group']} ") for row in rows):
        empty.add("group")  # it says nothing
    columns = [column for column in columns if column.key not in empty]
    cells = [[Cell(row[column.key]) for column in columns] for row in shown]
    return Table("", columns, cells, [*_reasons(rows), summary(row["status"] for row in rows)])


def for_people(row: Row) -> Row:
    epoch, epochs, waits = row["epoch"], row["epochs"], row["status"] == "queued"
    shown = row | {
        "epoch": f"{epoch:.1f}/{epochs}" if isinstance(epoch, float) else f"{epoch}/{epochs}" if epoch else None,
        "time": None if row["time_s"] is None else duration(row["time_s"]),
        "left": None if row["left_s"] is None else duration(row["left_s"]),
        "where": f"({row['where']})" if waits and row["where"] else row["where"],
        "restarts": row["restarts"] or None,
    }
    if row["clock"] == "virtual" and shown["time"] is not None:
        shown["time"] += " virtual"
    return shown


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Why each stopped run has stopped, and where to read on."""
    lines = []
    stopped = [row for row in rows if row["status"] in STOPPED]
    for row in stopped[:MOST_REASONS]:
        lines.append(f"{row['identity']} {row['status']}: {row['reason'] or 'no reason given'}")
        if row["log"] and row["status"] == "failed":
            lines.append(f"    {os.path.relpath(row['log'])}")
    if len(stopped) > MOST_REASONS:
        lines.append(f"... and {len(stopped) - MOST_REASONS} more; --where status=failed, or --format json, has all")
    return [*lines, ""] if lines else []


def summary(statuses: Any) -> str:
    """`3 running, 2 queued, 1 failed`."""
    counts = Counter("being prepared" if status == "unknown" else status for status in statuses)
    order = ["running", "queued", "being prepared", "failed", "interrupted", "finished"]
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status]) or "no runs"
