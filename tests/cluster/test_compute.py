"""How long gradients take: means, who is slow, and that a draw's time does not depend on who asked before."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.build import ConfigError, build
from runner.cluster.compute import BLOCK, Compute, make_clock

MANY = 40 * BLOCK


def times(compute: Compute, worker: int = 0, draws: int = MANY, seed: int = 0, lanes: int = 1) -> np.ndarray:
    clock = make_clock(compute, seed, worker + 1, lanes)
    return np.array([clock(worker, draw) for draw in range(draws)])


def test_constant():
    assert set(times(Compute(0.25))) == {0.25}


def test_lognormal_has_the_mean_and_the_sigma_that_were_asked_for():
    drawn = times(Compute(0.2, "lognormal", sigma=0.3))
    assert drawn.mean() == pytest.approx(0.2, rel=0.02)
    assert np.log(drawn).std() == pytest.approx(0.3, rel=0.02)


def test_slow_machines_are_slow_by_their_factor():
    compute = Compute(0.2, "lognormal", slow={1: 3.0})
    usual = Compute(0.2, "lognormal")
    assert times(compute, 1, 500) == pytest.approx(3 * times(usual, 1, 500))
    assert times(compute, 0, 500) == pytest.approx(times(usual, 0, 500))


def test_transients_come_as_often_as_asked_for():
    drawn = times(Compute(1.0, transient_probability=0.1, transient_factor=5.0))
    assert set(drawn) == {1.0, 5.0}
    assert (drawn == 5.0).mean() == pytest.approx(0.1, abs=0.01)


def test_chosen_ranks_sleep_uniformly():
    compute = Compute(1.0, sleep_ranks=[1], sleep_low_s=0.1, sleep_high_s=0.3)
    asleep = times(compute, 1) - 1.0
    assert set(times(compute, 0, 100)) == {1.0}
    assert 0.1 <= asleep.min() < 0.101
    assert 0.299 < asleep.max() <= 0.3
    assert asleep.mean() == pytest.approx(0.2, abs=0.002)


def test_a_worker_takes_as_long_as_the_slowest_of_its_gpus():
    compute = Compute(1.0, "lognormal", slow={5: 2.0})
    each = [times(compute, gpu, 300) for gpu in (4, 5)]
    assert (times(compute, 2, 300, lanes=2) == np.maximum(*each)).all()


@settings(max_examples=20)
@given(st.permutations([(worker, draw) for worker in range(3) for draw in (0, 7, BLOCK - 1, BLOCK, 5 * BLOCK + 3)]))
def test_the_order_of_asking_changes_nothing(asked):
    compute = Compute(1.0, "lognormal", transient_probability=0.5, transient_factor=2.0, sleep_ranks=[2])
    clock = make_clock(compute, 3, 3, 1)
    for worker, draw in asked:
        assert clock(worker, draw) == make_clock(compute, 3, 3, 1)(worker, draw)


def test_seeds_and_ranks_differ():
    compute = Compute(1.0, "lognormal")
    assert (times(compute, 0, 50) == times(compute, 0, 50)).all()
    assert not (times(compute, 0, 50) == times(compute, 0, 50, seed=1)).any()
    assert not (times(compute, 0, 50) == times(compute, 1, 50)).any()


# Traces -------------------------------------------------------------------------------------------------------------


def write(path, rows: list[tuple[int, int, float]]) -> None:
    """Rows (worker, step, compute_s)."""
    lines = [json.dumps({"worker": w, "step": k, "compute_s": s}) + "\n" for w, k, s in rows]
    path.write_text("".join(lines))


def test_a_trace_is_replayed_rank_by_rank_over_and_over(tmp_path):
    write(tmp_path / "rank-00000.jsonl", [(0, 1, 1.0), (0, 2, 2.0), (0, 3, 3.0)])
    write(tmp_path / "rank-00001.jsonl", [(0, 1, 8.0), (0, 2, 4.0)])
    compute = Compute(trace=str(tmp_path))
    assert list(times(compute, 0, 7)) == [1, 2, 3, 1, 2, 3, 1]
    assert list(times(compute, 1, 3)) == [8, 4, 8]
    assert list(times(compute, 2, 3)) == [1, 2, 3]  # two were recorded
    assert list(times(compute, 0, 3, lanes=2)) == [8, 4, 8]
    drawn = times(compute, 0, 2 * BLOCK)
    assert list(drawn) == [1.0, 2.0, 3.0] * (2 * BLOCK // 3) + [1.0, 2.0][: 2 * BLOCK % 3]


def test_a_trace_is_scaled_to_a_mean(tmp_path):
    write(tmp_path / "rank-00000.jsonl", [(0, 1, 1.0), (0, 2, 3.0)])
    assert list(times(Compute(0.5, trace=str(tmp_path / "rank-00000.jsonl")), 0, 2)) == [0.25, 0.75]


def test_a_row_of_many_steps_counts_as_their_mean(tmp_path):
    """`record_every` thins the rows of a run; those of virtual workers share a file; the last row may hold no step."""
    rows = [(0, 10, 10.0), (1, 5, 20.0), (0, 12, 6.0), (1, 15, 10.0), (0, 12, 0.1)]
    write(tmp_path / "rank-00000.jsonl", rows)
    compute = Compute(trace=str(tmp_path))
    assert list(times(compute, 0, 3)) == [1, 3, 1]
    assert list(times(compute, 1, 3)) == [4, 1, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no recorded iterations"),
        ("not json\n", "cannot be read"),
        ('{"step": 1, "worker": 0}\n', "compute_s"),
        ('{"step": 1, "worker": 0, "compute_s": null}\n', "cannot be read"),
        ("[1, 2]\n", "cannot be read"),
        ('{"step": 1, "worker": 0, "compute_s": 0.0}\n', "mean compute time is 0.0"),
    ],
)
def test_unreadable_traces(tmp_path, text, words):
    (tmp_path / "rank-00000.jsonl").write_text(text)
    for trace in (tmp_path, tmp_path / "rank-00000.jsonl"):
        with pytest.raises(ConfigError, match=r"cluster\.compute\.trace=") as error:
            times(Compute(1.0, trace=str(trace)), 0, 1)
        assert words in str(error.value)


def test_a_trace_that_is_not_there(tmp_path):
    for trace in (tmp_path, tmp_path / "nowhere"):  # an empty folder, and none
        with pytest.raises(ConfigError, match=r"name (the folder of a run|a run's folder)"):
            times(Compute(1.0, trace=str(trace)), 0, 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seconds": None}, "seconds=null"),
        ({"seconds": -1.0}, "seconds=-1.0"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"distribution": "normal"}, "one of constant, lognormal"),
        ({"sigma": -0.1}, "sigma=-0.1"),
        ({"slow": 3}, "slow=3"),
        ({"slow": {-1: 2.0}}, "GPU ranks"),
        ({"slow": {1: 0}}, "positive factors"),
        ({"slow": {"one": 2.0}}, "GPU ranks"),
        ({"transient_probability": 1.5}, "between 0 and 1"),
        ({"transient_factor": 0.5}, "1 or more"),
        ({"transient_factor": 5.0}, "transient_probability=0.0 transient_factor=5.0: have an effect together"),
        ({"transient_probability": 0.1}, "transient_probability=0.1 transient_factor=1.0: have an effect together"),
        ({"sleep_ranks": 3}, "sleep_ranks=3"),
        ({"sleep_ranks": [True]}, "GPU ranks"),
        ({"sleep_low_s": 0.5}, "low <= high"),
        ({"secnds": 1.0}, "secnds"),
    ],
)
def test_what_cannot_be(wrong, words):
    node = {"_target_": "runner.cluster.compute.Compute", "seconds": 1.0, **wrong}
    with pytest.raises(ConfigError, match=r"cluster\.compute") as error:
        build(node, "cluster.compute")
    assert words in str(error.value)


@pytest.mark.parametrize("named", [{"slow": {8: 2.0}}, {"sleep_ranks": [0, 8]}])
def test_gpus_that_do_not_exist(named):
    compute = Compute(1.0, **named)
    compute.check_ranks(9)
    with pytest.raises(ConfigError, match=r"no GPU 8; .* 0 to 7"):
        compute.check_ranks(8)
