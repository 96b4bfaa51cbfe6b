"""The gradient at a flat iterate, and how good it is: what autograd says, whatever the layout in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import models
from models.layers import Dropout
from runner.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = {
    "mlp": lambda: models.mlp((3, 8, 8), 10, hidden=[16]),
    "lenet": lambda: models.lenet((3, 16, 16), 10),
    "resnet20": lambda: models.resnet20((3, 8, 8), 10),
}
SHAPES = {"mlp": (3, 8, 8), "lenet": (3, 16, 16), "resnet20": (3, 8, 8)}
each_network = pytest.mark.parametrize("name", NETWORKS)


def network(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[name]()


def problem(name: str, dtype: torch.dtype = torch.float64, **settings) -> Problem:
    return Problem(network(name), dtype=dtype, **settings)


def batch(shape, size: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0):
    stream = torch.Generator().manual_seed(seed)
    images = torch.randn(size, *shape, generator=stream, dtype=torch.float64).to(dtype)
    return images, torch.randint(10, (size,), generator=stream)


def elsewhere(x: torch.Tensor) -> torch.Tensor:
    """Another point than the initial one."""
    return x + 0.01 * torch.sin(torch.arange(len(x), dtype=x.dtype))


@each_network
def test_the_gradient_is_autograds(name):
    """Against an independent copy of the network, whose parameters are set the ordinary way."""
    ours, plain = problem(name), network(name).double()
    x = elsewhere(ours.initial())
    nn.utils.vector_to_parameters(x, plain.parameters())
    images, labels = batch(SHAPES[name])
    expected_loss = cross_entropy(plain(images), labels)
    expected_loss.backward()
    expected = torch.cat([p.grad.reshape(-1) for p in plain.parameters()])
    loss, g = ours.gradient(x, (images, labels))
    assert torch.equal(loss, expected_loss.detach())
    assert torch.equal(g, expected)
    assert g.shape == (ours.dimension,)
    assert not g.requires_grad


@each_network
def test_looking_changes_nothing(name):
    ours = problem(name)
    x = elsewhere(ours.initial())
    version, value = x._version, x.clone()
    first = ours.gradient(x, batch(SHAPES[name]))[1]
    kept = first.clone()
    ours.gradient(ours.initial(), batch(SHAPES[name], seed=1))
    ours.evaluate(x, [batch(SHAPES[name])])
    assert x._version == version
    assert torch.equal(x, value)
    assert torch.equal(first, kept)  # what was returned is the caller's
    assert torch.equal(ours.initial(), problem(name).initial())


@each_network
def test_channels_last_is_a_layout_and_nothing_else(name):
    ours, plain = problem(name, channels_last=True), problem(name)

    def as_plain(vector: torch.Tensor) -> torch.Tensor:
        """The same parameters in the order of the plain layout."""
        ours.look_at(vector)
        return plain.flatten([p.detach() for p in ours.parameters])

    assert torch.equal(as_plain(ours.initial()), plain.initial())
    x = elsewhere(ours.initial())
    ours_loss, ours_g = ours.gradient(x, batch(SHAPES[name]))
    loss, g = plain.gradient(as_plain(x), batch(SHAPES[name]))
    torch.testing.assert_close(ours_loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(as_plain(ours_g), g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("channels_last", [False, True])
@each_network
def test_flatten_undoes_look_at(name, channels_last):
    ours = problem(name, channels_last=channels_last)
    x = torch.arange(ours.dimension, dtype=torch.float64)
    ours.look_at(x)
    assert torch.equal(ours.flatten([p.detach() for p in ours.parameters]), x)
    assert all(p.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for p in ours.parameters)  # views
    if channels_last:
        kernels = [p for p in ours.parameters if p.dim() == 4]
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_dropout_is_keyed_by_seed_and_draw():
    def loss(seed: int, key: tuple[int, ...]) -> float:
        net = nn.Sequential(nn.Flatten(), Dropout(0.5), *list(network("mlp"))[1:])
        ours = Problem(net, seed=seed, dtype=torch.float64)
        return float(ours.gradient(ours.initial(), batch(SHAPES["mlp"]), key)[0])

    before = torch.get_rng_state()
    keys = [(0, (0, 0, 0)), (0, (0, 0, 1)), (0, (0, 1, 0)), (0, (1, 0, 0)), (1, (0, 0, 0))]
    losses = [loss(*key) for key in keys]
    assert losses == [loss(*key) for key in keys]
    assert len(set(losses)) == len(keys)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_rests_in_evaluation():
    ours = Problem(nn.Sequential(nn.Flatten(), Dropout(0.5), nn.Linear(192, 10)), dtype=torch.float64)
    scores = {ours.evaluate(ours.initial(), [batch(SHAPES["mlp"])]).loss for _ in range(3)}
    assert len(scores) == 1


@each_network
def test_parts_evaluated_apart_add_up(name):
    ours = problem(name)
    x = elsewhere(ours.initial())
    images, labels = batch(SHAPES[name], size=11)
    whole = ours.evaluate(x, [(images, labels)])
    parts = [ours.evaluate(x, [(images[a:b], labels[a:b])]) for a, b in ((0, 1), (1, 8), (8, 11))]
    assert whole.samples == sum(part.samples for part in parts) == 11
    assert whole.correct == sum(part.correct for part in parts)
    assert whole.loss == pytest.approx(sum(part.loss for part in parts), rel=1e-12)


def test_evaluation_counts_what_the_network_gets_right():
    ours = problem("mlp")
    images, labels = batch(SHAPES["mlp"], size=50)
    logits = network("mlp").double()(images).detach()
    score = ours.evaluate(ours.initial(), [(images, labels)])
    assert score.correct == int((logits.argmax(1) == labels).sum())
    assert score.loss == pytest.approx(float(cross_entropy(logits, labels, reduction="sum")), rel=1e-12)


def test_nothing_to_evaluate_is_no_samples():
    """A process may get an empty part of a small test set."""
    assert problem("mlp").evaluate(problem("mlp").initial(), []).samples == 0


class TestBatchNorm:
    def norms(self, ours: Problem) -> list[nn.BatchNorm2d]:
        return [module for module in ours.model.modules() if isinstance(module, nn.BatchNorm2d)]

    def test_recalibrated_statistics_are_the_mean_over_batches(self):
        ours = problem("resnet20")
        ours.gradient(ours.initial(), batch(SHAPES["resnet20"], seed=9))  # statistics to be forgotten
        x = elsewhere(ours.initial())
        batches = [batch(SHAPES["resnet20"], seed=seed) for seed in range(5)]
        ours.recalibrate(x, batches)

        plain = network("resnet20").double()
        nn.utils.vector_to_parameters(x, plain.parameters())
        first = [plain[0](images) for images, _ in batches]  # what the first BatchNorm sees
        mean = torch.stack([z.mean((0, 2, 3)) for z in first]).mean(0)
        variance = torch.stack([z.var((0, 2, 3), correction=1) for z in first]).mean(0)
        torch.testing.assert_close(self.norms(ours)[0].running_mean, mean.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(self.norms(ours)[0].running_var, variance.detach(), rtol=1e-10, atol=1e-12)

    def test_recalibrating_leaves_the_momentum_and_x_alone(self):
        ours = problem("resnet20")
        x = elsewhere(ours.initial())
        value = x.clone()
        momenta = [norm.momentum for norm in self.norms(ours)]
        ours.recalibrate(x, [batch(SHAPES["resnet20"])])
        assert [norm.momentum for norm in self.norms(ours)] == momenta
        assert torch.equal(x, value)

    def test_evaluation_leaves_the_statistics_alone_and_training_moves_them(self):
        ours = problem("resnet20")
        before = {name: buffer.clone() for name, buffer in ours.buffers().items()}
        assert len(before) == 2 * len(self.norms(ours))
        ours.evaluate(ours.initial(), [batch(SHAPES["resnet20"])])
        assert all(torch.equal(before[name], buffer) for name, buffer in ours.buffers().items())
        ours.gradient(ours.initial(), batch(SHAPES["resnet20"]))
        assert not any(torch.equal(before[name], buffer) for name, buffer in ours.buffers().items())


@each_network
def test_bfloat16_is_near_float32(name):
    images, labels = batch(SHAPES[name], size=32, dtype=torch.float32)
    full, mixed = problem(name, torch.float32), problem(name, torch.float32, autocast="bfloat16")
    loss, g = full.gradient(full.initial(), (images, labels))
    mixed_loss, mixed_g = mixed.gradient(mixed.initial(), (images, labels))
    assert mixed_g.dtype == mixed_loss.dtype == torch.float32
    assert not torch.equal(mixed_loss, loss)  # it was on
    assert mixed_loss == pytest.approx(float(loss), rel=0.05)
    assert torch.cosine_similarity(mixed_g, g, dim=0) > 0.95
    assert mixed.evaluate(full.initial(), [(images, labels)]).samples == 32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_network
def test_everything_is_in_the_dtype_asked_for(name, dtype):
    ours = problem(name, dtype)
    loss, g = ours.gradient(ours.initial(), batch(SHAPES[name], dtype=dtype))
    assert {ours.initial().dtype, loss.dtype, g.dtype} == {dtype}
    assert {tensor.dtype for tensor in (*ours.parameters, *ours.buffers().values())} == {dtype}
