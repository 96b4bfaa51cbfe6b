"""What two real processes write down of one run: the rows, their sums, and what they leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import SMALL, configure, run_processes

from runner.config import Config, freeze, ranks
from runner.identity import identity
from runner.recording import COUNTERS
from runner.training import train

pytestmark = pytest.mark.multiproc

PER_EPOCH = 1437 // (2 * 64)
STEPS = 3 * PER_EPOCH
RUN = ("algorithm=sgp", "nodes=2", *SMALL, "batch_size=64", "epochs=3")


def train_in(config: Config, folder: str) -> None:
    train(config, Path(folder), torch.device("cpu"))


class Recorded:
    """A run, as its files tell it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.config = configure(*overrides)
        folder.mkdir()
        (folder / "config.yaml").write_text(freeze(self.config))
        run_processes(train_in, ranks(self.config), self.config, str(folder))
        self.names = {path.name for path in folder.iterdir()}
        self.ranks = [self.read(folder / f"rank-{rank:05d}.jsonl") for rank in range(ranks(self.config))]
        self.ends = [rows[-1]["time_s"] for rows in self.ranks]
        self.evaluations = self.read(folder / "evaluations.jsonl")
        self.summary = json.loads((folder / "summary.json").read_text(), parse_constant=self.refuse)

    def read(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=self.refuse) for line in path.read_text().splitlines()]

    def refuse(self, name: str) -> None:
        raise AssertionError(f"{name} is not JSON")


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> Recorded:
    """Every iteration and every epoch."""
    return Recorded(tmp_path_factory.mktemp("runs") / "every", *RUN, "evaluation.every=1")


@pytest.fixture(scope="module")
def some(tmp_path_factory) -> Recorded:
    """The same run with every fourth iteration and the last epoch only."""
    overrides = ("record_every=4", "evaluation.every=1000", "warmup_iterations=1000")
    return Recorded(tmp_path_factory.mktemp("runs") / "some", *RUN, *overrides)


def test_files(every):
    assert every.names == {
        *("config.yaml", "summary.json", "evaluations.jsonl", "rank-00000.jsonl", "rank-00001.jsonl", "attempts.json"),
    }


def test_a_row_per_iteration(every):
    for rank, rows in enumerate(every.ranks):
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert [row["epoch"] for row in rows] == [step / PER_EPOCH for step in range(1, STEPS + 1)]
        assert [row["samples"] for row in rows] == [128 * step for step in range(1, STEPS + 1)]
        assert {row["worker"] for row in rows} == {rank}
        assert {row["clock"] for row in rows} == {"wall"}
        times = [row["time_s"] for row in rows]
        assert times == sorted(times)
        assert all(row[counter] >= 0 for row in rows for counter in ("wait_s", "data_s", "bytes_sent"))


def test_rows_between_are_left_out_and_the_last_is_kept(some):
    expected = [*range(4, STEPS + 1, 4), *([STEPS] if STEPS % 4 else [])]
    assert STEPS % 4
    assert all([row["step"] for row in rows] == expected for rows in some.ranks)


def test_counters_add_up_to_the_totals_whatever_rows_are_kept(every, some):
    for run in (every, some):
        means = {
            counter: sum(row[counter] for rows in run.ranks for row in rows) / 2
            for counter in ("compute_s", "wait_s", "data_s")
        }
        means["wait_s"] += sum(max(run.ends) - end for end in run.ends) / 2  # for the last to end
        for counter, mean in means.items():
            assert run.summary[counter] == pytest.approx(mean, abs=1e-6 * STEPS)
        split = sum(run.summary[counter] for counter in ("compute_s", "wait_s", "data_s"))
        assert split == pytest.approx(run.summary["training_time_s"], abs=1e-9)
        sent = [sum(row["bytes_sent"] for row in rows) for rows in run.ranks]
        d = 64 * 16 + 16 + 16 * 10 + 10
        assert sent == [STEPS * (4 * d + 8)] * 2  # x in float32 and w in float64, to one peer
        assert run.summary["bytes_sent"] == STEPS * (4 * d + 8)
    assert set(COUNTERS) <= set(every.ranks[0][0])


def test_recording_and_evaluating_less_leaves_the_run_as_it_was(every, some):
    for whole, sparse in zip(every.ranks, some.ranks, strict=True):
        losses = {row["step"]: (row["loss"], row["lr"]) for row in whole}
        assert all((row["loss"], row["lr"]) == losses[row["step"]] for row in sparse)
    last, only = ({k: v for k, v in run.evaluations[-1].items() if k != "time_s"} for run in (every, some))
    assert last == only


def test_evaluations_come_each_nth_epoch_and_at_the_end(every, some):
    assert [row["epoch"] for row in every.evaluations] == [1, 2, 3]
    assert [row["step"] for row in every.evaluations] == [PER_EPOCH, 2 * PER_EPOCH, STEPS]
    assert [row["epoch"] for row in some.evaluations] == [3]
    for row, step in zip(every.evaluations, (PER_EPOCH, 2 * PER_EPOCH, STEPS), strict=True):
        assert row["time_s"] == every.ranks[0][step - 1]["time_s"]  # the clock stands still while it lasts
        assert row["clock"] == "wall"


def test_the_steady_mean_leaves_the_warm_up_out(every, some):
    """Ten iterations by default; a run that is shorter than its warm-up counts whole."""
    steady = [(rows[-1]["time_s"] - rows[9]["time_s"]) / (STEPS - 10) for rows in every.ranks]
    assert every.summary["iteration_time_s"] == pytest.approx(sum(steady) / 2, abs=1e-6)
    whole = [rows[-1]["time_s"] / STEPS for rows in some.ranks]
    assert some.summary["iteration_time_s"] == pytest.approx(sum(whole) / 2, abs=1e-6)
    for run in (every, some):
        assert run.summary["epoch_time_s"] == pytest.approx(PER_EPOCH * run.summary["iteration_time_s"])


def test_the_summary_says_what_ran_and_repeats_the_last_evaluation(every):
    summary, last = every.summary, every.evaluations[-1]
    assert summary["identity"] == identity(every.config)
    assert all(summary[name] == last[name] for name in last if name.startswith(("top1", "loss", "consensus")))
    assert (summary["workers"], summary["iterations"], summary["global_batch_size"]) == (2, STEPS, 128)
    assert (summary["clock"], summary["evaluated_model"]) == ("wall", "mean")
    assert summary["batch_norm"] is None  # the network has none


def test_a_run_that_diverges_is_still_written_as_json(tmp_path):
    """Its losses are null: JSON has no NaN."""
    run = Recorded(tmp_path / "run", *SMALL, "nodes=1", "epochs=1", "optimizer.lr=9e5", "schedule=constant")
    assert run.ranks[0][-1]["loss"] is None
    assert run.summary["loss_mean_model"] is None
    assert 0 <= run.summary["top1_mean_model"] <= 1
