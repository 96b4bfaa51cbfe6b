"""Learning-rate factors: by hand at single points, and against torch's own schedulers where both define the same."""

from __future__ import annotations

import math

import pytest
import torch
from harness import configure
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from runner.build import ConfigError
from runner.config import known_lr, scaled_lr
from runner.schedules import Constant, Cosine, Span, Steps, scheduler


def span(epochs: int = 90, per_epoch: int = 10, reference_factor: float = 0.125) -> Span:
    return Span(epochs, per_epoch, reference_factor)


def sgd(lr: float = 0.8) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(optimizer, schedule, steps: int) -> list[float]:
    """The learning rate of each of so many steps."""
    taken = []
    for _ in range(steps):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return taken


class TestSteps:
    """The papers' schedule: 8 nodes of 256 samples at 0.1 per 256 have lr 0.8, and their warm-up starts at 0.1."""

    @pytest.mark.parametrize(
        ("epoch", "lr"),
        [
            (0, 0.1),  # the reference rate
            (2.5, 0.45),
            (4.9, 0.786),
            (5, 0.8),
            (29.9, 0.8),
            (30, 0.08),
            (59.9, 0.08),
            (60, 0.008),
            (79.9, 0.008),
            (80, 0.0008),
            (89.9, 0.0008),
        ],
    )
    def test_by_hand(self, epoch, lr):
        factor = Steps(span(), warmup_epochs=5)
        assert 0.8 * factor(round(10 * epoch)) == pytest.approx(lr, rel=1e-12)

    def test_is_torchs_linear_warm_up_and_multi_step(self):
        ours, theirs = sgd(), sgd()
        node = {"_target_": "runner.schedules.Steps", "warmup_epochs": 2, "milestones": [3, 5], "gamma": 0.2}
        chained = lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(theirs, 0.125, total_iters=20), lr_scheduler.MultiStepLR(theirs, [30, 50], 0.2)]
        )
        expected = rates(theirs, chained, 60)
        assert rates(ours, scheduler(node, ours, span(6)), 60) == pytest.approx(expected, rel=1e-12)

    def test_without_warm_up_or_milestones_it_is_constant(self):
        factor = Steps(span(), warmup_epochs=0, milestones=())
        assert {factor(step) for step in range(900)} == {1.0}


class TestCosine:
    def test_by_hand(self):
        factor = Cosine(span(11), warmup_epochs=1, final_factor=0.2)
        assert factor(0) == 0.125
        assert factor(5) == 0.125 + 0.875 / 2
        assert factor(10) == 1.0
        assert factor(60) == pytest.approx(0.6)  # half way: the mean of both ends
        assert factor(35) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
        assert factor(110) == pytest.approx(0.2)
        assert factor(10_000) == pytest.approx(0.2)

    @pytest.mark.parametrize("final_factor", [0.0, 0.1])
    def test_is_torchs_cosine_annealing(self, final_factor):
        ours, theirs = sgd(), sgd()
        node = {"_target_": "runner.schedules.Cosine", "warmup_epochs": 0, "final_factor": final_factor}
        annealing = lr_scheduler.CosineAnnealingLR(theirs, T_max=50, eta_min=0.8 * final_factor)
        expected = rates(theirs, annealing, 50)
        assert rates(ours, scheduler(node, ours, span(5)), 50) == pytest.approx(expected, rel=1e-9)

    def test_a_warm_up_as_long_as_the_run_is_only_warm_up(self):
        factor = Cosine(span(1), warmup_epochs=1)
        assert [factor(step) for step in range(10)] == pytest.approx([0.125 + 0.0875 * step for step in range(10)])


class TestConstant:
    def test_by_hand(self):
        factor = Constant(span(), warmup_epochs=2, start_factor=0.5)
        assert [factor(step) for step in (0, 10, 19, 20, 899)] == [0.5, 0.75, 0.975, 1.0, 1.0]

    def test_is_torchs_linear_warm_up(self):
        ours, theirs = sgd(), sgd()
        node = {"_target_": "runner.schedules.Constant", "warmup_epochs": 1.5, "start_factor": 0.3}
        expected = rates(theirs, lr_scheduler.LinearLR(theirs, 0.3, total_iters=15), 30)
        assert rates(ours, scheduler(node, ours, span()), 30) == pytest.approx(expected, rel=1e-12)

    def test_a_warm_up_never_starts_above_the_rate(self):
        """Fewer samples than 256 per iteration: lr is below the reference rate."""
        factor = Constant(span(reference_factor=4.0), warmup_epochs=2)
        assert {factor(step) for step in range(40)} == {1.0}


@settings(deadline=None)
@given(
    st.sampled_from([Constant, Steps, Cosine]),
    st.integers(1, 100),
    st.integers(1, 50),
    st.floats(0, 20),
    st.floats(0.01, 10),
)
def test_factors_are_shares_and_warm_ups_rise(kind, epochs, per_epoch, warmup_epochs, reference_factor):
    factor = kind(Span(epochs, per_epoch, reference_factor), warmup_epochs=warmup_epochs)
    factors = [factor(step) for step in range(epochs * per_epoch)]
    assert all(0 <= f <= 1 for f in factors)
    warm = factors[: math.ceil(warmup_epochs * per_epoch)]
    assert warm == sorted(warm)
    later = factors[len(warm) :]
    assert later == sorted(later, reverse=True)


def test_any_scheduler_of_torch_steps_once_per_iteration():
    ours, theirs = sgd(), sgd()
    node = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 7, "gamma": 0.5}
    expected = rates(theirs, lr_scheduler.StepLR(theirs, 7, 0.5), 30)
    assert rates(ours, scheduler(node, ours, span()), 30) == expected


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "runner.schedules.Steps", "warmup_epochs": -1}, r"schedule\.warmup_epochs=-1: must be 0 or more"),
        ({"_target_": "runner.schedules.Steps", "milestones": [60, 30]}, r"milestones=\[60, 30\]: .* increasing order"),
        ({"_target_": "runner.schedules.Steps", "gamma": 0}, r"schedule\.gamma=0: must be positive"),
        ({"_target_": "runner.schedules.Cosine", "final_factor": 2}, r"final_factor=2: must be between 0 and 1"),
        ({"_target_": "runner.schedules.Constant", "start_factor": -0.1}, r"start_factor=-0\.1: must be between"),
        ({"_target_": "runner.schedules.Constant", "warmup": 1}, r"schedule\.warmup: .* did you mean warmup_epochs"),
        ({"_target_": "torch.optim.lr_scheduler.StepLR", "step": 3}, r"schedule\.step: .* did you mean step_size"),
        ({"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, r"_target_=torch.*Plateau: .*the step alone"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(node, message):
    with pytest.raises(ConfigError, match=message):
        scheduler(node, sgd(), span())


class TestLinearScaling:
    """lr = reference_lr x global batch / 256."""

    @pytest.mark.parametrize(
        ("nodes", "gpus", "batch", "lr"), [(1, 1, 256, 0.1), (4, 1, 32, 0.05), (2, 2, 32, 0.05), (4, 8, 32, 0.4)]
    )
    def test_by_hand(self, nodes, gpus, batch, lr):
        optimizer = {"lr": None, "reference_lr": 0.1}
        config = {"nodes": nodes, "gpus_per_node": gpus, "batch_size": batch, "optimizer": optimizer, "algorithm": {}}
        assert scaled_lr(config) == pytest.approx(lr)

    def test_a_rate_that_is_given_is_taken(self):
        optimizer = {"lr": 0.3, "reference_lr": 0.1}
        assert scaled_lr({"nodes": 4, "gpus_per_node": 1, "batch_size": 32, "optimizer": optimizer}) == 0.3

    def test_neither_is_refused(self):
        with pytest.raises(ConfigError, match=r"optimizer\.lr=null: set it, or set optimizer\.reference_lr"):
            configure("optimizer.lr=null", "optimizer.reference_lr=null")


@pytest.mark.parametrize("left_open", ["batch_size", "gpus_per_node"])
def test_a_rate_that_follows_from_what_is_left_open_is_not_known(left_open):
    config = {"nodes": 4, "gpus_per_node": 8, "batch_size": 32, "optimizer": {"lr": None, "reference_lr": 0.1}}
    config |= {"algorithm": {"lr_per": None}}
    assert known_lr(config) == pytest.approx(0.4)
    assert known_lr(config | {left_open: None}) is None
    assert known_lr(config | {left_open: None, "optimizer": {"lr": 0.3}}) == 0.3
