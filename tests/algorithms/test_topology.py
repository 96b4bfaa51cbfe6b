"""Mixing matrices, topologies and their schedules as data, and the text that describes them."""

import doctest
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import topology
from algorithms.topologies import complete, one_peer_exponential, random_peer, ring, star
from algorithms.topology import Mixing, Phases, Topology, describe, matrix, product, spectral_gap


@settings(deadline=None)
@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_any_directed_graph_mixes_uniformly(peers: list[set[int]]) -> None:
    """Both maps hold the matrix, in ascending order; the properties are those of the matrix."""
    n = len(peers)
    mixing = Mixing.uniform(ranks - {i} for i, ranks in enumerate(peers))
    P = matrix(mixing)
    ones = torch.ones(n, dtype=torch.float64)
    torch.testing.assert_close(P.sum(dim=0), ones, rtol=0, atol=1e-12)
    for i in range(n):
        assert list(mixing.outgoing[i].items()) == [(j, P[j, i].item()) for j in range(n) if j != i and P[j, i] > 0]
        assert list(mixing.incoming[i].items()) == [(j, P[i, j].item()) for j in range(n) if j != i and P[i, j] > 0]
        assert mixing.own[i] == P[i, i].item()
    assert mixing.doubly_stochastic == torch.allclose(P.sum(dim=1), ones, rtol=0, atol=1e-12)
    assert mixing.symmetric == torch.equal(P, P.T)


def test_maps_are_sorted_whatever_the_order_given() -> None:
    mixing = Mixing([0.25, 1, 1, 1], [{3: 0.25, 1: 0.25, 2: 0.25}, {}, {}, {}])
    assert list(mixing.outgoing[0]) == [1, 2, 3]
    assert mixing == Mixing([0.25, 1, 1, 1], [{1: 0.25, 2: 0.25, 3: 0.25}, {}, {}, {}])


def test_later_slots_stand_on_the_left() -> None:
    first, second = Mixing.uniform([[1], [], []]), Mixing.uniform([[], [2], []])
    graph = Topology("mine", [first, second])
    assert torch.equal(product(graph), matrix(second) @ matrix(first))
    assert product(graph)[2, 0] == 0.25  # 0 reaches 2 by way of 1


def test_spectral_gap_of_known_graphs() -> None:
    assert [spectral_gap(complete(n)) for n in (1, 2, 5, 64)] == pytest.approx([1] * 4)
    assert spectral_gap(ring(4)) == pytest.approx(2 / 3)  # eigenvalues (1 + 2 cos(pi l / 2)) / 3
    P = matrix(star(7).at(0))
    assert spectral_gap(star(7)) == pytest.approx(1 - torch.linalg.eigvals(P).abs().sort().values[-2].item())
    assert spectral_gap(Topology("apart", [Mixing.uniform([[], []])])) == pytest.approx(0)


def test_phases_start_at_their_own_first_slot() -> None:
    dense, sparse = complete(8), one_peer_exponential(8)
    phases = Phases(((0, dense), (4, sparse)))
    assert (phases.size, phases.name) == (8, "complete then one_peer_exponential")
    assert [phases.at(k) for k in range(8)] == [dense.at(0)] * 4 + [sparse.at(k) for k in (0, 1, 2, 0)]
    assert phases.doubly_stochastic
    assert phases.regular
    assert not phases.symmetric
    assert not Phases(((0, dense), (4, star(8)))).doubly_stochastic


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Phases(()), "topology.phases starts at nothing: the first phase must start at 0"),
        (lambda: Phases(((1, ring(4)),)), "topology.phases starts at [1]: the first phase must start at 0"),
        (
            lambda: Phases(((0, ring(4)), (0, complete(4)))),
            "topology.phases starts at the steps [0, 0]: each phase must start after the one before",
        ),
        (
            lambda: Phases(((0, ring(4)), (9, ring(5)))),
            "topology.phases has topologies of [4, 5] workers: make them all equal",
        ),
        (lambda: Topology("mine", ()), "topology=mine needs one slot or more, all of one size; the sizes are []"),
        (
            lambda: Topology("mine", (*ring(3).slots, *ring(4).slots)),
            "topology=mine needs one slot or more, all of one size; the sizes are [3, 4]",
        ),
        (lambda: Mixing([], []), "a mixing matrix needs as many columns as workers: 0 own, 0 outgoing"),
        (lambda: Mixing([0.5, 1], [{2: 0.5}, {}]), "worker 0 cannot send to 2: peers are the other ranks in 0..1"),
        (lambda: Mixing.uniform([[0], [0]]), "worker 0 cannot send to 0: peers are the other ranks in 0..1"),
        (lambda: Mixing([1.5, 1], [{1: -0.5}, {}]), "worker 0 sends the share -0.5 to 1: shares must be positive"),
        (
            lambda: Mixing([0.5, 1], [{1: 0.4}, {}]),
            "worker 0 keeps 0.5 and sends {1: 0.4}: it must keep a positive share, and the column must sum to 1",
        ),
        (
            lambda: Mixing([0.0, 1], [{1: 1.0}, {}]),
            "worker 0 keeps 0.0 and sends {1: 1.0}: it must keep a positive share, and the column must sum to 1",
        ),
        (
            lambda: Mixing([float("nan")], [{}]),
            "worker 0 keeps nan and sends {}: it must keep a positive share, and the column must sum to 1",
        ),
    ],
)
def test_errors_say_what_to_do(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        make()
    assert str(error.value) == message


def test_describe() -> None:
    assert describe(star(3)) == (
        "star: 3 workers, period 1\n"
        "  peers per step   sends to 1 to 2, hears from 1 to 2\n"
        "  matrices         column-stochastic, not symmetric, not regular\n"
        "  spectral gap     0.5 (1 - second largest |eigenvalue| of one period's product)\n"
        "  exact average    no, ‖product - J/3‖₂ = 0.5\n"
        "  P[j, i], the share of worker i's value (column) that goes to worker j (row):\n"
        "  step 0\n"
        "    1/3  1/2  1/2\n"
        "    1/3  1/2    .\n"
        "    1/3    .  1/2"
    )
    assert "exact average    yes" in describe(one_peer_exponential(64))
    assert "step 2 mod 3" in describe(one_peer_exponential(8))
    assert "and 4 more" in describe(random_peer(4, steps=20))
    assert "from step 5: one_peer_exponential: 4" in describe(Phases(((0, ring(4)), (5, one_peer_exponential(4)))))


def test_examples_in_the_documentation() -> None:
    results = doctest.testmod(topology)
    assert (results.failed, results.attempted) == (0, 1)
