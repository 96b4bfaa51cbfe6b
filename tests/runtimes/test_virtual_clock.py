"""What the virtual clock says of whole methods, against arithmetic by hand.

Compute takes C seconds, a vector V bytes, a link B bytes per second, so that a vector takes V / B; SGP's messages also
hold the push-sum weight. Latency is 0 unless a test says otherwise.
"""

from __future__ import annotations

import math

import pytest
import torch
from harness import SMALL, configure
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import changed, play, timing

from algorithms.topologies import one_peer_exponential

C, V, B = 1.0, 1e8, 1e9
WEIGHT = 8  # bytes
durations = st.floats(0.01, 10)
ALLREDUCE, SGP, DPSGD = ("algorithm=allreduce",), ("algorithm=sgp",), ("algorithm=dpsgd", "topology=ring")
HIDING, WAITING = "algorithm.order=adapt_with_combine", "algorithm.order=adapt_then_combine"


def overlap(tau: int, merge: str = "exact") -> tuple[str, ...]:
    return (*SGP, f"algorithm.overlap={tau}", f"algorithm.merge={merge}")


# One step -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.floats(0, 1), st.floats(1e6, 1e10), st.floats(0.1, 1))
def test_a_message_takes_latency_and_its_bytes(latency, bandwidth, efficiency):
    inter = {"latency_s": latency, "bandwidth": bandwidth, "efficiency": efficiency, "loss": 0.0}
    played = play(changed(timing(3, 2, *SGP), cluster__inter=inter))
    step = C + latency + (V + WEIGHT) / (efficiency * bandwidth)
    for times in played.times:
        assert times == pytest.approx([step, 2 * step, 3 * step])


@pytest.mark.parametrize("n", [2, 5, 8])
def test_messages_to_one_receiver_come_one_after_the_other(n):
    """A star's hub gets n - 1 messages, and sends n - 1: a parameter server's contention, modelled nowhere."""
    star = ("algorithm=dpsgd", WAITING, "topology=star", "topology.weights=metropolis")
    played = play(timing(1, n, *star, "cluster.inter.latency_s=0.01"))
    ends = [times[0] for times in played.times]
    assert ends[0] == pytest.approx(C + 0.01 + (n - 1) * V / B)
    assert ends[1:] == pytest.approx([C + 0.01 + k * V / B for k in range(1, n)])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_ring_all_reduce(n):
    played = play(timing(2, n, *ALLREDUCE, "cluster.inter.latency_s=0.01"))
    step = C + 2 * (n - 1) * 0.01 + 2 * (n - 1) / n * V / B
    assert played.times == [pytest.approx([step, 2 * step])] * n


def test_a_tree():
    played = play(timing(1, 6, *ALLREDUCE, "cluster.inter.latency_s=0.01", "cluster.reduction=tree"))
    assert played.times == [[pytest.approx(C + 2 * 3 * (0.01 + V / B))]] * 6


@pytest.mark.parametrize("worker", ["node", "gpu"])
def test_an_all_reduce_goes_inside_nodes_and_between_them(worker):
    inner = ("cluster.intra.latency_s=0.001", "cluster.intra.bandwidth=1.0e10")
    played = play(timing(1, 3, *ALLREDUCE, *inner, f"algorithm.worker={worker}", gpus=4))
    inside = 2 * 3 * 0.001 + 2 * 3 / 4 * V / 1e10
    between = 2 * 2 / 3 * V / B
    assert played.times == [[pytest.approx(C + inside + between)]] * (3 if worker == "node" else 12)


def test_a_node_averages_inside_and_shares_its_messages_among_its_gpus():
    inner = ("cluster.intra.latency_s=0.001", "cluster.intra.bandwidth=1.0e10")
    played = play(timing(1, 2, *SGP, *inner, gpus=4))
    averaging = 2 * 3 * 0.001 + 2 * 3 / 4 * V / 1e10
    gathering = 3 * 0.001 + 3 / 4 * V / 1e10
    assert played.times == [[pytest.approx(C + averaging + (V + 4 * WEIGHT) / B + gathering)]] * 2


def test_workers_of_a_node_share_its_network_card():
    """Under this graph 0 sends to 1 and 2, and 1 to 2 and 3: three messages leave node 0, as many come."""
    free = ("algorithm.worker=gpu", "cluster.intra.bandwidth=1.0e99")
    played = play(timing(1, 2, *SGP, *free, "topology=static_exponential", gpus=2))
    message = (V + WEIGHT) / B
    assert [times[0] for times in played.times] == pytest.approx([C + k * message for k in (2, 3, 2, 3)])


@pytest.mark.parametrize("core", [1e9, 4e9, 1e11])
def test_a_core_switch_is_shared(core):
    played = play(timing(1, 8, *SGP, f"cluster.core_bandwidth={core}"))
    ends = sorted(times[0] for times in played.times)
    through, own = (V + WEIGHT) / core, (V + WEIGHT) / B
    assert ends == pytest.approx([C + k * through + max(through, own) for k in range(8)])


def test_a_link_that_differs():
    slow = "cluster.links=[{link: [0, 1], bandwidth: 1.0e+8}]"
    played = play(timing(1, 4, *SGP, slow))  # step 0: i sends to i + 1
    assert [times[0] for times in played.times] == pytest.approx([1.1, 2.0, 1.1, 1.1])


# Overlap ------------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(durations, durations)
def test_an_exchange_beside_the_gradient_hides_the_shorter_of_the_two(compute, message):
    values = {"cost__seconds_per_gradient": compute, "cost__message_bytes": round(message * B)}
    hiding = play(changed(timing(4, 2, *DPSGD, HIDING), **values)).end_s
    waiting = play(changed(timing(4, 2, *DPSGD, WAITING), **values)).end_s
    assert hiding == pytest.approx(4 * max(compute, message))
    assert waiting - hiding == pytest.approx(4 * min(compute, message))


@settings(max_examples=20)
@given(durations, durations)
def test_overlapped_sgp_hides_the_shorter_of_the_two(compute, message):
    values = {"cost__seconds_per_gradient": compute, "cost__message_bytes": round(message * B)}
    times = play(changed(timing(5, 2, *overlap(1)), **values)).times[0]
    assert times[:5] == pytest.approx([compute + k * max(compute, message) for k in range(5)])


@settings(max_examples=20)
@given(st.floats(0.01, 1), st.floats(0, 1), st.integers(2, 8))
def test_buckets_are_reduced_during_the_backward_pass(message, backward, n):
    """An independent recursion over DDP's buckets; the two ends of the scale beside it."""
    values = {"cost__message_bytes": round(message * B), "cost__backward_share": backward}
    with_overlap = play(changed(timing(1, n, *ALLREDUCE), **values, cost__overlap_backward=True)).end_s
    without = play(changed(timing(1, n, *ALLREDUCE), **values)).end_s
    left, end, done = round(message * B), 0.0, 0.0
    total, sizes = left, []
    while left:
        sizes.append(min(left, 25 * 2**20 if sizes else 2**20))
        left -= sizes[-1]
    for size in sizes:
        done += size
        ready = C * (1 - backward) + C * backward * done / total
        end = max(end, ready) + 2 * (n - 1) / n * size / B
    assert with_overlap == pytest.approx(end)
    assert without == pytest.approx(C + 2 * (n - 1) / n * total / B)
    assert C + 2 * (n - 1) / n * sizes[-1] / B <= with_overlap + 1e-9
    assert with_overlap <= without + 1e-9


# Stragglers ---------------------------------------------------------------------------------------------------------

FREE = "cost.message_bytes=1"  # messages that take no time to speak of
LATE = 1e-3


def delayed(late: list[list[float]], usual: list[list[float]]) -> list[set[int]]:
    """By step, the workers that ended it late."""
    return [
        {rank for rank, (a, b) in enumerate(zip(late, usual, strict=True)) if a[k] - b[k] > LATE}
        for k in range(min(map(len, usual)))
    ]


def hiccup(config, rank: int, step: int, seconds: float) -> list[list[float]]:
    """The times of a run in which one worker takes that much longer for one gradient."""
    return play(config, lambda worker, draw: C + (seconds if (worker, draw) == (rank, step) else 0.0)).times


@pytest.mark.parametrize("k", [0, 3])
def test_a_delay_reaches_everybody_at_once_under_allreduce(k):
    config = timing(8, 8, *ALLREDUCE, FREE)
    late = delayed(hiccup(config, 5, k, 0.5), play(config).times)
    assert late == [set()] * k + [set(range(8))] * (8 - k)


@pytest.mark.parametrize("k", [0, 3, 4])
def test_a_delay_spreads_hop_by_hop_under_sgp(k):
    """By step k + h it has reached exactly those to whom messages of steps k to k + h lead."""
    n, rank = 16, 5
    config = timing(9, n, *SGP, FREE)
    late = delayed(hiccup(config, rank, k, 0.5), play(config).times)
    slots, reached = one_peer_exponential(n).slots, {rank}
    assert late[:k] == [set()] * k
    for h in range(9 - k):
        mixing = slots[(k + h) % len(slots)]
        reached = reached | {j for i in reached for j in mixing.outgoing[i]}
        assert late[k + h] == reached
        assert len(reached) == min(2 ** (h + 1), n)


@pytest.mark.parametrize("overrides", [ALLREDUCE, SGP, overlap(1), overlap(2, "arrived"), (*DPSGD, HIDING)])
def test_a_persistent_straggler_sets_the_pace_of_all(overrides):
    config = timing(40, 8, *overrides, FREE)
    times = play(config, lambda worker, draw: 2.5 * C if worker == 3 else C).times
    paces = [(each[39] - each[18]) / 21 for each in times]  # whole periods of the graph
    assert paces == pytest.approx([2.5 * C] * 8, rel=1e-6)


@pytest.mark.parametrize("merge", ["exact", "arrived"])
@pytest.mark.parametrize("tau", [0, 1, 2, 3])
def test_overlap_absorbs_as_many_steps_of_a_delay(tau, merge):
    config = timing(12, 8, *overlap(tau, merge), FREE)
    usual = [times[:12] for times in play(config).times]  # without the messages collected at the end
    assert delayed(hiccup(config, 5, 3, tau * C), usual) == [set()] * 3 + [{5} if tau else set()] * 9
    beyond = hiccup(config, 5, 3, tau * C + 0.25)
    assert delayed(beyond, usual)[3 + tau] > {5}
    others = [beyond[rank][3 + tau] - usual[rank][3 + tau] for rank in range(8) if rank != 5]
    assert max(others) == pytest.approx(0.25)  # what is left of it


# The split of time --------------------------------------------------------------------------------------------------

METHODS = {
    "allreduce": ALLREDUCE,
    "sgp": SGP,
    "sgp overlap": overlap(1, "arrived"),
    "dpsgd beside": (*DPSGD, HIDING),
    "dpsgd after": (*DPSGD, WAITING),
}


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_computing_and_waiting_add_up(method, gpus):
    spread = ("cluster.compute.distribution=lognormal", "cluster.compute.slow={1: 2.0}", "cost.overlap_backward=true")
    played = play(timing(10, 4, *METHODS[method], *spread, gpus=gpus))
    for worker, times in zip(played.workers, played.times, strict=True):
        computing = math.fsum(played.simulation.cluster.seconds_of(worker.rank, draw) for draw in range(10))
        assert computing + worker.split.wait_s == pytest.approx(times[-1])
        assert worker.split.data_s == 0
    assert max(worker.split.wait_s for worker in played.workers) > 0


# Loss of messages ---------------------------------------------------------------------------------------------------

LOSSY = ("launcher=simulated", *SMALL, "nodes=4", "gpus_per_node=1", "epochs=2", "cluster.inter.loss=0.05")


def test_sgp_goes_on_without_the_messages_that_are_lost():
    played = play(configure(*LOSSY, *SGP))
    steps = played.workers[0].draws
    assert [len(iterates) for iterates in played.iterates] == [steps] * 4
    weights = torch.tensor([worker.state.w for worker in played.workers], dtype=torch.float64)
    assert 0 < weights.sum() < 4  # what was lost is gone
    last = torch.stack([iterates[-1] for iterates in played.iterates])
    assert last.isfinite().all()
    apart = torch.linalg.vector_norm(last - last.mean(0), dim=1)
    assert (apart < 0.5 * torch.linalg.vector_norm(last, dim=1)).all()


def test_the_same_seed_loses_the_same_messages():
    first, again = play(configure(*LOSSY, *SGP)), play(configure(*LOSSY, *SGP))
    assert first.times == again.times
    for a, b in zip(first.iterates, again.iterates, strict=True):
        assert torch.equal(torch.stack(a), torch.stack(b))
    other = play(configure(*LOSSY, *SGP, "seed=1"))
    assert [worker.state.w for worker in other.workers] != [worker.state.w for worker in first.workers]


def test_a_link_without_loss_keeps_all_mass():
    played = play(configure(*LOSSY, *SGP, "cluster.inter.loss=0", "topology=star"))
    assert sum(worker.state.w for worker in played.workers) == pytest.approx(4)


def test_a_lossy_link_loses_as_many_as_it_says_from_when_on_it_says():
    """Every message that arrives is passed on inside its node, which counts as bytes sent."""
    steps, plan = 400, "failures.plan=[{link: [0, 1], loss: 0.25, from_s: 250}]"
    played = play(timing(steps, 2, *SGP, plan, "cluster.intra.bandwidth=1.0e99", gpus=2))
    arrived = [
        (worker.split.bytes_sent - steps * (V + V / 2 + WEIGHT)) / (V / 2)  # less the gradients' and the messages'
        for worker in played.workers
    ]
    after = sum(time_s - (V / B) > 250 for time_s in played.times[0])
    assert arrived[0] == steps
    assert (steps - arrived[1]) / after == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(
    ("from_s", "until_s", "end_s"), [(0.5, 2.0, 2.05), (0.5, 9.0, 2.5), (1.05, 1.25, 1.33), (0.0, 0.5, 1.15)]
)
def test_a_reduction_finds_the_links_as_they_are_when_it_runs(from_s, until_s, end_s):
    """4 workers, 1 s of computing, then a ring of 0.15 s, at a tenth of the pace while a link is bad."""
    bad = f"{{link: [0, 1], from_s: {from_s}, until_s: {until_s}, bandwidth_factor: 0.1}}"
    overrides = (
        *("algorithm=allreduce", "launcher=simulated", "problem=none", "nodes=4", "gpus_per_node=1", "batch_size=1"),
        *("problem.train_samples=4", "epochs=1", "cost.message_bytes=100000000", "cost.seconds_per_gradient=1.0"),
        *("cost.overlap_backward=false", "cluster.inter={latency_s: 0, bandwidth: 1.0e9}", f"failures.plan=[{bad}]"),
    )
    assert play(configure(*overrides)).end_s == pytest.approx(end_s)


def test_a_message_goes_on_at_the_pace_of_each_time():
    """8 s of a message; a second at a tenth of the pace costs 0.9 s of them."""
    trouble = "failures.plan=[{link: [0, 1], from_s: 3, until_s: 4, bandwidth_factor: 0.1}]"
    played = play(timing(1, 2, *SGP, "cost.message_bytes=8e9", trouble))
    assert played.times == [[pytest.approx(9.0)], [pytest.approx(9.9)]]
