"""Buckets of a gradient, and when the last of them is reduced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.build import ConfigError, build
from runner.cluster.cost import Cost, reduced_at

sizes = st.integers(1, 10**8)
shares = st.floats(0, 1)


@given(sizes, st.integers(10**6, 10**7), st.integers(10**5, 10**6), shares)
def test_buckets_hold_all_bytes_and_become_ready_in_order(nbytes, bucket, first, backward):
    buckets = Cost(bucket_bytes=bucket, first_bucket_bytes=first, backward_share=backward).buckets(nbytes)
    assert sum(size for size, _ in buckets) == pytest.approx(nbytes)
    assert buckets[0][0] == min(first, nbytes)
    assert all(size == bucket for size, _ in buckets[1:-1])
    ready = [share for _, share in buckets]
    assert ready == sorted(ready)
    assert ready[-1] == pytest.approx(1.0)  # the last one is exposed
    assert all(share >= 1 - backward - 1e-12 for share in ready)  # none during the forward pass


def test_buckets_become_ready_as_their_bytes_do():
    buckets = Cost(bucket_bytes=40, first_bucket_bytes=20, backward_share=0.5).buckets(100)
    assert buckets == [(20, pytest.approx(0.6)), (40, pytest.approx(0.8)), (40, pytest.approx(1.0))]


def taking(*seconds: float):
    """One all-reduce after the other takes so long."""
    each = iter(seconds)
    return lambda nbytes, begin_s: next(each)


def test_without_overlap_there_is_one_bucket_at_the_end():
    assert Cost(overlap_backward=False).buckets(10**9) == [(10**9, 1.0)]


def test_a_bucket_waits_for_all_workers_and_for_the_one_before_it():
    buckets = [(1, 0.5), (1, 1.0)]
    assert reduced_at(buckets, taking(1.0, 1.0), [0.0], [10.0]) == 11.0  # 5 to 6, 10 to 11
    assert reduced_at(buckets, taking(7.0, 1.0), [0.0], [10.0]) == 13.0  # 5 to 12, 12 to 13
    assert reduced_at(buckets, taking(1.0, 1.0), [0.0, 4.0], [10.0, 2.0]) == 11.0  # 5 to 6, 10 to 11
    assert reduced_at(buckets, taking(1.0, 1.0), [0.0, 9.0], [10.0, 4.0]) == 14.0  # 11 to 12, 13 to 14


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=5), sizes, shares)
def test_overlap_is_bounded_by_all_and_nothing(workers, nbytes, backward):
    """It ends no earlier than the last gradient and the last bucket, no later than without overlap."""
    started, seconds = zip(*workers, strict=True)
    buckets = Cost(backward_share=backward).buckets(nbytes)
    times = [size / 1e7 for size, _ in buckets]
    last = max(start + length for start, length in workers)
    end = reduced_at(buckets, taking(*times), started, seconds)
    assert last + times[-1] <= end + 1e-9
    assert end <= last + sum(times) + 1e-9


def second(nbytes: float, begin_s: float) -> float:
    """Every all-reduce takes one."""
    return 1.0


@pytest.mark.parametrize(
    ("pauses", "end"),
    [
        ([(5.25, 7.25, 0)], 13.0),  # 5 to 5.25 and 7.25 to 8; ready at 12, after the pause
        ([(10.5, 20.0, 0)], 20.5),  # half of the last one is done
        ([(10.5, 20.0, 1)], 20.5),  # whoever stands still
        ([(10.5, 12.0, 0), (11.0, 14.0, 1)], 14.5),
        ([(10.25, 11.25, 0), (11.5, 12.5, 0)], 13.0),
        ([(5.25, 5.75, 1)], 11.0),  # the first one is late; the last is not
        ([(0.0, 3.0, 1), (11.0, 15.0, 0)], 11.0),  # worker 1 has time enough; all is over
        ([(0.0, 9.0, 1)], 12.0),  # worker 1 is ready at 10 and 11
    ],
)
def test_a_reduction_stands_still_with_any_worker_and_goes_on_where_it_was(pauses, end):
    buckets = [(1, 0.5), (1, 1.0)]
    assert reduced_at(buckets, second, [0.0, 0.0], [10.0, 2.0], pauses) == pytest.approx(end)


def test_what_is_left_after_a_pause_finds_the_links_of_its_time():
    slower = lambda nbytes, begin_s: 1.0 if begin_s < 10 else 4.0  # noqa: E731
    assert reduced_at([(1, 1.0)], slower, [0.0], [5.0], [(5.25, 10.0, 0)]) == pytest.approx(10 + 0.75 * 4)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 10)), min_size=1, max_size=4),
    sizes,
    shares,
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.01, 5)), max_size=3),
)
def test_when_all_stand_still_all_is_so_much_later(workers, nbytes, backward, gaps):
    started, seconds = zip(*workers, strict=True)
    buckets = Cost(backward_share=backward).buckets(nbytes)
    end = reduced_at(buckets, lambda size, begin_s: size / 1e7, started, seconds)
    pauses, now, later = [], max(started), 0.0  # nobody stands still before it begins
    for gap, length in gaps:
        since = now + gap
        if since < end + later:
            later += length
        pauses += [(since, since + length, place) for place in range(len(workers))]
        now = since + length
    assert reduced_at(buckets, lambda size, begin_s: size / 1e7, started, seconds, pauses) == pytest.approx(end + later)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"message_bytes": 0}, "message_bytes=0"),
        ({"message_bytes": 1.5}, "whole number"),
        ({"seconds_per_gradient": -1.0}, "seconds_per_gradient=-1.0"),
        ({"bucket_bytes": 0}, "bucket_bytes=0"),
        ({"first_bucket_bytes": -5}, "first_bucket_bytes=-5"),
        ({"backward_share": 1.5}, "between 0 and 1"),
        ({"overlap_backward": 1}, "true or false"),
        ({"of": 3}, "of=3"),
    ],
)
def test_what_cannot_be(wrong, words):
    with pytest.raises(ConfigError, match=r"cost\.") as error:
        build({"_target_": "runner.cluster.cost.Cost", **wrong}, "cost")
    assert words in str(error.value)
