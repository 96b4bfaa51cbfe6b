"""The data sets in memory: counts, normalisation, augmentation, and the task that is made up."""

import inspect
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from runner.build import ConfigError, locate
from runner.data import load, prepare
from runner.data.augmentation import crop_and_flip
from runner.data.dataset import InMemory, part_bounds
from runner.data.digits import digits
from runner.data.sampling import GlobalBatches, Sampler
from runner.data.synthetic import synthetic
from runner.randomness import uniform

CONF = Path(__file__).parents[2] / "conf"
TOOLS = {"train_labels", "seed", "ranks", "batch_size"}


@pytest.fixture(scope="module")
def cifar_like():
    """Random bytes: any mistake in a crop shows."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=stream)
    labels = torch.arange(64) % 10
    return InMemory(
        (images, labels), (images, labels), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=4, flip=True
    )


def test_digits_counts_and_balance():
    data = digits()
    assert (data.shape, data.classes, data.train_size, data.test_size) == ((1, 8, 8), 10, 1437, 360)
    assert data.train_labels.bincount().tolist() == [136, 154, 151, 135, 143, 143, 151, 153, 138, 133]
    _, test_labels = data.test_batch(slice(None))
    assert test_labels.bincount().tolist() == [42, 28, 26, 48, 38, 39, 30, 26, 36, 47]


def test_digits_are_normalised_and_real():
    """The training images have mean 0 and variance 1; the nearest class mean names 9 of 10 test images."""
    data = digits()
    x, y = data.train_batch(torch.arange(data.train_size), seed=0, epoch=0)
    assert x.dtype == torch.float32
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3
    means = torch.stack([x[y == k].mean(0) for k in range(10)]).flatten(1)
    test_x, test_y = data.test_batch(slice(None))
    assert (torch.cdist(test_x.flatten(1), means).argmin(1) == test_y).float().mean() > 0.88


def test_normalisation_is_exact_in_float64():
    data = digits().to(dtype=torch.float64)
    x, _ = data.test_batch(slice(0, 50))
    pixels = x * 0.3763 + 0.3052
    assert x.dtype == torch.float64
    assert ((pixels * 16) - (pixels * 16).round()).abs().max() < 1e-12
    torch.testing.assert_close(digits().test_batch(slice(0, 50))[0], x.float())


def test_only_the_first_samples():
    whole, part = digits(), digits(train_samples=100, test_samples=7)
    assert (part.train_size, part.test_size) == (100, 7)
    assert torch.equal(part.train_labels, whole.train_labels[:100])
    for wrong in (0, 1438):
        with pytest.raises(ValueError, match=rf"dataset\.train_samples={wrong}: must be between 1 and 1437"):
            digits(train_samples=wrong)


def test_crop_and_flip_is_pad_slice_and_mirror():
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (200, 2, 9, 7), dtype=torch.uint8, generator=stream)
    draws = torch.rand(200, 3, generator=stream)
    padded = torch.nn.functional.pad(pixels, (3, 3, 3, 3))
    result = crop_and_flip(pixels, draws, padding=3, flip=True)
    tops, lefts = (draws[:, :2] * 7).long().T
    assert set(tops.tolist()) == set(lefts.tolist()) == set(range(7))
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        crop = padded[i, :, top : top + 9, left : left + 7]
        assert torch.equal(result[i], crop.flip(-1) if draws[i, 2] < 0.5 else crop)
    assert not torch.equal(result, crop_and_flip(pixels, draws, padding=3, flip=False))


def test_augmentation_is_keyed_by_seed_epoch_and_sample(cifar_like):
    """Whatever the batch, its order or the worker, a sample looks the same in one epoch."""
    everything = torch.arange(64)
    x, _ = cifar_like.train_batch(everything, seed=1, epoch=2)
    some = torch.tensor([40, 3, 3, 17])
    assert torch.equal(cifar_like.train_batch(some, seed=1, epoch=2)[0], x[some])
    for seed, epoch in ((2, 2), (1, 3)):
        other = cifar_like.train_batch(everything, seed=seed, epoch=epoch)[0]
        changed = (other != x).flatten(1).any(1).float().mean()
        assert changed > 0.9  # 1 of 162 crops is the same by chance


def test_padding_is_black_and_tests_are_not_augmented(cifar_like):
    x, y = cifar_like.test_batch(slice(None))
    assert torch.equal(x, cifar_like.test_batch(torch.arange(64))[0])
    pixels = ((x * 0.25 + 0.5) * 255).round()
    assert pixels.min() >= 1  # no padding
    train, labels = cifar_like.train_batch(torch.arange(64), seed=0, epoch=0)
    assert ((train * 0.25 + 0.5) * 255).round().min() == 0
    assert torch.equal(y, labels)


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_parts_of_the_test_set(parts):
    data = digits()
    batches = [batch for part in range(parts) for batch in data.test_batches(50, part, parts)]
    whole = data.test_batch(slice(None))
    for got, expected in zip(zip(*batches, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(got), expected)
    assert all(0 < len(y) <= 50 for _, y in batches)


def test_parts_cover_small_sets():
    assert [part_bounds(2, part, 3) for part in range(3)] == [(0, 0), (0, 1), (1, 2)]


def test_batches_follow_the_sampler(cifar_like):
    sampler = GlobalBatches(cifar_like.train_labels, 5, 2, 8)
    batches = cifar_like.batches(sampler, rank=1, seed=5)
    for draw in (0, 3, 4, 1):  # an epoch has 4
        expected = cifar_like.train_batch(sampler.indices(1, draw), seed=5, epoch=draw // 4)
        for got, want in zip(batches(draw), expected, strict=True):
            assert torch.equal(got, want)
    batches.close()


def test_synthetic_is_learnable_but_not_solved():
    """The nearest class mean of the training pixels is far above chance (10 %) and below the best possible (88 %)."""
    data = synthetic(train_samples=5000, test_samples=2000)
    assert (data.shape, data.classes, data.train_size, data.test_size) == ((3, 32, 32), 10, 5000, 2000)
    x, y = data.train_batch(torch.arange(5000), seed=0, epoch=0)
    means = torch.stack([x[y == k].mean(0) for k in range(10)]).flatten(1)
    test_x, test_y = data.test_batch(slice(None))
    top1 = (torch.cdist(test_x.flatten(1), means).argmin(1) == test_y).float().mean()
    assert 0.7 < top1 < 0.9
    assert abs(x.std() - 1) < 0.1


def test_synthetic_is_a_function_of_its_task_seed():
    def pixels(**options):
        return synthetic(shape=(1, 12, 10), classes=3, train_samples=30, test_samples=30, **options).test_batch(
            slice(None)
        )[0]

    assert torch.equal(pixels(), pixels())
    assert not torch.equal(pixels(), pixels(task_seed=1))
    data = synthetic(shape=(1, 12, 10), classes=3, train_samples=30, test_samples=30)
    assert not torch.equal(data.train_batch(torch.arange(30), seed=0, epoch=0)[0], pixels())


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 224, 224)])
def test_synthetic_takes_any_shape(shape):
    data = synthetic(shape=shape, classes=2, train_samples=4, test_samples=2)
    assert next(iter(data.test_batches(2)))[0].shape == (2, *shape)


@pytest.mark.parametrize(
    ("key", "value"),
    [("shape", [3, 32]), ("shape", [3, 0, 32]), ("classes", 1), ("train_samples", 0), ("separation", -1.0)],
)
def test_synthetic_refuses(key, value):
    with pytest.raises(ValueError, match=rf"dataset\.{key}="):
        synthetic(**{key: value})


@pytest.mark.parametrize("file", sorted((CONF / "dataset").glob("*.yaml")), ids=lambda file: file.stem)
def test_each_dataset_file_states_the_defaults_of_its_function(file):
    node = OmegaConf.to_container(OmegaConf.load(file))
    function = locate(node.pop("_target_"), "dataset")
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    assert function.__name__ == file.stem
    assert node == {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


@pytest.mark.parametrize("file", sorted((CONF / "sampling").glob("*.yaml")), ids=lambda file: file.stem)
def test_each_sampling_file_states_the_defaults_of_its_class(file):
    node = OmegaConf.to_container(OmegaConf.load(file))
    build = locate(node.pop("_target_"), "sampling")
    assert issubclass(build, Sampler)
    parameters = inspect.signature(build).parameters
    assert node == {name: p.default for name, p in parameters.items() if name not in TOOLS}


def test_prepare_and_load_take_the_configuration():
    node = OmegaConf.to_container(OmegaConf.load(CONF / "dataset" / "digits.yaml"))
    assert prepare(node).train_size == load(node).train_size == 1437
    with pytest.raises(ConfigError, match=r"dataset\.augmnt.*did you mean augment"):
        load({**node, "augmnt": True})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_equal_on_cuda(cifar_like):
    indices = torch.arange(0, 64, 3)
    here = cifar_like.train_batch(indices, seed=1, epoch=2)
    there = cifar_like.to("cuda").train_batch(indices, seed=1, epoch=2)
    assert torch.equal(here[1], there[1].cpu())
    torch.testing.assert_close(here[0], there[0].cpu(), rtol=0, atol=1e-6)


def test_uniform_decides_the_crop(cifar_like):
    """The documented stream, so that another implementation can follow it."""
    indices = torch.tensor([5, 6])
    draws = uniform(1, "augmentation", 2, indices[:, None], torch.arange(3))
    pixels = ((cifar_like.test_batch(indices)[0] * 0.25 + 0.5) * 255).round()
    expected = crop_and_flip(pixels, draws, padding=4, flip=True)
    got = ((cifar_like.train_batch(indices, seed=1, epoch=2)[0] * 0.25 + 0.5) * 255).round()
    assert torch.equal(got, expected)
