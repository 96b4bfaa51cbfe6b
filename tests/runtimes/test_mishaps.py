"""Workers that die, return and pause: who waits for how long, where a worker begins again, and that nobody is stuck.

Compute takes 1 s and a vector 0.1 s, as in test_virtual_clock.py.
"""

from __future__ import annotations

import pytest
import torch
from harness import SMALL, configure
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual import CPU, Played, changed, play, timing

from runner.build import ConfigError
from runner.config import workers
from runner.launchers import RunFailedError
from runner.simulation import Simulation

ALLREDUCE, SGP, DPSGD = ("algorithm=allreduce",), ("algorithm=sgp",), ("algorithm=dpsgd", "topology=ring")


def suffer(config, *plan, **failures) -> Played:
    values = {f"failures__{key}": value for key, value in failures.items()}
    return play(changed(config, failures__plan=list(plan), **values))


# Death --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["node", "gpu"])
@pytest.mark.parametrize("during", [0.0, 0.5, 1.05])
def test_allreduce_waits_for_the_time_out_and_fails_with_the_reason(worker, during):
    config = timing(10, 4, *ALLREDUCE, f"algorithm.worker={worker}", gpus=2)
    step = play(config).times[0][0]
    died = 3 * step + during
    with pytest.raises(RunFailedError) as error:
        suffer(config, {"worker": 2, "dies_at_s": died}, timeout_s=7)
    assert f"worker 2 died at {died:.6g} s: a gradient over {4 if worker == 'node' else 8} workers" in str(error.value)
    assert f"failures.timeout_s=7, until {died + 7:.6g} s" in str(error.value)


@pytest.mark.parametrize("overrides", [SGP, (*SGP, "algorithm.overlap=1"), DPSGD])
@pytest.mark.parametrize("gpus", [1, 2])
def test_gossip_goes_on_without_the_dead(overrides, gpus):
    config = timing(100, 5, *overrides, gpus=gpus)
    played = suffer(config, {"worker": 2, "dies_at_s": 20.3}, timeout_s=1)
    assert [worker.draw for worker in played.workers if worker.rank != 2] == [100] * 4
    assert all(time_s <= 20.3 for time_s in played.times[2])
    assert max(played.end_s, 20.3) <= play(config).end_s + 1e-9  # the others wait for less than before


def test_what_the_dead_had_sent_arrives():
    """Worker 0 dies while its message is under way: worker 1 still gets it, and nothing after it."""
    config = timing(3, 2, *SGP)
    died = suffer(config, {"worker": 0, "dies_at_s": 1.05})
    assert died.times[1] == pytest.approx([1.1, 2.1, 3.1])
    assert died.workers[1].state.w == pytest.approx((0.5 + 0.5) / 4)  # one message came, two halves went
    before = suffer(config, {"worker": 0, "dies_at_s": 0.95})
    assert before.times[1] == pytest.approx([1.0, 2.0, 3.0])
    assert before.workers[1].state.w == pytest.approx(1 / 8)


def test_the_others_notice_a_death_after_a_while():
    config = timing(3, 2, *SGP)
    played = suffer(config, {"worker": 0, "dies_at_s": 1.3}, detection_s=2.5)
    assert played.times[1] == pytest.approx([1.1, 3.8, 4.8])
    assert played.workers[1].split.wait_s == pytest.approx(0.1 + 1.7)


def test_a_node_dies_with_all_its_gpus():
    config = timing(20, 3, *SGP, "algorithm.worker=gpu", gpus=2)
    played = suffer(config, {"node": 1, "dies_at_s": 5})
    assert [worker.task is None for worker in played.workers] == [rank in (2, 3) for rank in range(6)]
    assert [worker.draw for worker in played.workers if worker.task is not None] == [20] * 4


def test_death_at_the_start_and_after_the_end():
    config = timing(3, 3, *SGP)
    first = suffer(config, {"worker": 1, "dies_at_s": 0})
    assert [len(times) for times in first.times] == [3, 0, 3]
    usual = play(config).times
    assert suffer(config, {"worker": 1, "dies_at_s": 100}).times == usual
    assert suffer(config, {"worker": 1, "dies_at_s": 100, "returns_at_s": 101}).times == usual


def test_when_all_are_dead_the_run_has_failed():
    with pytest.raises(RunFailedError, match=r"worker 2 died at 4\.5 s, and no worker is left"):
        suffer(timing(10, 3, *SGP), {"worker": 2, "dies_at_s": 4.5}, *({"worker": w, "dies_at_s": 2} for w in (0, 1)))
    with pytest.raises(RunFailedError, match="no worker is left"):
        suffer(timing(10, 1, *ALLREDUCE), {"node": 0, "dies_at_s": 2, "returns_at_s": 4})


# Return -------------------------------------------------------------------------------------------------------------


def test_a_worker_returns_into_an_allreduce_before_the_time_out():
    config = timing(6, 4, *ALLREDUCE)
    step = play(config).times[0][0]
    played = suffer(config, {"worker": 2, "dies_at_s": 2.5 * step, "returns_at_s": 9}, timeout_s=60)
    late = [9 + k * step for k in range(1, 5)]  # steps 2 to 5, from the beginning
    assert played.times[0] == pytest.approx([step, 2 * step, *late])
    assert played.times[2] == played.times[0]
    assert played.workers[2].split.wait_s == pytest.approx(9 - 2.5 * step + 6 * (step - 1))


@pytest.mark.parametrize("gpus", [1, 2])
def test_what_the_dead_had_waited_is_no_computing(gpus):
    """Worker 0 computes for 1 s, waits for worker 1, dies, returns and computes for 1 s again."""
    config = changed(timing(1, 2, *ALLREDUCE, gpus=gpus), cluster__compute__slow={gpus: 5.0})
    for died, computed in ((3.0, 1.0), (0.25, 0.25)):
        played = suffer(config, {"worker": 0, "dies_at_s": died, "returns_at_s": died + 0.5})
        assert played.times[0][-1] - played.workers[0].split.wait_s == pytest.approx(computed + 1.0)


def test_a_reduction_that_lost_a_member_ends_as_late_as_its_return_asks():
    """Worker 2 dies when all have joined, and returns before the reduction would have ended."""
    config = timing(2, 4, *ALLREDUCE)
    step = play(config).times[0][0]
    assert step > 1.1
    played = suffer(config, {"worker": 2, "dies_at_s": 1.02, "returns_at_s": 1.04})
    assert played.times == [pytest.approx([1.04 + step, 1.04 + 2 * step])] * 4


def test_each_death_has_its_own_time_out():
    config = timing(3, 2, *ALLREDUCE)
    plan = [{"worker": 1, "dies_at_s": 0.5, "returns_at_s": 2}, {"worker": 1, "dies_at_s": 2.5}]
    with pytest.raises(RunFailedError, match=r"died at 2\.5 s: .* until 5\.5 s"):
        suffer(config, *plan, timeout_s=3)


REAL = ("launcher=simulated", *SMALL, "nodes=4", "gpus_per_node=1", "epochs=1", "cluster.compute.seconds=1.0")
RETURNS_S = 14.25


@pytest.mark.parametrize("state", ["neighbour", "checkpoint", "initial"])
@pytest.mark.parametrize("overrides", [SGP, DPSGD], ids=["sgp", "dpsgd"])
def test_where_a_worker_begins_again(overrides, state):
    config = configure(*REAL, *overrides, "optimizer.momentum=0.9")
    played = suffer(config, {"worker": 1, "dies_at_s": 5.5, "returns_at_s": RETURNS_S}, return_state=state)
    before = {rank: sum(time_s < RETURNS_S for time_s in played.times[rank]) for rank in (1, 2)}
    [(draw, x)] = [(draw, x) for time_s, rank, draw, x in played.asked if rank == 1 and time_s == RETURNS_S]
    where = {
        "neighbour": played.iterates[2][before[2] - 1],  # the next rank, after the step that it has just finished
        "checkpoint": played.iterates[1][before[1] - 1],
        "initial": played.workers[1].x0,
    }
    assert torch.equal(x, where[state])
    assert draw == before[2]
    assert len({tuple(each[:5].tolist()) for each in where.values()}) == 3
    assert played.workers[1].draw == played.workers[1].draws
    assert played.workers[1].state.k == played.workers[1].draws
    assert played.iterates[1][-1].isfinite().all()
    optimizer = played.workers[1].optimizer
    assert optimizer.lr == played.workers[0].optimizer.lr  # the schedule went on


def test_momentum_is_forgotten_and_the_schedule_goes_on():
    config = configure(*REAL, *SGP, "optimizer.momentum=0.9", "optimizer.nesterov=false", "optimizer.weight_decay=0")
    simulation = Simulation(config, CPU)
    simulation.close()
    returning, fresh = (worker.optimizer for worker in simulation.cluster.workers[:2])
    x, g = torch.ones(len(simulation.cluster.workers[0].x0)), torch.ones(len(simulation.cluster.workers[0].x0))
    for _ in range(3):
        returning.descend(x, g)
    for _ in range(7):
        fresh.descend(x, g)
    returning.begin_again(7)
    assert returning.lr == fresh.lr
    assert torch.allclose(returning.descend(x, g), x - fresh.lr * g, rtol=1e-6)
    lr = returning.lr
    returning.begin_again(2)
    assert returning.lr == lr  # it does not turn back


def test_a_node_of_several_workers_returns():
    config = timing(30, 3, *SGP, "algorithm.worker=gpu", gpus=2)
    played = suffer(config, {"node": 1, "dies_at_s": 5, "returns_at_s": 12}, return_state="checkpoint")
    assert [worker.draw for worker in played.workers] == [30] * 6


def test_whoever_returned_a_moment_ago_is_taken_where_it_stands():
    """Worker 1 takes worker 2, which has not finished a step since its own return, at worker 3's step."""
    plan = [{"worker": 2, "dies_at_s": 3, "returns_at_s": 20.5}, {"worker": 1, "dies_at_s": 3, "returns_at_s": 20.6}]
    played = suffer(timing(30, 4, *SGP), *plan)
    draws = {rank: draw for time_s, rank, draw, _ in played.asked if time_s in (20.5, 20.6)}
    assert draws[1] == draws[2] > 10


def test_a_return_after_the_others_have_finished_is_too_late():
    config = timing(5, 3, *SGP)
    slow = changed(config, cluster__compute__slow={2: 5.0})
    played = suffer(slow, {"worker": 0, "dies_at_s": 0, "returns_at_s": 24}, {"worker": 2, "dies_at_s": 1})
    assert played.times[0] == []
    assert len(played.times[1]) == 5


def test_a_return_within_a_moment_asks_nobody_for_what_it_has_had():
    """It falls back behind exchanges whose messages it has had: those come without, and nobody waits for ever."""
    config = timing(8, 4, *SGP, "algorithm.overlap=2", "algorithm.merge=exact")
    slow = changed(config, cluster__compute__slow={2: 3.0})  # the next rank, far behind
    played = suffer(slow, {"worker": 1, "dies_at_s": 4.2, "returns_at_s": 4.20001})
    assert [worker.draw for worker in played.workers] == [8] * 4


# Pause --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pauses", "resumes"), [(0.0, 2.5), (0.2, 0.7), (0.5, 3.0)])
def test_a_pause_delays_what_is_being_computed(pauses, resumes):
    """Whether it ends before the gradient would have, or after."""
    played = suffer(timing(1, 2, *SGP), {"worker": 0, "pauses_at_s": pauses, "resumes_at_s": resumes})
    late = resumes - pauses
    assert played.times == [[pytest.approx(1.0 + late)], [pytest.approx(1.1 + late)]]
    assert played.workers[1].split.wait_s == pytest.approx(0.1 + late)


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize(("pauses", "resumes"), [(0.2, 0.7), (0.5, 3.0)])
def test_a_pause_in_a_gradient_of_all(pauses, resumes, gpus):
    config = timing(1, 4, *ALLREDUCE, gpus=gpus)
    usual = play(config).end_s
    played = suffer(config, {"worker": 0, "pauses_at_s": pauses, "resumes_at_s": resumes})
    assert played.times == [pytest.approx([usual + resumes - pauses])] * 4


def test_a_pause_of_one_that_waits_anyway_delays_nobody():
    config = changed(timing(1, 4, *ALLREDUCE), cluster__compute__slow={3: 4.0})
    usual = play(config).times
    assert suffer(config, {"worker": 0, "pauses_at_s": 0.5, "resumes_at_s": 2}).times == usual
    assert suffer(config, {"worker": 0, "pauses_at_s": 1.5, "resumes_at_s": 3.9}).times == usual
    held = suffer(config, {"worker": 0, "pauses_at_s": 1.5, "resumes_at_s": 6.0})
    assert held.end_s == pytest.approx(6.0 + usual[0][0] - 4.0)


@pytest.mark.parametrize("buckets", ["cost.overlap_backward=false", "cost.overlap_backward=true"])
def test_a_reduction_under_way_goes_on_after_a_pause_where_it_was(buckets):
    config = timing(1, 4, *ALLREDUCE, buckets)
    usual = play(config).end_s
    for pauses in (usual - 0.002, usual - 0.001):
        played = suffer(config, {"worker": 1, "pauses_at_s": pauses, "resumes_at_s": pauses + 0.7})
        assert played.times == [[pytest.approx(usual + 0.7)]] * 4
        assert [worker.split.wait_s for worker in played.workers] == pytest.approx([usual + 0.7 - 1.0] * 4)
    both = [
        {"worker": worker, "pauses_at_s": usual - 0.002 + 0.001 * worker, "resumes_at_s": usual + worker}
        for worker in (0, 1)
    ]
    assert suffer(config, *both).end_s == pytest.approx(usual + 1.002)


@settings(max_examples=30)
@given(st.floats(0.001, 5), st.floats(0.001, 3), st.sampled_from([1, 2]), st.booleans())
def test_when_all_pause_the_run_is_so_much_later(pauses, length, gpus, overlap):
    config = timing(4, 2, *ALLREDUCE, f"cost.overlap_backward={overlap}", gpus=gpus)
    plan = [{"worker": worker, "pauses_at_s": pauses, "resumes_at_s": pauses + length} for worker in (0, 1)]
    usual = play(config)
    later = suffer(config, *plan)
    for before, after in zip(usual.times, later.times, strict=True):
        assert after == pytest.approx([time_s + length * (time_s > pauses) for time_s in before])
    for worker, times in zip(later.workers, later.times, strict=True):
        assert times[-1] - worker.split.wait_s == pytest.approx(4 * 1.0)


def test_a_whole_node_pauses():
    config = timing(2, 2, *ALLREDUCE, "algorithm.worker=gpu", gpus=2)
    usual = play(config).times
    played = suffer(config, {"node": 1, "pauses_at_s": 0.5, "resumes_at_s": 2.0})
    assert played.times == [pytest.approx([time_s + 1.5 for time_s in times]) for times in usual]


def test_a_pause_while_waiting_for_a_message():
    config = changed(timing(2, 2, *SGP), cluster__compute__slow={1: 5.0})
    usual = play(config).times
    assert suffer(config, {"worker": 0, "pauses_at_s": 2, "resumes_at_s": 4}).times == usual
    held = suffer(config, {"worker": 0, "pauses_at_s": 2, "resumes_at_s": 7}).times
    assert held[0] == pytest.approx([7.0, usual[0][1]])
    assert held[1] == usual[1]


# Anything -----------------------------------------------------------------------------------------------------------

TORMENTED = {
    "sgp": timing(8, 4, *SGP),
    "sgp overlap": timing(8, 4, *SGP, "algorithm.overlap=2", "algorithm.merge=exact"),
    "sgp arrived": timing(8, 2, *SGP, "algorithm.overlap=1", "algorithm.worker=gpu", gpus=2),
    "dpsgd": timing(8, 4, *DPSGD, "algorithm.order=adapt_then_combine", gpus=2),
    "allreduce": timing(8, 2, *ALLREDUCE, "algorithm.worker=gpu", gpus=2),
}
moments = st.one_of(st.sampled_from([0.0, 1.0, 1.05, 2.0]), st.floats(0, 12))
lengths = st.one_of(st.sampled_from([1e-6, 1.0]), st.floats(1e-3, 20))


@st.composite
def entries(draw):
    who, start, length = draw(st.sampled_from([("worker", 4), ("node", 2)])), draw(moments), draw(lengths)
    times = draw(st.sampled_from([("dies_at_s",), ("dies_at_s", "returns_at_s"), ("pauses_at_s", "resumes_at_s")]))
    return {who[0]: draw(st.integers(0, who[1] - 1)), **dict(zip(times, (start, start + length), strict=False))}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(TORMENTED)),
    st.lists(entries(), max_size=4),
    st.sampled_from([0.0, 0.5]),
    st.lists(st.floats(0.1, 3), min_size=1, max_size=5),
)
def test_nobody_is_stuck_and_the_same_plan_gives_the_same_run(method, plan, detection, seconds):
    config = changed(TORMENTED[method], failures__plan=plan, failures__detection_s=detection)
    assert workers(config) == 4

    def told():
        try:
            played = play(config, lambda worker, draw: seconds[(3 * worker + draw) % len(seconds)])
        except (ConfigError, RunFailedError) as error:
            return str(error)
        for worker in played.workers:
            assert worker.task is None or worker.draw == worker.draws
            assert not worker.expected or worker.task is None
        assert all(times == sorted(times) for times in played.times)
        return played.times

    first = told()
    if isinstance(first, str):
        assert "overlap" in first or "in vain" in first or "no worker is left" in first
    assert told() == first
