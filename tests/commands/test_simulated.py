"""Runs on the virtual cluster as people type them: the folder of a real run, the same bytes for the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import SMALL, Done, content, rows, runs, the_run, type_in
from test_run_folder import EVALUATION_KEYS, PARTS, ROW_KEYS, SUMMARY_KEYS

VIRTUAL = ("launcher=simulated", *SMALL, "nodes=4", "gpus_per_node=2")
TIMING = ("launcher=simulated", "problem=none", "cost=resnet50_v100", "batch_size=1", "gpus_per_node=1", "epochs=2")
HARDSHIP = (
    *("cluster.compute.distribution=lognormal", "cluster.compute.sleep_ranks=[1,5]", "cluster.inter.loss=0.02"),
    *("cluster.compute.transient_probability=0.05", "cluster.compute.transient_factor=3"),
    "failures.plan=[{worker: 2, dies_at_s: 1, returns_at_s: 2.5}, {node: 0, pauses_at_s: 0.5, resumes_at_s: 0.9}]",
)
METHODS = {
    "allreduce": ("algorithm=allreduce",),
    "dpsgd": ("algorithm=dpsgd",),
    "sgp": ("algorithm=sgp", "algorithm.overlap=1"),
    "sgp by gpu, batched": ("algorithm=sgp", "algorithm.worker=gpu", "problem.batched=true"),
}

Here = Callable[..., Done]


def told(folder: Path) -> dict[str, bytes]:
    """What a run has written about its course."""
    files = [*folder.glob("rank-*.jsonl"), folder / "evaluations.jsonl", folder / "summary.json"]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(method: str, tmp_path: Path, here: Here) -> None:
    again = {"once": (), "twice": (), "on one thread": ("launcher.threads=1",), "other seed": ("seed=1",)}
    found = {}
    for name, overrides in again.items():
        done = here(*VIRTUAL, *METHODS[method], *HARDSHIP, *overrides, f"results_dir={name.replace(' ', '_')}")
        assert done.status == 0
        [run] = (tmp_path / name.replace(" ", "_")).glob("runs/*/*/summary.json")
        found[name] = told(run.parent)
    assert found["once"] == found["twice"] == found["on one thread"]
    assert found["once"].keys() == found["other seed"].keys()
    assert all(found["once"][file] != found["other seed"][file] for file in found["once"])


def test_the_folder_is_that_of_a_real_run(tmp_path: Path, here: Here) -> None:
    done = here(*VIRTUAL, "algorithm=sgp", "record_every=1", "epochs=3", "evaluation.every=2")
    assert done.status == 0
    run = the_run(tmp_path)
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "overrides.txt", "environment.json", "state.json", "summary.json", "evaluations.jsonl", "log"),
        "rank-00000.jsonl",  # of the one process there is
    }
    assert content(run / "state.json")["status"] == "finished"
    summary = content(run / "summary.json")
    assert set(summary) == SUMMARY_KEYS
    assert (summary["launcher"], summary["clock"], summary["cluster"], summary["cost"]) == (
        *("simulated", "virtual", "10gbe", "none"),
    )
    assert summary["time_as_for"] is None  # of the problem itself
    assert 0.5 < summary["top1_mean_model"] <= 1
    recorded, evaluations = rows(run / "rank-00000.jsonl"), rows(run / "evaluations.jsonl")
    assert all(set(row) == ROW_KEYS and row["clock"] == "virtual" for row in recorded)
    assert all(set(row) == EVALUATION_KEYS and row["clock"] == "virtual" for row in evaluations)
    assert [row["epoch"] for row in evaluations] == [2, 3]
    assert {key: summary[key] for key in evaluations[-1] if key in summary} == {
        key: value for key, value in evaluations[-1].items() if key in summary
    }
    assert sorted((row["worker"], row["step"]) for row in recorded) == [
        (worker, step) for worker in range(4) for step in range(1, summary["iterations"] + 1)
    ]
    table = type_in("table", cwd=tmp_path, command="experiments")
    assert table.status == 0
    assert "virtual" in table.stdout
    assert "sgp" in table.stdout


def test_time_is_split_and_bytes_are_counted(tmp_path: Path, here: Here) -> None:
    assert here(*VIRTUAL, "algorithm=sgp", "algorithm.overlap=1", "record_every=7").status == 0
    run = the_run(tmp_path)
    summary, recorded = content(run / "summary.json"), rows(run / "rank-00000.jsonl")
    assert sum(summary[part] for part in PARTS) == pytest.approx(summary["training_time_s"])
    ends, sent = [], 0
    for worker in range(4):
        of_worker = [row for row in recorded if row["worker"] == worker]
        for before, row in itertools.pairwise([{"time_s": 0.0}, *of_worker]):
            assert sum(row[part] for part in PARTS) == pytest.approx(row["time_s"] - before["time_s"], abs=2e-6)
        ends.append(of_worker[-1]["time_s"])
        sent += sum(row["bytes_sent"] for row in of_worker)
    assert sum(ends) / 4 == pytest.approx(summary["training_time_s"], abs=1e-5)
    assert 2 * sent / 4 == summary["bytes_sent"]  # of both GPUs of a node


def test_rows_are_thinned_unless_told_otherwise(tmp_path: Path, here: Here) -> None:
    assert here(*TIMING, "algorithm=sgp", "nodes=3", "problem.train_samples=750").status == 0
    steps: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for row in rows(the_run(tmp_path) / "rank-00000.jsonl"):
        steps[row["worker"]].append(row["step"])
    assert steps == {  # a hundredth, not all workers at once, and the end of each epoch
        0: [100, 200, 250, 300, 400, 500],
        1: [1, 101, 201, 250, 301, 401, 500],
        2: [2, 102, 202, 250, 302, 402, 500],
    }


def test_a_run_for_the_time_only(tmp_path: Path, here: Here) -> None:
    assert here(*TIMING, "nodes=8", "problem.train_samples=800", "cost.overlap_backward=false").status == 0
    run = the_run(tmp_path)
    summary = content(run / "summary.json")
    assert set(summary) | {"batch_norm"} == SUMMARY_KEYS
    assert summary["time_as_for"] == "ResNet-50 on V100"
    assert summary["dataset"] is summary["model"] is None
    scores = [key for key in summary if key.startswith(("top1", "loss", "consensus"))]
    assert len(scores) == 8
    assert all(summary[key] is None for key in scores)
    assert rows(run / "evaluations.jsonl") == []
    ring = 2 * 7 * 5e-5 + 2 * 7 / 8 * 4 * 25_557_032 / 1.25e9
    assert summary["iteration_time_s"] == pytest.approx(0.271 + ring)
    assert summary["training_time_s"] == pytest.approx(200 * summary["iteration_time_s"])
    assert all(row["loss"] is None for row in rows(run / "rank-00000.jsonl"))


def test_without_training_another_network_is_the_same_run_and_says_so(tmp_path: Path, here: Here) -> None:
    typed = (*TIMING, "nodes=2", "problem.train_samples=100")
    assert "has no effect" not in here(*typed).stdout
    again = here(*typed, "model=lenet", "dataset.train_samples=7")
    assert "model: has no effect, problem=none trains nothing" in again.stdout
    assert "dataset.train_samples: has no effect" in again.stdout
    assert "already finished, skipped" in again.stdout
    assert content(the_run(tmp_path) / "summary.json")["settings"] == "problem.train_samples=100"


def test_a_virtual_clock_has_no_warm_up(tmp_path: Path, here: Here) -> None:
    """A worker that pauses in the first iterations of a short run shows in its means."""
    pause = "failures.plan=[{worker: 1, pauses_at_s: 0.1, resumes_at_s: 20.1}]"
    typed = (*TIMING, "nodes=2", "problem.train_samples=40")  # 2 epochs of 20 iterations
    assert here(*typed, pause).status == 0
    assert here(*typed, pause, "warmup_iterations=10", "rerun=true").status == 0
    [short, *_] = tmp_path.glob("results/runs/allreduce/.earlier/*/summary.json")
    told, without = content(short), content(the_run(tmp_path) / "summary.json")
    assert told["iteration_time_s"] == pytest.approx(told["training_time_s"] / told["iterations"])
    assert told["iteration_time_s"] == pytest.approx(without["iteration_time_s"] + 20 / 40, abs=0.01)
    assert told["epoch_time_s"] == pytest.approx(told["training_time_s"] / 2)


def test_an_allreduce_that_waits_for_the_dead_fails_the_run(tmp_path: Path, here: Here) -> None:
    plan = "failures.plan=[{worker: 3, dies_at_s: 10}]"
    typed = (*TIMING, "nodes=4", "problem.train_samples=4000", plan, "failures.timeout_s=30")
    done = here(*typed)
    assert done.status == 1
    reason = "worker 3 died at 10 s: a gradient over 4 workers waited for it in vain, failures.timeout_s=30"
    assert reason in done.stdout
    run = the_run(tmp_path)
    state = content(run / "state.json")
    assert state["status"] == "failed"
    assert reason in state["reason"]
    assert not (run / "summary.json").exists()
    assert rows(run / "rank-00000.jsonl")[-1]["time_s"] < 10
    assert here(*typed, "algorithm=sgp").status == 0  # gossip goes on
    assert len(runs(tmp_path)) == 2


@pytest.mark.parametrize(
    "plan",
    [
        "{node: 0, dies_at_s: 3.5}",
        "{node: 0, dies_at_s: 0, returns_at_s: 7}",
        "{node: 0, dies_at_s: 6, returns_at_s: 7}, {worker: 2, dies_at_s: 12, returns_at_s: 13}",
    ],
)
def test_every_epoch_is_evaluated_whoever_dies_and_returns(plan: str, tmp_path: Path, here: Here) -> None:
    size = ("nodes=4", "gpus_per_node=1", "dataset.train_samples=192", "batch_size=8", "epochs=3")
    typed = ("launcher=simulated", *SMALL, *size, "algorithm=dpsgd", "cluster.compute.seconds=1.0")
    assert here(*typed, f"failures.plan=[{plan}]", "failures.detection_s=0.5").status == 0
    evaluations = rows(the_run(tmp_path) / "evaluations.jsonl")
    assert [row["step"] for row in evaluations] == [6, 12, 18]
    times = [row["time_s"] for row in evaluations]
    assert times == sorted(times)
