"""Asynchronous messages where workers die, return and pause, and links lose some."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import PLAIN, listening, talk
from virtual import changed, play, timing

from runner.build import ConfigError
from runner.launchers import RunFailedError

METHODS = {
    "gossip_pull": ("algorithm=gossip_pull", "algorithm.rounds=2"),
    "gossip_push": ("algorithm=gossip_push", "algorithm.comm_interval=1"),
    "adpsgd": ("algorithm=adpsgd",),
    "easgd": ("algorithm=easgd", "algorithm.tau=2"),
    "downpour": ("algorithm=downpour", "algorithm.n_push=2", "algorithm.n_fetch=3", "server.shards=2"),
}


@pytest.mark.parametrize("detection", [0.0, 2.0])
@pytest.mark.parametrize("budget", ["equal", "shared"])
@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_dies_is_not_waited_for(method, budget, detection):
    config = timing(40, 4, *METHODS[method], f"algorithm.budget={budget}")
    plan = [{"worker": 1, "dies_at_s": 10.05}]
    played = play(changed(config, failures__plan=plan, failures__detection_s=detection))
    assert len(played.times[1]) < 12
    steps = [len(times) for rank, times in enumerate(played.times) if rank != 1]
    if budget == "equal":
        assert all(draw >= 40 for draw in steps)
        # One pause of the detection at most, and the answers under way.
        assert played.end_s < 1.15 * play(config).end_s + detection
    else:  # the others do its share, but for the mini-batch that died with it
        done = sum(worker.gradients for worker in played.workers)
        assert done == 4 * 40
        assert max(steps) - min(steps) < 12


def test_who_asks_the_dead_is_told_at_once():
    said: list[Any] = []

    async def script(worker: Any) -> None:
        if worker.rank == 1:
            await worker.gradient(worker.initial())
        if worker.rank == 0:
            for _ in range(2):
                begun_s = worker.engine.now
                answer = await worker.receive(1, "a", like=(0.0,))
                said.append((begun_s, worker.engine.now, answer))

    config = timing(1, 2, *PLAIN)
    talk(changed(config, failures__plan=[{"worker": 1, "dies_at_s": 0.5}], failures__detection_s=0.25), script)
    assert said == [(0.0, 0.75, None), (0.75, 0.75, None)]


def test_a_worker_that_returns_leaves_once_more():
    """It had left, died waiting for the others, and comes back behind: nobody goes before it has caught up."""
    config = timing(10, 3, *METHODS["gossip_pull"], "algorithm.budget=equal", "cluster.compute.slow={1: 2.0}")
    plan = [{"worker": 0, "dies_at_s": 14, "returns_at_s": 15}]
    played = play(changed(config, failures__plan=plan))
    assert [worker.draw for worker in played.workers] == [10] * 3
    assert max(played.times[0]) > 15


@pytest.mark.parametrize("detection", [0.0, 5.0])
@pytest.mark.parametrize(("dies", "returns"), [(0.5, 0.7), (0.5, 1.5), (1.5, 1.7), (0.5, 2.5)])
def test_nothing_of_a_former_life_answers_the_new_one(dies, returns, detection):
    """Questions and answers are on their way for 1 s each; one of both workers dies meanwhile and returns."""
    got: list[Any] = []

    async def script(worker: Any) -> None:
        async def answering() -> None:
            async for asker, (asked_s,) in worker.messages("question", like=(0.0,)):
                worker.send(asker, "answer", (asked_s,))

        worker.beside(answering())
        other = 1 - worker.rank
        for _ in range(3):
            asked_s = worker.engine.now
            worker.send(other, "question", (asked_s,))
            answer = await worker.receive(other, "answer", like=(0.0,))
            got.append((worker.rank, asked_s, answer))
            if answer is None:
                await worker.gradient(worker.initial())

    config = timing(1, 2, *PLAIN, "cluster.inter.latency_s=1")
    plan = [{"worker": 0, "dies_at_s": dies, "returns_at_s": returns}]
    talk(changed(config, failures__plan=plan, failures__detection_s=detection), script)
    assert [rank for rank, *_ in got].count(1) == 3
    assert [rank for rank, *_ in got].count(0) in (3, 4)  # of both lives
    assert all(answer in (None, (asked_s,)) for _, asked_s, answer in got)
    assert sum(answer is None for *_, answer in got) <= 3


def test_a_pause_at_the_end_loses_no_message():
    """Worker 1 stands still when the last message comes to it, and when all have left."""
    inbox: list[Any] = []
    there: list[Any] = []

    async def script(worker: Any) -> None:
        worker.beside(listening(worker, "a", inbox))
        if worker.rank == 0:
            await worker.gradient(worker.initial())
            worker.send(1, "a", (1.0,))
        await worker.leave()
        if worker.rank == 1:
            there.extend(inbox)

    config = timing(1, 2, *PLAIN, "cluster.inter.latency_s=0.1")
    talk(changed(config, failures__plan=[{"worker": 1, "pauses_at_s": 1.05, "resumes_at_s": 9}]), script)
    assert there == [(1, 0, "a", 1.0, 9.0)]


TORMENTED = {name: timing(8, 4, *overrides) for name, overrides in METHODS.items()} | {
    f"{name} equal": timing(8, 4, *overrides, "algorithm.budget=equal") for name, overrides in METHODS.items()
}
moments = st.one_of(st.sampled_from([0.0, 1.0, 1.05, 2.0]), st.floats(0, 12))
lengths = st.one_of(st.sampled_from([1e-6, 1.0]), st.floats(1e-3, 20))


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(moments)
    pairs = [("dies_at_s",), ("dies_at_s", "returns_at_s"), ("pauses_at_s", "resumes_at_s")]
    keys = draw(st.sampled_from(pairs))
    return {"worker": draw(st.integers(0, 3)), **dict(zip(keys, (start, start + draw(lengths)), strict=False))}


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(TORMENTED)),
    st.lists(entries(), max_size=4),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.0, 0.2]),
    st.lists(st.floats(0.1, 3), min_size=1, max_size=5),
)
def test_nobody_is_stuck_and_the_same_plan_gives_the_same_run(method, plan, detection, loss, seconds):
    config = changed(TORMENTED[method], failures__plan=plan, failures__detection_s=detection, cluster__inter__loss=loss)

    def told() -> Any:
        try:
            played = play(config, lambda worker, draw: seconds[(3 * worker + draw) % len(seconds)])
        except (ConfigError, RunFailedError) as error:
            return str(error)
        cluster = played.simulation.cluster
        assert cluster.farewells.under_way == 0
        for member in (*cluster.workers, *cluster.servers):
            assert member.task is None or not any(member.letters.come.values())
            assert all(age >= 0 for age in member.split.staleness)
        return played.times

    first = told()
    if isinstance(first, str):
        assert "overlap" in first or "no worker is left" in first
    assert told() == first


def test_what_dies_before_it_has_begun_leaves_nothing_behind():
    plan = [
        {"worker": 3, "pauses_at_s": 0.0, "resumes_at_s": 1.0},
        {"worker": 3, "dies_at_s": 1.0},
        {"worker": 2, "dies_at_s": 1.05, "returns_at_s": 1.1},
    ]
    play(changed(TORMENTED["adpsgd equal"], failures__plan=plan, failures__detection_s=0.0), lambda worker, draw: 1.0)
    gc.collect()  # now a coroutine complains if it was never awaited


def test_adpsgd_meets_all_its_peers_however_long_an_average_takes():
    """A message of 0.75 s: an average takes two of the steps that the graph's slots are counted in elsewhere."""
    config = timing(40, 4, "algorithm=adpsgd", "algorithm.budget=equal")
    for bandwidth in (1.0e9, 1.0e8 / 0.75):
        workers = play(changed(config, cluster__inter__bandwidth=bandwidth)).workers
        met = {(a.rank, target) for a in workers for target, _, channel in a.letters.sent if channel == "active"}
        assert met == {(0, 1), (0, 3), (2, 1), (2, 3)}
