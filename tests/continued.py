"""What tests of runs that go on from a checkpoint compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from runner import checkpoints


def numbers(run: Path) -> list[list[dict[str, Any]]]:
    """All that a run has found, without its times: the rows of each process, then the evaluations."""
    files = [*sorted(run.glob("rank-*.jsonl")), run / "evaluations.jsonl"]
    recorded = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return [[{k: v for k, v in row.items() if not k.endswith("_s")} for row in file] for file in recorded]


def last_parts(run: Path) -> list[dict[str, Any]]:
    """What each process has put into the newest checkpoint."""
    step = checkpoints.newest(run)["step"]  # type: ignore[index]
    ranks = len(list((run / f"checkpoints/step-{step:08d}").glob("rank-*.pt")))
    return [checkpoints.load(run, step, rank, torch.device("cpu")) for rank in range(ranks)]


def fields(part: dict[str, Any]) -> dict[str, Any]:
    """The state of the algorithm in it."""
    found: dict[str, Any] = part["worker"]["state"]["fields"]
    return found
