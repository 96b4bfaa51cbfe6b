"""What an evaluation says of several workers, recomputed by hand from their iterates, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import DOUBLE, HEAVY_BALL, SMALL, configure, relative, run_processes
from torch import Tensor

from runner.config import Config, ranks
from runner.data import load
from runner.evaluation import RECALIBRATION_BATCHES, Evaluator
from runner.parts import Parts, assemble
from runner.prepare import make_model, make_sampler
from runner.problem import Problem, make_problem

pytestmark = [pytest.mark.multiproc, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
POLICIES = ("own", "average", "recalibrate")
TINY_IMAGES = (
    *("dataset=synthetic", "dataset.shape=[3,8,8]", "dataset.train_samples=60", "dataset.test_samples=50"),
    *("model=resnet20", "batch_size=4", "device=cpu", "evaluation.batch_size=7", "evaluation.every=1000"),
)
Report = dict[str, Any]


# In the processes ---------------------------------------------------------------------------------------------------


def evaluator(config: Config, parts: Parts, batch_norm: str = "own") -> Evaluator:
    settings = {**config["evaluation"], "batch_norm": batch_norm}
    return Evaluator(parts.mesh, parts.problem, parts.dataset, parts.batches, settings)


def evaluate_apart(config: Config, steps: int) -> Report:
    """Every worker moves some steps away on its own, then each policy evaluates what they hold."""
    parts = assemble(config, CPU)
    x = parts.problem.initial()
    for draw in range(steps):
        x = x - 0.1 * parts.problem.gradient(x, parts.batches(draw))[1]
    buffers = {name: buffer.clone() for name, buffer in parts.problem.buffers().items()}
    version, value = x._version, x.clone()
    rows = {policy: evaluator(config, parts, policy).evaluate(x) for policy in POLICIES}
    return {
        "x": value,
        "mean": evaluator(config, parts).mean_over_workers(x),
        "buffers": buffers,
        "rows": rows,
        "same_again": rows["own"] == evaluator(config, parts).evaluate(x),  # after the other policies
        "x_untouched": x._version == version and torch.equal(x, value),
        "buffers_untouched": all(torch.equal(buffers[name], b) for name, b in parts.problem.buffers().items()),
    }


def trajectories(config: Config, steps: int) -> list[Tensor]:
    """The iterates (steps, d) of a run without evaluations, and of one with all kinds of them after every step."""
    found = []
    for policies in ((), POLICIES):
        parts = assemble(config, CPU)
        iterates = []
        for x in parts.iterates():
            for policy in policies:
                evaluator(config, parts, policy).evaluate(x)
            iterates.append(x.clone())
            if len(iterates) == steps:
                break
        parts.worker.close()
        found.append(torch.stack(iterates))
    return found


# By hand ------------------------------------------------------------------------------------------------------------


class ByHand:
    """One process that holds all models."""

    def __init__(self, config: Config) -> None:
        self.config = config
        dataset = load(config["dataset"])
        self.problem: Problem = make_problem(config, make_model(config, dataset), CPU)
        self.dataset = dataset.to(dtype=self.problem.dtype)

    def score(self, x: Tensor, buffers: dict[str, Tensor]) -> tuple[float, float]:
        """Top-1 and mean loss on the whole test set at once."""
        for name, buffer in self.problem.buffers().items():
            buffer.copy_(buffers[name])
        score = self.problem.evaluate(x, [self.dataset.test_batch(slice(None))])
        assert score.samples == self.dataset.test_size
        return score.correct / score.samples, score.loss / score.samples

    def recalibrated(self, x: Tensor, rank: int) -> dict[str, Tensor]:
        batches = self.dataset.batches(make_sampler(self.config, self.dataset), rank, self.config["seed"])
        self.problem.recalibrate(x, [batches(draw) for draw in range(RECALIBRATION_BATCHES)])
        return {name: buffer.clone() for name, buffer in self.problem.buffers().items()}


def mean_in_rank_order(vectors: list[Tensor]) -> Tensor:
    total = torch.zeros_like(vectors[0], dtype=torch.float64)
    for vector in vectors:
        total += vector
    return total / len(vectors)


def mean_of(buffers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: mean_in_rank_order([each[name] for each in buffers]) for name in buffers[0]}


@pytest.fixture(scope="module")
def perceptrons() -> tuple[Config, list[Report]]:
    config = configure("algorithm=sgp", "nodes=3", *SMALL)
    return config, run_processes(evaluate_apart, 3, config, 4)


@pytest.fixture(scope="module")
def resnets() -> tuple[Config, list[Report]]:
    config = configure("algorithm=sgp", "nodes=3", *TINY_IMAGES, *DOUBLE)
    return config, run_processes(evaluate_apart, 3, config, 2)


def test_every_process_learns_the_same(perceptrons, resnets):
    for _, reports in (perceptrons, resnets):
        assert all(report["rows"] == reports[0]["rows"] for report in reports)
        assert all(report["same_again"] for report in reports)


def test_nothing_that_training_needs_is_changed(perceptrons, resnets):
    for _, reports in (perceptrons, resnets):
        assert all(report["x_untouched"] for report in reports)
        assert all(report["buffers_untouched"] for report in reports)
    own = [report["buffers"] for report in resnets[1]]
    assert not any(torch.equal(own[0][name], own[1][name]) for name in own[0])  # they were really each worker's own


def test_the_mean_model_is_summed_in_rank_order_in_float64(perceptrons):
    _, reports = perceptrons
    mean = mean_in_rank_order([report["x"] for report in reports])
    assert mean.dtype == torch.float64
    assert all(torch.equal(report["mean"], mean) for report in reports)


def test_the_mean_model_is_scored_on_the_whole_test_set(perceptrons):
    config, reports = perceptrons
    top1, loss = ByHand(config).score(reports[0]["mean"].float(), {})
    assert reports[0]["rows"]["own"]["top1_mean_model"] == top1
    assert reports[0]["rows"]["own"]["loss_mean_model"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("case", ["perceptrons", "resnets"])
def test_every_workers_own_model_is_scored_with_its_own_buffers(case, request):
    config, reports = request.getfixturevalue(case)
    scores = [ByHand(config).score(report["x"], report["buffers"]) for report in reports]
    top1 = torch.tensor([top1 for top1, _ in scores], dtype=torch.float64)
    for row in reports[0]["rows"].values():
        assert row["top1_workers_mean"] == pytest.approx(float(top1.mean()), rel=1e-12)
        assert row["top1_workers_std"] == pytest.approx(float(top1.std(correction=0)), rel=1e-12, abs=1e-12)
        assert row["loss_workers_mean"] == pytest.approx(sum(loss for _, loss in scores) / 3, rel=1e-6)
        assert row["top1_centre"] is None


def test_the_consensus_distance_is_that_of_the_workers_to_their_mean(perceptrons):
    _, reports = perceptrons
    mean = mean_in_rank_order([report["x"] for report in reports])
    distances = [float((report["x"].double() - mean).norm()) for report in reports]
    row = reports[0]["rows"]["own"]
    assert row["consensus_distance"] == pytest.approx(sum(distances) / 3, rel=1e-12)
    assert row["consensus_distance_max"] == pytest.approx(max(distances), rel=1e-12)
    assert min(distances) > 0


class TestBatchNormOfTheMeanModel:
    def check(self, resnets, policy: str, buffers) -> None:
        config, reports = resnets
        mean = mean_in_rank_order([report["x"] for report in reports])
        hand = ByHand(config)
        top1, loss = hand.score(mean, buffers(hand, mean, [report["buffers"] for report in reports]))
        assert reports[0]["rows"][policy]["top1_mean_model"] == top1
        assert reports[0]["rows"][policy]["loss_mean_model"] == pytest.approx(loss, rel=1e-9)

    def test_own_is_worker_0s(self, resnets):
        self.check(resnets, "own", lambda hand, mean, own: own[0])

    def test_average_is_the_workers_mean(self, resnets):
        self.check(resnets, "average", lambda hand, mean, own: mean_of(own))

    def test_recalibrate_is_statistics_of_training_data_at_the_mean_model(self, resnets):
        def of_all(hand: ByHand, mean: Tensor, own: Any) -> dict[str, Tensor]:
            return mean_of([hand.recalibrated(mean, rank) for rank in range(3)])

        self.check(resnets, "recalibrate", of_all)

    def test_the_policies_differ(self, resnets):
        losses = {resnets[1][0]["rows"][policy]["loss_mean_model"] for policy in POLICIES}
        assert len(losses) == 3


def test_the_processes_of_one_worker_share_the_work_and_find_the_same():
    settings = ("algorithm=allreduce", *SMALL, *DOUBLE)
    pair = configure("nodes=1", "gpus_per_node=2", *settings)
    single = configure("nodes=1", "gpus_per_node=1", *settings)
    by_two = run_processes(evaluate_apart, 2, pair, 0)[0]["rows"]["own"]
    by_one = run_processes(evaluate_apart, 1, single, 0)[0]["rows"]["own"]
    assert by_two["top1_mean_model"] == by_two["top1_workers_mean"] == by_one["top1_mean_model"]
    for name in ("loss_mean_model", "loss_workers_mean"):
        assert by_two[name] == pytest.approx(by_one[name], rel=1e-12)
    for row in (by_one, by_two):
        assert row["consensus_distance"] == row["consensus_distance_max"] == row["top1_workers_std"] == 0


@pytest.mark.parametrize(
    "method",
    [
        ("algorithm=sgp", "algorithm.overlap=1", "algorithm.merge=exact", *SMALL),
        ("algorithm=allreduce", *TINY_IMAGES),
        ("algorithm=dpsgd", *TINY_IMAGES, "dataset.shape=[3,32,32]", "model=cifar_cnn"),
    ],
    ids=["osgp", "batch norm", "dropout"],
)
def test_evaluation_never_changes_the_training(method):
    config = configure("nodes=2", "epochs=3", *method, *HEAVY_BALL)
    for without, evaluated in run_processes(trajectories, ranks(config), config, 3):
        assert without.shape[0] == 3
        assert relative(without[-1], without[0]) > 0
        assert torch.equal(evaluated, without)
