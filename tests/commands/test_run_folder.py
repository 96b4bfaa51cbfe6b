"""What a run leaves behind: see DESIGN.md and runner/results.py."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from commandline import Done, content, rows, runs
from omegaconf import OmegaConf

pytestmark = pytest.mark.multiproc

EPOCHS = 3  # of the sweep in conftest.py
D = 64 * 16 + 16 + 16 * 10 + 10  # parameters of its network
SUMMARY_KEYS = {
    *("cluster", "cost", "failures", "time_as_for"),  # null on real processes
    *("identity", "experiment", "algorithm", "topology", "dataset", "model", "problem"),
    *("optimizer", "schedule", "sampling"),
    *(
        "variant",
        "settings",
        "launcher",
        "clock",
        "device",
        "backend",
        "nodes",
        "gpus_per_node",
        "workers",
        "batch_size",
    ),
    *("global_batch_size", "lr", "seed", "epochs", "iterations", "evaluated_model", "batch_norm"),
    *("top1_mean_model", "top1_workers_mean", "top1_workers_std", "top1_centre", "loss_mean_model"),
    *("loss_workers_mean", "consensus_distance", "consensus_distance_max", "training_time_s", "epoch_time_s"),
    *("iteration_time_s", "compute_s", "wait_s", "data_s", "bytes_sent", "staleness", "staleness_mean"),
    "restarts",
}
ROW_KEYS = {
    *("clock", "time_s", "worker", "step", "epoch", "samples", "loss", "lr", "compute_s", "wait_s", "data_s"),
    "bytes_sent",
}
EVALUATION_KEYS = {
    *("epoch", "step", "samples", "time_s", "clock", "top1_mean_model", "top1_workers_mean", "top1_workers_std"),
    *("top1_centre", "loss_mean_model", "loss_workers_mean", "consensus_distance", "consensus_distance_max"),
}
PARTS = ("compute_s", "wait_s", "data_s")

# Per worker and step, by hand. One message is the iterate, 4 d bytes; SGP's also holds the push-sum weight, 8 bytes. An
# all-reduce over N processes sends 2 (N - 1) / N of the vector from each. A node of two processes averages its gradient
# inside (4 d from each); each carries half a message, and passes the half that it received on to its twin (2 d).
BYTES_PER_STEP = {
    ("allreduce", 1): 2 * 1 / 2 * 4 * D,
    ("allreduce", 2): 2 * (2 * 3 / 4 * 4 * D),
    ("dpsgd", 1): 4 * D,
    ("dpsgd", 2): 2 * (4 * D + 2 * D + 2 * D),
    ("sgp", 1): 4 * D + 8,
    ("sgp", 2): 2 * (4 * D + (2 * D + 8) + 2 * D),
}


@pytest.fixture(scope="module", params=sorted(BYTES_PER_STEP), ids=lambda cell: f"{cell[0]}-{cell[1]}-per-node")
def run(request: pytest.FixtureRequest, swept: tuple[Path, Done]) -> Path:
    algorithm, gpus_per_node = request.param
    found = [
        run
        for run in runs(swept[0])
        if run.parent.name == algorithm and content(run / "summary.json")["gpus_per_node"] == gpus_per_node
    ]
    assert len(found) == 1
    return found[0]


def test_the_files(run: Path) -> None:
    ranks = range(2 * content(run / "summary.json")["gpus_per_node"])
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "overrides.txt", "environment.json", "state.json", "summary.json", "evaluations.jsonl", "log"),
        "attempts.json",
        *(f"rank-{rank:05d}.jsonl" for rank in ranks),
    }
    assert {path.name for path in (run / "log").iterdir()} == {f"rank-{rank:05d}.log" for rank in ranks}
    assert all(log.read_text() == "" for log in (run / "log").iterdir())


def test_what_was_asked_for(run: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    overrides = (run / "overrides.txt").read_text().splitlines()
    assert f"algorithm={run.parent.name}" in overrides
    assert config.epochs == EPOCHS
    assert config.choices.algorithm == run.parent.name
    assert config.device == "cpu"
    assert config.launcher.kind == "local"  # resolved, not auto
    environment = content(run / "environment.json")
    assert {"python", "torch", "host", "commit", "dirty", "command"} <= set(environment)
    assert "run-experiment" in environment["command"]
    assert content(run / "state.json")["status"] == "finished"


def test_summary(run: Path) -> None:
    summary = content(run / "summary.json")
    last = rows(run / "evaluations.jsonl")[-1]
    assert set(summary) == SUMMARY_KEYS
    assert summary["identity"] == run.name
    assert summary["clock"] == "wall"
    assert summary["workers"] == 2
    assert summary["global_batch_size"] == 2 * summary["gpus_per_node"] * summary["batch_size"]
    assert summary["iterations"] == EPOCHS * (1437 // summary["global_batch_size"])
    assert 0.5 < summary["top1_mean_model"] <= 1
    assert summary["batch_norm"] is None  # the network has none
    assert {key: summary[key] for key in last if key in summary} == {k: v for k, v in last.items() if k in summary}


def test_the_split_of_time_is_whole(run: Path) -> None:
    summary = content(run / "summary.json")
    assert sum(summary[part] for part in PARTS) == pytest.approx(summary["training_time_s"], rel=1e-9)
    assert all(summary[part] > 0 for part in PARTS)
    for file in run.glob("rank-*.jsonl"):
        recorded = rows(file)
        for before, row in itertools.pairwise([{"time_s": 0.0}, *recorded]):
            split_s = sum(row[part] for part in PARTS)
            assert split_s == pytest.approx(row["time_s"] - before["time_s"], abs=2e-6)  # times are rounded to 1 µs


def test_rows(run: Path) -> None:
    summary = content(run / "summary.json")
    processes = 2 * summary["gpus_per_node"]
    for rank in range(processes):
        recorded = rows(run / f"rank-{rank:05d}.jsonl")
        assert all(set(row) == ROW_KEYS for row in recorded)
        assert all(row["clock"] == "wall" and row["worker"] == rank // summary["gpus_per_node"] for row in recorded)
        assert [row["step"] for row in recorded] == list(range(1, summary["iterations"] + 1))
        assert all(row["samples"] == row["step"] * summary["global_batch_size"] for row in recorded)
        assert recorded[-1]["epoch"] == EPOCHS
        assert all(before["time_s"] < after["time_s"] for before, after in itertools.pairwise(recorded))


def test_evaluations_do_not_charge_the_clock(run: Path) -> None:
    evaluations = rows(run / "evaluations.jsonl")
    assert all(set(row) == EVALUATION_KEYS for row in evaluations)
    assert [row["epoch"] for row in evaluations] == [2, 3]  # every second epoch, and the last
    assert all(row["clock"] == "wall" for row in evaluations)
    time_s = {row["step"]: row["time_s"] for row in rows(run / "rank-00000.jsonl")}
    assert all(row["time_s"] == time_s[row["step"]] for row in evaluations)


def test_bytes_sent(run: Path) -> None:
    summary = content(run / "summary.json")
    per_step = BYTES_PER_STEP[summary["algorithm"], summary["gpus_per_node"]]
    assert summary["bytes_sent"] == per_step * summary["iterations"]
    recorded = [row["bytes_sent"] for file in run.glob("rank-*.jsonl") for row in rows(file)]
    assert sum(recorded) == summary["workers"] * summary["bytes_sent"]
