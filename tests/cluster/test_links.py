"""What crosses a link, when: the arithmetic of messages and of all-reduces."""

from __future__ import annotations

import math
from itertools import pairwise
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.build import ConfigError
from runner.cluster.failures import Failures
from runner.cluster.links import Link, Network, make_link

INNER = Link(1e-6, 1e11)

latencies = st.floats(0, 1e-2)
bandwidths = st.floats(1e6, 1e11)
sizes = st.floats(1, 1e9)


def network(link: Link, nodes: int = 8, workers_per_node: int = 1, lanes: int = 1, **settings) -> Network:
    settings.setdefault("overrides", {})
    return Network(nodes, workers_per_node, lanes, link, INNER, **settings)


def send(net: Network, messages: list[tuple[int, int]], nbytes: float, now: float = 0.0) -> list[float]:
    """Post messages (source, target) of one size at the same time, in that order; when each has arrived."""
    links = [net.link(source, target, now) for source, target in messages]
    heads = [net.leave(link, source, nbytes, now) for link, (source, _) in zip(links, messages, strict=True)]
    arrived = [0.0] * len(messages)
    for i in sorted(range(len(messages)), key=heads.__getitem__):
        arrived[i] = net.arrive(links[i], messages[i][1], nbytes, heads[i])
    return arrived


@given(latencies, bandwidths, st.floats(0.1, 1), sizes, st.floats(0, 100))
def test_one_message_takes_latency_and_its_bytes(latency, bandwidth, efficiency, nbytes, now):
    [arrived] = send(network(Link(latency, bandwidth, efficiency)), [(0, 1)], nbytes, now)
    assert arrived == pytest.approx(now + latency + nbytes / (efficiency * bandwidth), rel=1e-12)


@given(st.integers(1, 7), latencies, bandwidths, sizes)
def test_messages_to_one_receiver_come_one_after_the_other(count, latency, bandwidth, nbytes):
    arrived = send(network(Link(latency, bandwidth)), [(i, 0) for i in range(1, count + 1)], nbytes)
    assert arrived == pytest.approx([latency + k * nbytes / bandwidth for k in range(1, count + 1)], rel=1e-9)


@given(st.integers(1, 7), latencies, bandwidths, sizes)
def test_messages_of_one_sender_leave_one_after_the_other(count, latency, bandwidth, nbytes):
    arrived = send(network(Link(latency, bandwidth)), [(0, i) for i in range(1, count + 1)], nbytes)
    assert arrived == pytest.approx([latency + k * nbytes / bandwidth for k in range(1, count + 1)], rel=1e-9)


def test_the_two_directions_and_other_pairs_do_not_disturb_each_other():
    link = Link(1e-3, 1e6)
    alone = 1e-3 + 1.0
    assert send(network(link), [(0, 1), (1, 0), (2, 3), (3, 4), (4, 2)], 1e6) == pytest.approx([alone] * 5)


def test_workers_of_a_node_share_its_network_card_but_not_its_inner_links():
    inner = 1e-6 + 1e6 / 1e11
    net = network(Link(0.0, 1e6), nodes=2, workers_per_node=2)
    assert send(net, [(0, 2), (1, 3), (0, 1), (1, 0)], 1e6) == pytest.approx([1.0, 2.0, inner, inner])


@given(st.integers(1, 4), st.floats(1e5, 1e8))
def test_a_core_switch_is_crossed_one_after_the_other(pairs, core):
    net = network(Link(1e-3, 1e6), core_bandwidth=core)
    arrived = send(net, [(2 * i, 2 * i + 1) for i in range(pairs)], 1e6)
    through, own = 1e6 / core, 1.0
    assert arrived == pytest.approx([1e-3 + k * through + max(own, through) for k in range(pairs)])


def test_a_core_switch_does_not_stand_between_the_workers_of_a_node():
    net = network(Link(1e-3, 1e6), nodes=1, workers_per_node=2, core_bandwidth=1.0)
    assert send(net, [(0, 1)], 1e6) == pytest.approx([1e-6 + 1e6 / 1e11])


def test_a_link_that_differs_does_so_one_way_and_for_one_pair():
    slow = make_link({"bandwidth": 1e5}, "cluster.links", base=Link(1e-3, 1e6))
    assert slow.latency_s == 1e-3
    net = network(Link(1e-3, 1e6), overrides={(0, 1): slow})
    assert send(net, [(0, 1)], 1e6) == pytest.approx([10.001])
    assert send(net, [(1, 0), (2, 3)], 1e6) == pytest.approx([1.001, 1.001])


def test_trouble_holds_between_its_times_and_adds_up():
    plan = [
        {"link": [0, 1], "from_s": 5, "until_s": 10, "bandwidth_factor": 0.5, "latency_factor": 3, "loss": 0.5},
        {"link": [0, 1], "both_ways": True, "from_s": 8, "bandwidth_factor": 0.5, "loss": 0.5},
    ]
    net = network(Link(1.0, 1e6), changes=Failures(plan).link_changes(8))

    def at(source, target, now):
        link = net.link(source, target, now)
        return link.latency_s, link.bandwidth, link.loss

    assert at(0, 1, 4.9) == at(1, 0, 7) == at(2, 3, 9) == (1.0, 1e6, 0.0)
    assert at(0, 1, 5) == (3.0, 5e5, 0.5)
    assert at(0, 1, 9) == (3.0, 2.5e5, 0.75)
    assert at(0, 1, 10) == at(1, 0, 8) == (1.0, 5e5, 0.5)


# Trouble while something is under way --------------------------------------------------------------------------------

moments = st.floats(0, 20)


@st.composite
def plans(draw):
    """Entries of a plan for the link from 0 to 1."""
    starts = draw(st.lists(moments, max_size=4))
    return [
        {
            "link": [0, 1],
            "from_s": start,
            "until_s": draw(st.one_of(st.just(math.inf), st.floats(start + 0.1, start + 10))),
            "bandwidth_factor": draw(st.floats(0.05, 3)),
            "loss": 0.5,
        }
        for start in starts
    ]


def bytes_between(plan, bandwidth: float, begin: float, end: float) -> float:
    """What the link carries: bandwidth x time, piece by piece."""
    times = sorted({begin, end, *(t for entry in plan for t in (entry["from_s"], entry["until_s"]) if begin < t < end)})
    total = 0.0
    for a, b in pairwise(times):
        factors = [entry["bandwidth_factor"] for entry in plan if entry["from_s"] <= a < entry["until_s"]]
        total += (b - a) * bandwidth * math.prod(factors)
    return total


@given(plans(), st.floats(1, 100), st.floats(0.1, 1), moments)
def test_a_message_crosses_a_link_at_the_pace_of_each_time(plan, nbytes, efficiency, now):
    net = network(Link(0.0, 10.0, efficiency), changes=Failures(plan).link_changes(8))
    [arrived] = send(net, [(0, 1)], nbytes, now)
    assert bytes_between(plan, 10.0 * efficiency, now, arrived) == pytest.approx(nbytes)


@given(plans(), st.lists(st.floats(1, 100), min_size=1, max_size=4), moments)
def test_messages_one_after_the_other_use_all_that_a_link_in_trouble_carries(plan, sizes, now):
    net = network(Link(0.0, 10.0), changes=Failures(plan).link_changes(8))
    left = [net.leave(net.link(0, 1, now), 0, nbytes, now) for nbytes in sizes][-1]
    assert bytes_between(plan, 10.0, now, left) == pytest.approx(sum(sizes[:-1]), abs=1e-6)
    there = [send(net, [(0, 1)], nbytes, now)[0] for nbytes in sizes]
    assert there == sorted(there)


@given(plans(), st.floats(1, 100), moments, st.integers(2, 6))
def test_a_ring_goes_on_at_the_pace_of_its_slowest_link_at_each_time(plan, nbytes, now, n):
    slower = [{**entry, "bandwidth_factor": min(1.0, entry["bandwidth_factor"])} for entry in plan]
    net = network(Link(0.0, 10.0), nodes=n, changes=Failures(slower).link_changes(n))
    takes = net.all_reduce_s(range(n), nbytes, now)
    assert bytes_between(slower, 10.0, now, now + takes) == pytest.approx(2 * (n - 1) / n * nbytes)


def test_a_short_trouble_costs_no_more_than_it_lasts():
    """8 s of a message; a second at a tenth of the pace costs 0.9 s, whenever it comes."""
    for from_s in (0, 3, 6.5):
        trouble = {"link": [0, 1], "from_s": from_s, "until_s": from_s + 1, "bandwidth_factor": 0.1}
        net = network(Link(0.5, 1e6), changes=Failures([trouble]).link_changes(8))
        assert send(net, [(0, 1)], 8e6) == pytest.approx([8.5 + (0.9 if from_s else 0.45)])  # its head is 0.5 s late
        assert network(Link(0.0, 4e6 / 3), 4, changes=net.changes).all_reduce_s(range(4), 8e6, 0.0) == pytest.approx(
            2 * 3 / 4 * 6 + 0.9
        )


def test_a_message_that_leaves_after_a_trouble_has_nothing_to_do_with_it():
    trouble = {"link": [0, 1], "until_s": 1, "bandwidth_factor": 0.5, "latency_factor": 100}
    net = network(Link(1e-3, 1e6), changes=Failures([trouble]).link_changes(8))
    assert send(net, [(0, 2), (0, 1)], 1e6)[1] == pytest.approx(1.0 + 1e-3 + 1.0)


@given(latencies, bandwidths, sizes, st.floats(0, 1e6))
def test_a_trouble_elsewhere_or_later_does_not_change_a_bit(latency, bandwidth, nbytes, now):
    link = Link(latency, bandwidth)
    plan = [{"link": [2, 3], "bandwidth_factor": 0.5}, {"link": [0, 1], "from_s": 1e12, "bandwidth_factor": 0.5}]
    plain, troubled = network(link), network(link, changes=Failures(plan).link_changes(8))
    [arrived] = send(plain, [(0, 1)], nbytes, now)
    assert arrived == now + latency + nbytes / bandwidth
    assert send(troubled, [(0, 1)], nbytes, now) == [arrived]
    assert troubled.all_reduce_s((0, 1, 4), nbytes, now) == plain.all_reduce_s((0, 1, 4), nbytes, now)


@given(st.integers(2, 64), latencies, bandwidths, sizes)
def test_a_ring_all_reduce(n, latency, bandwidth, nbytes):
    net = network(Link(latency, bandwidth), nodes=n)
    expected = 2 * (n - 1) * latency + 2 * (n - 1) / n * nbytes / bandwidth
    assert net.all_reduce_s(range(n), nbytes, 0.0) == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 64), latencies, bandwidths, sizes)
def test_a_binomial_tree(n, latency, bandwidth, nbytes):
    net = network(Link(latency, bandwidth), nodes=n, reduction="tree")
    expected = 2 * ceil(log2(n)) * (latency + nbytes / bandwidth)
    assert net.all_reduce_s(range(n), nbytes, 0.0) == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 8), st.integers(2, 8), sizes)
def test_gpus_reduce_inside_their_nodes_and_the_nodes_between_them(nodes, gpus, nbytes):
    link = Link(1e-4, 1e9)
    between = network(link, nodes=nodes).all_reduce_s(range(nodes), nbytes, 0.0)
    inside = network(INNER, nodes=gpus).all_reduce_s(range(gpus), nbytes, 0.0)
    as_nodes, as_gpus = network(link, nodes, 1, gpus), network(link, nodes, gpus, 1)
    assert as_nodes.all_reduce_s(range(nodes), nbytes, 0.0) == pytest.approx(between + inside)
    assert as_gpus.all_reduce_s(range(nodes * gpus), nbytes, 0.0) == pytest.approx(between + inside)
    assert as_nodes.all_reduce_s([1], nbytes, 0.0) == pytest.approx(inside)
    assert as_gpus.all_reduce_s(range(gpus, 2 * gpus), nbytes, 0.0) == pytest.approx(inside)  # those of one node
    one_of_each = [node * gpus for node in range(nodes)]
    assert as_gpus.all_reduce_s(one_of_each, nbytes, 0.0) == pytest.approx(between)


def test_a_ring_runs_at_the_pace_of_its_slowest_link():
    slow = Link(1e-2, 1e5)
    in_the_way, beside = ({pair: slow} for pair in [(1, 2), (2, 1)])  # a ring goes one way round
    expected = 2 * 3 * 1e-2 + 2 * 3 / 4 * 1e6 / 1e5
    assert network(Link(1e-3, 1e6), 4, overrides=in_the_way).all_reduce_s(range(4), 1e6, 0.0) == pytest.approx(expected)
    usual = network(Link(1e-3, 1e6), 4).all_reduce_s(range(4), 1e6, 0.0)
    assert network(Link(1e-3, 1e6), 4, overrides=beside).all_reduce_s(range(4), 1e6, 0.0) == usual


def test_the_messages_of_a_ring_cross_the_core_together():
    net = network(Link(0.0, 1e6), 4, core_bandwidth=2e6)  # where four links of 1e6 meet
    assert net.all_reduce_s(range(4), 1e6, 0.0) == pytest.approx(2 * 3 * 1e6 / 2e6)


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"latency_s": -1.0}, "latency_s=-1.0"),
        ({"latency_s": float("inf")}, "latency_s=inf"),
        ({"latency_s": "soon"}, "latency_s=soon"),
        ({"bandwidth": 0}, "bandwidth=0"),
        ({"bandwidth": True}, "bandwidth=True"),
        ({"bandwidth": float("nan")}, "bandwidth=nan"),
        ({"bandwidth": 10}, "bandwidth=10: must be 1e5 or more, in bytes per second: 10 Gbit/s is 1.25e9"),
        ({"efficiency": 0}, "efficiency=0"),
        ({"efficiency": 1.1}, "efficiency=1.1"),
        ({"loss": 1.5}, "loss=1.5"),
        ({"latncy_s": 1.0}, "latncy_s"),
        (5, "=5"),
    ],
)
def test_what_a_link_cannot_be(node, key):
    with pytest.raises(ConfigError, match=r"cluster\.inter") as error:
        make_link(node, "cluster.inter", base=Link(1e-3, 1e6))
    assert key in str(error.value)


def test_a_link_of_its_own_needs_both_numbers():
    with pytest.raises(ConfigError, match=r"cluster\.intra\.bandwidth: is missing"):
        make_link({"latency_s": 1e-3}, "cluster.intra")


def test_a_link_of_its_own_for_reductions_gives_way_only_where_a_link_was_named():
    own, slow = Link(0.0, 2e9), Link(0.0, 1e8)
    ring_s = 2 * 3 / 4 * 1e9 / 2e9

    def network(**more):
        return Network(4, 1, 1, Link(0.0, 1e9), Link(0.0, 1e12), more.pop("overrides", {}), reduction_link=own, **more)

    assert network().all_reduce_s(range(4), 1e9, 0.0) == pytest.approx(ring_s)
    assert network(overrides={(0, 2): slow}).all_reduce_s(range(4), 1e9, 0.0) == pytest.approx(ring_s)
    assert network(overrides={(0, 1): slow}).all_reduce_s(range(4), 1e9, 0.0) == pytest.approx(2 * 3 / 4 * 10)
    halved = Failures([{"link": [1, 2], "from_s": 5, "bandwidth_factor": 0.5}]).link_changes(4)
    assert network(changes=halved).all_reduce_s(range(4), 1e9, 0.0) == pytest.approx(ring_s)
    assert network(changes=halved).all_reduce_s(range(4), 1e9, 5.0) == pytest.approx(2 * ring_s)


def test_the_rounds_of_a_tree_cross_the_core_with_the_messages_that_they_have():
    network = Network(8, 1, 1, Link(0.0, 1e12), Link(0.0, 1e12), {}, core_bandwidth=1e9, reduction="tree")
    assert network.all_reduce_s(range(8), 1e9, 0.0) == pytest.approx(2 * (4 + 2 + 1))


def test_a_mean_of_what_the_gpus_of_a_worker_hold_alike_needs_no_reduction_inside():
    network = Network(2, 1, 4, Link(0.0, 1e9), Link(0.0, 1e9), {})
    assert network.mean_s((0, 1), 1e9, 0.0) == pytest.approx(1 + 0.75)
    assert network.all_reduce_s((0, 1), 1e9, 0.0) == pytest.approx(1 + 1.5)
