"""Streams are pure functions of their names, and look random."""

import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.randomness import generator, stream_seed, uniform

int64 = st.integers(-(2**63), 2**63 - 1)


def test_pinned_values():
    """These numbers decide every run: a change here changes results, so it has to be meant."""
    assert stream_seed(0, "permutation", 0) == 8_598_970_368_532_627_576
    assert uniform(0, "augmentation", 3, 14159).item() == 0.893295838991703


@given(int64, st.text(max_size=5), st.lists(int64, max_size=3))
def test_seed_is_63_bits(seed, purpose, keys):
    assert 0 <= stream_seed(seed, purpose, *keys) < 2**63


def test_every_part_of_the_name_counts():
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (0, "a, 0")]
    assert len({stream_seed(*name) for name in names}) == len(names)


def test_seed_needs_no_torch():
    code = "import sys, runner.randomness as r; r.stream_seed(0, 'x'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_generator_repeats_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    draws = [torch.rand(4, generator=generator(7, "x", key)) for key in (0, 0, 1)]
    uniform(7, "x", 0)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.get_rng_state())


def splitmix64(state, count):
    """The published algorithm, with Python's unbounded integers."""
    for _ in range(count):
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        yield z ^ (z >> 31)
        state = (state + 0x9E3779B97F4A7C15) % 2**64


def test_uniform_is_splitmix64():
    expected = [(z >> 11) / 2**53 for z in splitmix64(stream_seed(5, "x"), 100)]
    assert uniform(5, "x", torch.arange(100)).tolist() == expected


@given(st.integers(0, 2**31), st.lists(int64, min_size=1, max_size=3))
def test_uniform_takes_ints_and_tensors_alike(seed, keys):
    value = uniform(seed, "x", *keys)
    assert value.dtype == torch.float64
    assert 0 <= value < 1
    assert torch.equal(value, uniform(seed, "x", *(torch.tensor(key) for key in keys)))


def test_uniform_broadcasts():
    table = uniform(0, "x", 9, torch.arange(5)[:, None], torch.arange(3))
    assert table.shape == (5, 3)
    assert table[4, 2] == uniform(0, "x", 9, 4, 2)


def test_uniform_fills_the_interval_evenly():
    """Mean, 16 bins (chi-square with 15 degrees of freedom) and neighbouring keys, for counters as they occur."""
    table = uniform(0, "x", torch.arange(100)[:, None], torch.arange(1000))
    assert abs(table.mean() - 0.5) < 5 / (12e5**0.5)
    bins = torch.histc(table, 16, 0, 1)
    assert ((bins - 6250) ** 2 / 6250).sum() < 50
    for pairs in (torch.stack([table[:-1], table[1:]]), torch.stack([table[:, :-1], table[:, 1:]])):
        assert abs(torch.corrcoef(pairs.flatten(1))[0, 1]) < 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_uniform_is_equal_on_cuda():
    keys = torch.tensor([random.Random(0).getrandbits(63) for _ in range(1000)])
    assert torch.equal(uniform(1, "x", 2, keys), uniform(1, "x", 2, keys.cuda()).cpu())
