"""Which evaluations there are, also closer than an epoch, and of what; and that they change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from harness import SMALL, configure, run_processes
from hypothesis import given
from hypothesis import strategies as st

from runner.build import ConfigError
from runner.config import Config, processes
from runner.evaluation_steps import EvaluationSteps
from runner.identity import identity
from runner.launchers.progress import View
from runner.results import Row
from runner.simulation import simulate
from runner.training import train

CPU = torch.device("cpu")
EPOCHS = 2  # of 6 iterations of 2 x 8 samples
SAMPLES = ("dataset.train_samples=96", "dataset.test_samples=100")
RUN = ("nodes=2", "gpus_per_node=1", *SMALL, f"epochs={EPOCHS}", *SAMPLES)
METHODS = {
    "sgp": ("algorithm=sgp",),
    "gossip_push": ("algorithm=gossip_push", "algorithm.budget=equal"),
    "easgd": ("algorithm=easgd",),  # a server, and mini-batches that are shared
}


def train_in(config: Config, folder: str) -> None:
    train(config, Path(folder), CPU)


def evaluations(folder: Path, *overrides: str) -> list[Row]:
    folder.mkdir()
    config = configure(*RUN, *overrides)
    if config["launcher"]["kind"] == "simulated":
        simulate(config, folder, CPU)
    else:
        run_processes(train_in, processes(config), config, str(folder))
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]


@pytest.mark.multiproc
@pytest.mark.parametrize("launcher", ["local", "simulated"])
@pytest.mark.parametrize("method", METHODS)
def test_evaluations_twice_an_epoch(method: str, launcher: str, tmp_path: Path) -> None:
    rows = evaluations(tmp_path / "twice", *METHODS[method], f"launcher={launcher}", "evaluation.every=0.5")
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert [row["epoch"] for row in rows] == [0.5, 1, 1.5, 2]
    times = [row["time_s"] for row in rows]
    assert times == sorted(times)
    if method == "sgp" or launcher == "simulated":  # the others' order is the clock's
        once = evaluations(tmp_path / "once", *METHODS[method], f"launcher={launcher}", "evaluation.every=1")
        timed = () if launcher == "simulated" else ("time_s",)
        assert [without(row, *timed) for row in rows[1::2]] == [without(row, *timed) for row in once]


@pytest.mark.multiproc
@pytest.mark.parametrize("launcher", ["local", "simulated"])
def test_own_models_may_be_scored_at_the_end_alone(launcher: str, tmp_path: Path) -> None:
    common = (*METHODS["sgp"], f"launcher={launcher}")
    always, end = (evaluations(tmp_path / own, *common, f"evaluation.own={own}") for own in ("always", "end"))
    scores = ("top1_workers_mean", "top1_workers_std", "loss_workers_mean")
    timed = () if launcher == "simulated" else ("time_s",)
    assert without(always[-1], *timed) == without(end[-1], *timed)
    assert [without(row, *scores, *timed) for row in always] == [without(row, *scores, *timed) for row in end]
    assert all(row[key] is None for row in end[:-1] for key in scores)
    assert not any(row[key] is None for row in always for key in scores)


def test_own_models_that_are_shown_are_scored_always() -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.own=end: evaluation\.model=workers"):
        configure(*RUN, "evaluation.own=end", "evaluation.model=workers")


def without(row: Row, *keys: str) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


@pytest.mark.multiproc
def test_both_runtimes_find_the_same_between_the_ends_of_epochs(tmp_path: Path) -> None:
    double = (*METHODS["sgp"], "problem.dtype=float64", "evaluation.every=0.5")
    real, virtual = (evaluations(tmp_path / kind, *double, f"launcher={kind}") for kind in ("local", "simulated"))
    own = ("clock", "time_s")
    assert [without(row, *own) for row in real] == [without(row, *own) for row in virtual]


def steps(every: float, per_epoch: int, epochs: int) -> list[int]:
    all_steps = EvaluationSteps.of(every, per_epoch, epochs)
    return [step for step in range(1, all_steps.last + 1) if all_steps.is_due(step)]


def test_evaluations_come_after_whole_iterations() -> None:
    assert steps(3, 7, 10) == [21, 42, 63, 70]
    assert steps(0.25, 20, 1) == [5, 10, 15, 20]
    assert steps(0.25, 22, 2) == [6, 11, 17, 22, 28, 33, 39, 44]  # every quarter of an epoch, to the nearest iteration
    assert steps(0.001, 4, 1) == [1, 2, 3, 4]
    assert steps(1000, 4, 2) == [8]


@given(st.floats(0.01, 4), st.integers(1, 60), st.integers(1, 6))
def test_the_evaluation_before_and_the_next(every: float, per_epoch: int, epochs: int) -> None:
    due, known = steps(every, per_epoch, epochs), EvaluationSteps.of(every, per_epoch, epochs)
    for step in range(known.last):
        assert known.after(step) == min(each for each in due if each > step)
        assert known.before(step + 1) == max((each for each in due if each <= step), default=0)


def test_1_0_is_the_same_run_as_1() -> None:
    [one, same, other] = [configure(*RUN, f"evaluation.every={every}") for every in ("1", "1.0", "0.5")]
    assert identity(one) == identity(same) != identity(other)


@pytest.mark.parametrize("every", ["0", "-1", "true", "null", "inf"])
def test_what_is_no_interval_is_refused(every: str) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.every"):
        configure(*RUN, f"evaluation.every={every}")


@given(st.integers(1, 30), st.floats(0.01, 5), st.integers(1, 200))
def test_the_next_evaluation_as_it_is_shown(per_epoch: int, every: float, step: int) -> None:
    epochs = 10
    known = EvaluationSteps.of(every, per_epoch, epochs)
    step = min(step, known.last)
    view = View(epochs=epochs, every=every)
    place = {"clock": "virtual", "step": step, "epoch": step / per_epoch, "samples": step, "time_s": step}
    view.trained([{**place, "worker": 0, "loss": 1.0}])
    if before := known.before(step):
        assert not view.awaited  # nothing followed the place before: evaluations come after training
        view.evaluated({**place, "step": before})
    assert view.awaited == known.is_due(step)
