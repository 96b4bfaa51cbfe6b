"""A parameter server runs beside the workers, and takes the place of none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import SMALL, type_in

pytestmark = pytest.mark.multiproc


@pytest.mark.parametrize(
    ("typed", "workers", "servers"),
    [
        (("algorithm=easgd", "nodes=1"), 1, 1),
        (("algorithm=downpour", "nodes=2", "server.shards=2"), 2, 2),
        (("algorithm=async_sgd", "algorithm.worker=node", "nodes=2", "gpus_per_node=2", "server.placement=own"), 4, 1),
    ],
    ids=["one worker", "two shards", "two by two"],
)
def test_servers_come_on_top_of_the_workers(typed: tuple[str, ...], workers: int, servers: int, tmp_path: Path) -> None:
    done = type_in(*typed, *SMALL, "launcher=local", "dataset.train_samples=320", "batch_size=8", cwd=tmp_path)
    assert done.status == 0, done.stderr
    [run] = (tmp_path / "results/runs").glob("*/*/summary.json")
    assert len(list(run.parent.glob("rank-*.jsonl"))) == workers
    assert len(list((run.parent / "log").glob("rank-*.log"))) == workers + servers
    summary = json.loads(run.read_text())
    assert summary["top1_centre"] is not None
    if workers > 1:
        assert summary["consensus_distance"] > 0
    rows = [json.loads(line) for path in run.parent.glob("rank-*.jsonl") for line in path.read_text().splitlines()]
    assert {row["worker"] for row in rows} == set(range(summary["workers"]))
