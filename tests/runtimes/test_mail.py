"""Asynchronous messages on the virtual cluster: their order, their time, and the parting of the workers.

Compute takes 1 s, a vector 0.1 s, and latency is 0, as in test_virtual_clock.py, unless a test says otherwise.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import OWN, PLAIN, SENT_S, SERVED, B, Script, V, listening, talk
from virtual import changed, play, timing

from runner.runtimes.engine import DeadlockError

# Order --------------------------------------------------------------------------------------------------------------

times = st.floats(0.01, 3)


@st.composite
def troubles(draw: st.DrawFn, nodes: int) -> dict[str, Any]:
    """Links of any pace that lose messages, and that may get faster while messages are on their way."""
    ends = st.lists(st.integers(0, nodes - 1), min_size=2, max_size=2, unique=True)
    slower = st.fixed_dictionaries(
        {"link": ends, "from_s": st.just(0), "until_s": times, "latency_factor": st.floats(2, 1e4)}
    )
    inter = {"latency_s": draw(st.floats(1e-4, 1)), "bandwidth": draw(st.floats(1e7, 1e10)), "efficiency": 1.0}
    return {
        "cluster__inter": {**inter, "loss": draw(st.sampled_from([0.0, 0.0, 0.3]))},
        "failures__plan": draw(st.lists(slower, max_size=2)),
    }


@settings(max_examples=40)
@given(st.data(), st.integers(2, 4))
def test_messages_of_one_sender_arrive_on_a_channel_in_the_order_in_which_they_left(data, n):
    letters = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.sampled_from("ab"), st.booleans())
    sent = data.draw(st.lists(letters.filter(lambda letter: letter[0] != letter[1]), max_size=20))
    heard: list[Any] = []

    async def script(worker: Any) -> None:
        for channel in "ab":
            worker.beside(listening(worker, channel, heard))
        for number, (source, to, channel, waits) in enumerate(sent):
            if source == worker.rank:
                if waits:
                    await worker.gradient(worker.initial())
                worker.send(to, channel, (float(number),) if number % 2 else (worker.initial(), float(number)))
        await worker.leave()

    config = changed(timing(1, n, *PLAIN), **data.draw(troubles(n)))
    talk(config, script, seconds=data.draw(st.lists(times, min_size=n, max_size=n)))
    for source in range(n):
        for to in range(n):
            for channel in "ab":
                came = [number for t, s, c, number, _ in heard if (s, t, c) == (source, to, channel)]
                assert came == [i for i, letter in enumerate(sent) if letter[:3] == (source, to, channel)]


@settings(max_examples=20)
@given(st.data())
def test_receive_takes_one_senders_messages_one_after_the_other(data):
    sent = data.draw(st.lists(st.sampled_from([1, 2]), max_size=12))
    order = data.draw(st.permutations(sent))
    got: list[tuple[int, float]] = []

    async def script(worker: Any) -> None:
        if worker.rank == 0:
            for source in order:  # whatever has come from the other meanwhile is kept
                answer = await worker.receive(source, "a", like=(0.0,))
                got.append((source, answer[0]))
        else:
            for number, source in enumerate(sent):
                if source == worker.rank:
                    worker.send(0, "a", (float(number),))
                    await worker.gradient(worker.initial())

    config = changed(timing(1, 3, *PLAIN), **data.draw(troubles(3)))
    talk(config, script, seconds=data.draw(st.lists(times, min_size=3)))
    assert [source for source, _ in got] == order
    for source in (1, 2):
        assert [number for s, number in got if s == source] == [i for i, s in enumerate(sent) if s == source]


def test_a_lost_message_is_sent_again_until_it_arrives():
    heard: list[Any] = []

    async def script(worker: Any) -> None:
        worker.beside(listening(worker, "a", heard))
        if worker.rank == 0:
            for number in range(50):
                worker.send(1, "a", (float(number),))

    config = timing(1, 2, *PLAIN, "cluster.inter.latency_s=0.01", "cluster.inter.loss=0.5")
    cluster = talk(config, script)
    assert [number for *_, number, _ in heard] == list(range(50))
    assert 70 < cluster.workers[0].mailed < 140  # 100 expected
    assert cluster.workers[0].split.bytes_sent == 50 * 8  # retransmissions are not counted
    # Lost after 0.01 s, known to be so after another 0.01 s.
    late = [time_s - 0.01 for *_, time_s in heard]
    assert max(late) > 0.019
    assert all(abs(time_s / 0.02 - round(time_s / 0.02)) < 1e-3 for time_s in late)


# Time ---------------------------------------------------------------------------------------------------------------


def push_once(heard: list[Any]) -> tuple[Script, Script]:
    """Scripts: each worker sends each server its part of a vector at once; the servers note who came when."""

    async def script(worker: Any) -> None:
        for server, part in worker.shards(worker.initial()).items():
            worker.send(server, "push", (part,))

    async def server(worker: Any) -> None:
        await listening(worker, "push", heard)

    return script, server


@pytest.mark.parametrize("n", [1, 2, 8])
def test_what_is_pushed_at_once_passes_the_servers_link_one_after_the_other(n):
    heard: list[Any] = []
    talk(timing(1, n, *SERVED, OWN, "cluster.inter.latency_s=0.01"), *push_once(heard))
    assert [sender for _, sender, *_ in heard] == list(range(n))
    assert [time_s for *_, time_s in heard] == pytest.approx([0.01 + k * V / B for k in range(1, n + 1)])


def test_a_server_beside_worker_0_is_near_to_it_and_shares_its_link():
    heard: list[Any] = []
    intra = ("cluster.intra.latency_s=0.001", "cluster.intra.bandwidth=1.0e10")
    config = timing(1, 4, *SERVED, "cluster.inter.latency_s=0.01", *intra)
    talk(config, *push_once(heard))
    assert [(sender, time_s) for _, sender, *_, time_s in heard] == [
        (0, pytest.approx(0.001 + V / 1e10)),
        *((k, pytest.approx(0.01 + k * V / B)) for k in (1, 2, 3)),
    ]


@pytest.mark.parametrize(("placement", "delayed_s"), [("beside_0", 3 * SENT_S), ("own", 0.0)])
def test_a_server_beside_worker_0_delays_what_others_send_to_that(placement, delayed_s):
    came: list[float] = []

    async def script(worker: Any) -> None:
        if worker.rank:
            worker.send(4, "push", (worker.initial(),))
        if worker.rank == 3:
            worker.send(0, "other", (0.0,))
        if worker.rank == 0:
            await worker.receive(3, "other", like=(0.0,))
            came.append(worker.engine.now)

    config = timing(1, 4, *SERVED, f"server.placement={placement}")
    talk(config, script, lambda worker: listening(worker, "push", []))
    own_s = SENT_S  # it leaves worker 3 behind a vector
    assert came == [pytest.approx(max(own_s, delayed_s), abs=1e-6)]


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_of_a_server_share_the_load_where_each_has_a_link(shards):
    """They beat one server as far as the senders' own links allow."""
    heard: list[Any] = []
    talk(timing(1, 8, *SERVED, OWN, f"server.shards={shards}"), *push_once(heard))
    assert Counter(server for server, *_ in heard) == dict.fromkeys(range(8, 8 + shards), 8)
    assert max(time_s for *_, time_s in heard) == pytest.approx((8 * V / shards + (shards - 1) * V / shards) / B)


@pytest.mark.parametrize("n", [2, 5])
def test_asynchronous_sgd_takes_a_round_trip_more_than_its_gradient(n):
    """In lockstep, all n push at once: the k-th to get through fetches after k pushes, and leaves the queue so."""
    config = timing(1, n, "algorithm=async_sgd", "algorithm.budget=equal", OWN, "cluster.inter.latency_s=0.01")
    times = [times[0] for times in play(config).times]
    assert times == pytest.approx([1 + 2 * 0.01 + k * V / B + V / B for k in range(1, n + 1)], abs=1e-6)


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_node_of_several_gpus_passes_a_vector_on_inside(gpus):
    came: list[float] = []

    async def script(worker: Any) -> None:
        if worker.rank == 0:
            worker.send(1, "a", (worker.initial(),))
        else:
            await worker.receive(0, "a", like=(worker.initial(),))
            came.append(worker.engine.now)

    inner = ("cluster.intra.latency_s=0.001", "cluster.intra.bandwidth=1.0e10")
    talk(timing(1, 2, *PLAIN, *inner, gpus=gpus), script)
    assert came == [pytest.approx(V / B + (gpus - 1) * 0.001 + (gpus - 1) / gpus * V / 1e10)]


# Parting ------------------------------------------------------------------------------------------------------------


def test_leaving_waits_for_the_last_worker_and_for_what_is_under_way():
    left: dict[int, float] = {}
    heard: list[Any] = []

    async def script(worker: Any) -> None:
        worker.beside(listening(worker, "a", heard))
        if worker.rank == 2:
            await worker.gradient(worker.initial())
            worker.send(0, "a", (worker.initial(),))
        await worker.leave()
        left[worker.rank] = worker.engine.now

    cluster = talk(timing(1, 3, *PLAIN), script)
    assert left == {rank: pytest.approx(1 + SENT_S) for rank in range(3)}
    assert [(to, sender) for to, sender, *_ in heard] == [(0, 2)]
    waits = [worker.split.wait_s for worker in cluster.workers]
    assert waits == pytest.approx([1 + SENT_S, 1 + SENT_S, SENT_S])


def test_what_a_loop_sends_in_answer_to_the_last_message_is_waited_for_too():
    heard: list[Any] = []

    async def script(worker: Any) -> None:
        async def passing_on() -> None:
            async for _, (hops,) in worker.messages("a", like=(0.0,)):
                heard.append((worker.rank, hops))
                if hops:
                    worker.send((worker.rank + 1) % 3, "a", (hops - 1,))

        worker.beside(passing_on())
        if worker.rank == 0:
            worker.send(1, "a", (7.0,))

    talk(timing(1, 3, *PLAIN), script)
    assert heard == [((1 + k) % 3, 7.0 - k) for k in range(8)]


@pytest.mark.parametrize("shards", [1, 3])
def test_servers_and_tasks_beside_end_with_the_workers(shards):
    ended: list[int] = []

    async def server(worker: Any) -> None:
        worker.beside(listening(worker, "other", []))
        await listening(worker, "push", [])
        ended.append(worker.rank)

    async def script(worker: Any) -> None:
        await worker.gradient(worker.initial())

    cluster = talk(timing(1, 2, *SERVED, f"server.shards={shards}"), script, server, seconds=[1.0, 3.0])
    assert ended == list(range(2, 2 + shards))
    assert cluster.engine.now == 3.0
    assert not cluster.engine.tasks


def test_a_deadlock_names_who_waits_for_what():
    async def script(worker: Any) -> None:
        if worker.rank == 0:
            await worker.receive(1, "answers", like=(0.0,))
        if worker.rank == 1:
            async for _ in worker.messages("questions", like=(0.0,)):
                pass
        if worker.rank == 2:
            worker.beside(listening(worker, "news", []))

    with pytest.raises(DeadlockError) as error:
        talk(timing(1, 3, *PLAIN), script)
    said = str(error.value)
    assert "worker 0 waits for a message of worker 1 on 'answers'" in said
    assert "worker 1 waits for messages on 'questions'" in said
    assert "worker 2 waits for the others to leave: 0, 1" in said
    assert "worker 2, beside waits for messages on 'news'" in said
