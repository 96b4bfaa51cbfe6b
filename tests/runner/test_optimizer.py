"""The local optimiser is torch's own, as a function of (x, g)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.build import ConfigError
from runner.optimizer import LocalOptimizer
from runner.schedules import Span

SPAN = Span(epochs=2, iterations_per_epoch=10, reference_factor=0.5)
STEPS = {"_target_": "runner.schedules.Steps", "warmup_epochs": 0.5, "milestones": [1], "gamma": 0.1}
CONSTANT = {"_target_": "runner.schedules.Constant"}
NODES = {
    "sgd": {"_target_": "torch.optim.SGD", "lr": 0.3, "weight_decay": 0.01},
    "heavy ball": {"_target_": "torch.optim.SGD", "lr": 0.3, "momentum": 0.9, "weight_decay": 0.01},
    "dampened": {"_target_": "torch.optim.SGD", "lr": 0.3, "momentum": 0.9, "dampening": 0.5},
    "nesterov": {"_target_": "torch.optim.SGD", "lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"_target_": "torch.optim.Adam", "lr": 0.01, "betas": [0.9, 0.98], "weight_decay": 0.01},
    "adamw": {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1, "amsgrad": True},
    "rmsprop": {"_target_": "torch.optim.RMSprop", "lr": 0.01, "momentum": 0.9},
}
each_optimizer = pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())


def gradients(steps: int = 20, d: int = 101) -> torch.Tensor:
    return torch.randn(steps, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def descended(node, x, gs, schedule=STEPS):
    """The iterates of a LocalOptimizer."""
    local = LocalOptimizer({**node, "reference_lr": 0.1}, schedule, x, SPAN)
    iterates = []
    for g in gs:
        x = local.descend(x, g)
        iterates.append(x)
    return torch.stack(iterates)


@each_optimizer
def test_descends_as_torch_does(node):
    """On a parameter that torch steps in place, with the learning rates of the schedule written out."""
    gs = gradients()
    x = torch.ones_like(gs[0])
    parameter = torch.nn.Parameter(x.clone())
    kind = getattr(torch.optim, node["_target_"].rpartition(".")[2])
    theirs = kind([parameter], **{k: v for k, v in node.items() if k != "_target_"})
    expected = []
    for step, g in enumerate(gs):
        factor = 0.5 + 0.5 * step / 5 if step < 5 else (1.0 if step < 10 else 0.1)
        theirs.param_groups[0]["lr"] = node["lr"] * factor
        parameter.grad = g.clone()
        theirs.step()
        expected.append(parameter.detach().clone())
    torch.testing.assert_close(descended(node, x, gs), torch.stack(expected), rtol=1e-12, atol=1e-12)


@each_optimizer
def test_changes_neither_x_nor_g(node):
    local = LocalOptimizer(node, CONSTANT, torch.zeros(7), SPAN)
    x = torch.arange(7.0)
    for _ in range(3):
        g = torch.linspace(-1, 1, 7)
        before = [(t._version, t.clone()) for t in (x, g)]
        new = local.descend(x, g)
        for tensor, (version, value) in zip((x, g), before, strict=True):
            assert tensor._version == version
            assert torch.equal(tensor, value)
        assert new.data_ptr() not in (x.data_ptr(), g.data_ptr())
        assert not new.requires_grad
        x = new


def test_earlier_iterates_stay_as_they_were():
    gs = gradients()
    x = torch.zeros_like(gs[0])
    local = LocalOptimizer(NODES["nesterov"], CONSTANT, x, SPAN)
    kept = []
    for g in gs:
        x = local.descend(x, g)
        kept.append((x, x.clone()))
    assert all(torch.equal(iterate, copy) for iterate, copy in kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["nesterov", "adam", "adamw"])
def test_the_fused_step_is_the_plain_one_within_rounding(name, dtype):
    gs = gradients().to(dtype)
    x = torch.ones_like(gs[0])
    fused, plain = (descended({**NODES[name], **fused}, x, gs) for fused in ({}, {"fused": False}))
    tolerance = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(fused, plain, rtol=tolerance, atol=tolerance)


def test_the_fused_step_is_the_default_where_there_is_one():
    def fused(node):
        return LocalOptimizer(node, CONSTANT, torch.zeros(1), SPAN).optimizer.defaults.get("fused")

    assert fused(NODES["sgd"])
    assert not fused({**NODES["sgd"], "fused": False})
    assert not fused({**NODES["sgd"], "foreach": True})  # they exclude each other
    assert fused(NODES["rmsprop"]) is None


def test_lr_is_that_of_the_next_step():
    local = LocalOptimizer(NODES["sgd"], STEPS, torch.zeros(1), SPAN)
    seen = []
    for _ in range(20):
        seen.append(local.lr)
        local.descend(torch.zeros(1), torch.zeros(1))
    assert seen == pytest.approx([0.15, 0.18, 0.21, 0.24, 0.27, *[0.3] * 5, *[0.03] * 10])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 1), st.floats(0, 0.99), st.floats(0, 0.1), st.integers(0, 2**31))
def test_heavy_ball_and_nesterov_are_linear_in_the_gradient(lr, momentum, weight_decay, seed):
    """Why averaging parameters and averaging gradients give the same iterates: see algorithms/allreduce.py."""
    x, y = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gs, hs = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    node = {"_target_": "torch.optim.SGD", "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    node["nesterov"] = momentum > 0
    mean_of_runs = (descended(node, x, gs) + descended(node, y, hs)) / 2
    run_of_means = descended(node, (x + y) / 2, (gs + hs) / 2)
    torch.testing.assert_close(mean_of_runs, run_of_means, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentun": 0.9}, r"optimizer\.momentun: SGD has no such setting; did you mean momentum\?"),
        ({"nesterov": True}, r"optimizer: Nesterov momentum requires a momentum"),
        ({"nesterov": "yes"}, r"optimizer\.nesterov='yes': must be true or false"),
        ({"momentum": "high"}, r"optimizer\.momentum='high': must be a number"),
        ({"weight_decay": -1}, r"optimizer: Invalid weight_decay value: -1"),
        ({"foreach": True, "fused": True}, r"optimizer: .*fused.*foreach"),
        ({"_target_": "torch.optim.SDG"}, r"optimizer\._target_=torch\.optim\.SDG: cannot be imported"),
        ({"_target_": "torch.optim.Adam", "betas": [0.9]}, r"optimizer: .*index out of range"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_torch_refuses_names_the_optimizer(settings, message):
    node = {"_target_": "torch.optim.SGD", "lr": 0.1, **settings}
    with pytest.raises(ConfigError, match=message):
        LocalOptimizer(node, CONSTANT, torch.zeros(1), SPAN)
