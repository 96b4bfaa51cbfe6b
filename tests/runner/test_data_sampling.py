"""Which sample when."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.data.sampling import GlobalBatches, LabelSkew, ShardWithReplacement

LABELS = torch.arange(400) % 10
SAMPLERS = (GlobalBatches, ShardWithReplacement, LabelSkew)
sizes = st.integers(1, 60)
small = st.integers(1, 6)


@given(seed=st.integers(0, 9), ranks=small, batch_size=small, spare=sizes, draw=st.integers(0, 100))
def test_k_ranks_see_what_one_rank_with_k_times_the_batch_sees(seed, ranks, batch_size, spare, draw):
    labels = torch.zeros(ranks * batch_size + spare)
    many = GlobalBatches(labels, seed, ranks, batch_size)
    one = GlobalBatches(labels, seed, 1, ranks * batch_size)
    assert many.iterations_per_epoch == one.iterations_per_epoch
    assert many.epoch_of(draw) == one.epoch_of(draw)
    together = torch.cat([many.indices(rank, draw) for rank in range(ranks)])
    assert torch.equal(together, one.indices(0, draw))


@given(seed=st.integers(0, 9), ranks=small, batch_size=small, spare=sizes, epoch=st.integers(0, 5))
def test_an_epoch_shows_no_sample_twice_and_drops_only_the_tail(seed, ranks, batch_size, spare, epoch):
    size = ranks * batch_size + spare
    sampler = GlobalBatches(torch.zeros(size), seed, ranks, batch_size)
    per_epoch = sampler.iterations_per_epoch
    draws = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    seen = torch.cat([sampler.indices(rank, draw) for draw in draws for rank in range(ranks)])
    assert len(seen) == len(seen.unique()) == size - size % (ranks * batch_size)
    assert {sampler.epoch_of(draw) for draw in draws} == {epoch}


@pytest.mark.parametrize("build", SAMPLERS)
def test_any_order_of_draws_gives_the_same(build):
    sampler = build(LABELS, 3, 4, 10)
    asked = [(rank, draw) for rank in range(4) for draw in (0, 25, 9, 10, 11, 1)]
    first = {key: sampler.indices(*key) for key in asked}
    again = build(LABELS, 3, 4, 10)
    other = build(LABELS, 4, 4, 10)
    for key in reversed(asked):
        assert torch.equal(first[key], again.indices(*key))
        assert first[key].shape == (10,)
        assert first[key].dtype == torch.int64
    assert any(not torch.equal(first[key], other.indices(*key)) for key in asked)


@pytest.mark.parametrize("build", SAMPLERS)
def test_epochs_differ(build):
    sampler = build(LABELS, 3, 4, 10)
    assert sampler.iterations_per_epoch == 10
    assert not torch.equal(sampler.indices(0, 0), sampler.indices(0, 10))


def test_shards_with_replacement_are_disjoint_and_fixed():
    sampler = ShardWithReplacement(LABELS[:399], 0, 4, 50)
    assert torch.equal(torch.cat(sampler.shards).sort().values, torch.arange(399))
    assert {len(shard) for shard in sampler.shards} == {99, 100}
    for rank in range(4):
        drawn = torch.cat([sampler.indices(rank, draw) for draw in range(50)])
        # 2,500 uniform draws from 100 miss a given one with probability 1e-11, and must repeat many.
        assert set(drawn.tolist()) == set(sampler.shards[rank].tolist())


@given(seed=st.integers(0, 99), ranks=small, size=sizes, alpha=st.sampled_from([1e-4, 0.1, 1.0, 1e4]))
def test_skewed_shards_are_disjoint_and_equal(seed, ranks, size, alpha):
    labels = torch.arange(ranks * size + seed % ranks) % 7
    shards = LabelSkew(labels, seed, ranks, 1, alpha=alpha).shards
    assert {len(shard) for shard in shards} == {size}
    assert len(torch.cat(shards).unique()) == ranks * size


@given(seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_an_epoch_of_a_skewed_shard_shows_it_once(seed, epoch):
    sampler = LabelSkew(LABELS, seed, 4, 20)
    for rank in range(4):
        draws = range(epoch * 5, (epoch + 1) * 5)
        seen = torch.cat([sampler.indices(rank, draw) for draw in draws])
        assert torch.equal(seen.sort().values, sampler.shards[rank].sort().values)


def test_alpha_sets_the_skew():
    """Mean over ranks of the largest class's share: towards 1 for small alpha, towards 1/10 for a large one."""
    labels = torch.arange(40_000) % 10

    def share(alpha):
        shards = LabelSkew(labels, 0, 20, 1, alpha=alpha).shards
        return sum((labels[shard].bincount(minlength=10).max() / len(shard)).item() for shard in shards) / len(shards)

    assert share(1e-3) > 0.6
    assert 0.2 < share(0.5) < 0.6
    assert share(1e4) < 0.12


@pytest.mark.parametrize("build", SAMPLERS)
def test_a_batch_larger_than_a_shard_is_refused(build):
    build(LABELS, 0, 8, 50)
    with pytest.raises(ValueError, match=r"batch_size=51: 8 processes \(nodes x gpus_per_node\).*use batch_size=50 or"):
        build(LABELS, 0, 8, 51)
    with pytest.raises(ValueError, match="at most 400 processes fit"):
        build(LABELS, 0, 401, 1)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match=r"sampling\.alpha=.*positive"):
        LabelSkew(LABELS, 0, 2, 1, alpha=alpha)
