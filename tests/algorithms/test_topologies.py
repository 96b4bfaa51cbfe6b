"""The topologies: what every one of them must hold, and what the papers say about them."""

import doctest
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import topologies
from algorithms.topologies import (
    bipartite_exponential,
    complete,
    hypercube,
    k_peer_exponential,
    one_peer_exponential,
    random_peer,
    random_regular,
    ring,
    sequence,
    star,
    static_exponential,
    torus,
)
from algorithms.topology import Topology, describe, matrix, product, spectral_gap

# One row per topology: how to make it for n workers, which n it allows, and what it is.
DOUBLY, SYMMETRIC = {"doubly_stochastic"}, {"doubly_stochastic", "symmetric"}


def any_n(n: int) -> bool:
    return True


TABLE: dict[str, tuple[Callable[[int], Topology], Callable[[int], bool], set[str]]] = {
    "one_peer_exponential": (one_peer_exponential, any_n, DOUBLY),
    "static_exponential": (static_exponential, any_n, DOUBLY),
    "k_peer_exponential": (k_peer_exponential, any_n, DOUBLY),
    "3 peers": (lambda n: k_peer_exponential(n, peers=3), any_n, DOUBLY),
    "2 peers, powers": (lambda n: k_peer_exponential(n, hops="powers"), any_n, DOUBLY),
    "4 peers, powers": (lambda n: k_peer_exponential(n, peers=4, hops="powers"), any_n, DOUBLY),
    "bipartite_exponential": (bipartite_exponential, lambda n: n == 1 or n % 2 == 0, SYMMETRIC),
    "ring": (ring, any_n, SYMMETRIC),
    "directed ring": (lambda n: ring(n, directed=True), any_n, DOUBLY),
    "complete": (complete, any_n, SYMMETRIC),
    "torus": (torus, any_n, SYMMETRIC),
    "hypercube": (hypercube, lambda n: n & (n - 1) == 0, SYMMETRIC),
    "star": (star, any_n, set()),
    "metropolis star": (lambda n: star(n, weights="metropolis"), any_n, SYMMETRIC),
    "random_regular": (random_regular, lambda n: n == 1 or (n % 2 == 0 and n > 3), SYMMETRIC),
    "degree 2": (lambda n: random_regular(n, degree=2, seed=n), lambda n: n != 2, SYMMETRIC),
    "dense": (
        lambda n: random_regular(n, degree=max(1, n - 2), seed=1),
        lambda n: n == 1 or n % 2 == 0,
        SYMMETRIC,
    ),
    "random_peer": (lambda n: random_peer(n, steps=20), any_n, set()),
    "any random_peer": (lambda n: random_peer(n, steps=20, among="any"), any_n, set()),
    "sequence": (lambda n: sequence(n, [ring(n), one_peer_exponential(n)]), any_n, DOUBLY),
}


def peers_of(graph: Topology, rank: int) -> list[int]:
    return [j for slot in graph.slots for j in slot.outgoing[rank]]


def strongly_connected(graph: Topology) -> bool:
    """Whether, over one period's edges, everyone reaches everyone."""
    union = sum(matrix(slot) for slot in graph.slots)
    return bool((torch.linalg.matrix_power(union, graph.size) > 0).all())


# What every topology holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
@settings(deadline=None)
@given(n=st.integers(1, 40))
def test_every_topology_is_checked_data(name: str, n: int) -> None:
    make, allows, properties = TABLE[name]
    if not allows(n):
        with pytest.raises(ValueError, match=f"topology=.* needs .*, got {n}: use"):
            make(n)
        return
    graph = make(n)
    assert graph.size == n
    assert graph.period == len(graph.slots) >= 1
    for slot in graph.slots:
        P = matrix(slot)
        torch.testing.assert_close(P.sum(dim=0), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-12)
        for i in range(n):
            assert i not in slot.outgoing[i]
            assert list(slot.outgoing[i]) == sorted(slot.outgoing[i])
            assert list(slot.incoming[i]) == sorted(slot.incoming[i])
            assert slot.incoming[i] == {j: slot.outgoing[j][i] for j in range(n) if i in slot.outgoing[j]}
        if "doubly_stochastic" in properties:
            torch.testing.assert_close(P.sum(dim=1), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-12)
        if "symmetric" in properties:
            assert torch.equal(P, P.T)
    for fact in properties:
        assert getattr(graph, fact)
    if "star" not in name and "random_peer" not in name:
        assert graph.regular
    if "random_peer" not in name:
        assert strongly_connected(graph)


@pytest.mark.parametrize("name", TABLE)
def test_one_worker_is_the_identity(name: str) -> None:
    graph = TABLE[name][0](1)
    assert {matrix(slot).item() for slot in graph.slots} == {1.0}
    assert graph.doubly_stochastic
    assert graph.symmetric
    assert graph.regular


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("n", [2, 3])
def test_two_and_three_workers(name: str, n: int) -> None:
    make, allows, _ = TABLE[name]
    if allows(n):
        assert all(set(slot.outgoing[0]) <= {1, 2} for slot in make(n).slots)


def test_coinciding_peers_count_once() -> None:
    for graph in (ring(2), torus(2), static_exponential(2), k_peer_exponential(2), complete(2)):
        assert graph.slots == one_peer_exponential(2).slots
    assert ring(3).slots == complete(3).slots == k_peer_exponential(3).slots == static_exponential(3).slots
    assert torus(4).slots == hypercube(4).slots  # 2 x 2: two neighbours, not four
    assert [len(peers) for peers in torus(6).slots[0].outgoing] == [3] * 6  # 2 x 3


def test_equal_arguments_give_equal_graphs_that_can_be_pickled() -> None:
    for make, _, _ in TABLE.values():
        assert pickle.loads(pickle.dumps(make(8))) == make(8)
    assert random_regular(20, seed=0) != random_regular(20, seed=1)
    assert random_peer(20, steps=2, seed=0) != random_peer(20, steps=2, seed=1)


# What the papers say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_one_period_of_one_peer_exponential_averages_exactly_for_powers_of_two(n: int) -> None:
    graph = one_peer_exponential(n)
    assert graph.period == n.bit_length() - 1
    assert torch.equal(product(graph), torch.full((n, n), 1 / n, dtype=torch.float64))
    assert spectral_gap(graph) == pytest.approx(1)


@pytest.mark.parametrize("n", [6, 12, 24])
def test_and_not_for_other_numbers_of_workers(n: int) -> None:
    residual = torch.linalg.matrix_norm(product(one_peer_exponential(n)) - 1 / n, ord=2).item()
    assert residual == pytest.approx(0.21, abs=0.01)


def test_one_peer_hops_follow_the_step() -> None:
    graph = one_peer_exponential(6)  # L = 3
    assert [dict(graph.at(k).outgoing[5]) for k in range(4)] == [{0: 0.5}, {1: 0.5}, {3: 0.5}, {0: 0.5}]


@pytest.mark.parametrize(
    ("n", "norm"),
    [*((n, (t - 1) / (t + 1)) for n in range(2, 34, 2) for t in [(n - 1).bit_length()]), (3, 0), (5, 0.25), (7, 0.354)],
)
def test_static_exponential_distance_to_the_average(n: int, norm: float) -> None:
    W = matrix(static_exponential(n).at(0))
    assert torch.linalg.matrix_norm(W - 1 / n, ord=2).item() == pytest.approx(norm, abs=5e-4)


@pytest.mark.parametrize(("among", "expected"), [("exponential", 0.36), ("any", 0.20)])
def test_independent_random_peers_mix_worse_than_the_cycle(among: Any, expected: float) -> None:
    products = torch.stack([product(random_peer(32, steps=5, seed=seed, among=among)) for seed in range(200)])
    second = torch.linalg.eigvals(products).abs().sort(descending=True).values[:, 1]
    assert second.mean().item() == pytest.approx(expected, abs=0.03)


def test_bipartite_meetings_of_eight_workers() -> None:
    graph = bipartite_exponential(8)
    assert peers_of(graph, 0) == [7, 1, 5, 3]
    assert peers_of(graph, 1) == [2, 0, 4, 6]


@pytest.mark.parametrize("n", range(2, 34, 2))
def test_bipartite_slots_are_pairs_of_even_and_odd(n: int) -> None:
    graph = bipartite_exponential(n)
    for slot in graph.slots:
        (partner,) = zip(*slot.outgoing, strict=True)
        assert all(partner[partner[i]] == i and (partner[i] - i) % 2 == 1 for i in range(n))
        assert set(slot.own) == {0.5}
    assert len(set(peers_of(graph, 0))) == graph.period  # nobody is met twice in a period


def test_two_peers_as_in_the_paper_and_as_in_the_code() -> None:
    def hops(graph: Topology) -> list[list[int]]:
        return [list(slot.outgoing[0]) for slot in graph.slots]

    assert hops(k_peer_exponential(16)) == [[1, 2], [2, 4], [4, 8], [1, 8]]
    assert hops(k_peer_exponential(27, hops="powers")) == [[1, 2], [3, 6], [9, 18]]
    assert hops(k_peer_exponential(6, hops="powers")) == [[1, 2], [3]]  # 6 is 0 modulo 6
    assert hops(k_peer_exponential(5, hops="powers")) == [[1, 2], [1, 3]]  # 6 is 1 modulo 5
    assert k_peer_exponential(8, peers=3).slots == static_exponential(8).slots
    for n in (6, 8, 9):
        assert k_peer_exponential(n, peers=1).slots == one_peer_exponential(n).slots
        assert k_peer_exponential(n, peers=1, hops="powers").slots == one_peer_exponential(n).slots


@pytest.mark.parametrize(("n", "peers"), [(3, 2), (9, 2), (27, 2), (16, 3), (25, 4)])
def test_code_hops_average_exactly_for_powers(n: int, peers: int) -> None:
    P = product(k_peer_exponential(n, peers, hops="powers"))
    torch.testing.assert_close(P, torch.full_like(P, 1 / n), rtol=0, atol=1e-15)


# Particular graphs --------------------------------------------------------------------------------------------------


def test_torus_shapes() -> None:
    assert set(torus(12).at(0).outgoing[5]) == {1, 4, 6, 9}  # 3 x 4, row 1, column 1
    assert torus(12, rows=2).at(0).outgoing[0].keys() == {1, 5, 6}
    assert torus(7).slots == ring(7).slots == torus(7, rows=1).slots


def test_star_weights() -> None:
    uniform, metropolis = star(5), star(5, weights="metropolis")
    assert not uniform.doubly_stochastic
    assert not uniform.symmetric
    assert (uniform.at(0).own, metropolis.at(0).own) == ((0.2, *[0.5] * 4), (0.2, *[0.8] * 4))


@settings(deadline=None)
@given(n=st.integers(3, 30), data=st.data())
def test_random_regular_graphs_are_simple_connected_and_regular(n: int, data: st.DataObject) -> None:
    degree = data.draw(st.sampled_from([d for d in range(2, n) if n * d % 2 == 0]))
    graph = random_regular(n, degree, seed=data.draw(st.integers(0, 5)))
    assert {len(peers) for peers in graph.at(0).outgoing} == {degree}
    assert graph.symmetric
    assert strongly_connected(graph)


def test_random_peers_are_independent_draws() -> None:
    graph = random_peer(8, steps=50)
    assert {len(peers) for slot in graph.slots for peers in slot.outgoing} == {1}
    assert set(peers_of(graph, 0)) == {1, 2, 4}
    assert set(peers_of(random_peer(8, steps=50, among="any"), 0)) == set(range(1, 8))
    assert not graph.doubly_stochastic


def test_thousands_of_workers() -> None:
    graph = one_peer_exponential(5000)
    assert graph.at(12).outgoing[0] == {4096: 0.5}
    assert "not computed" in describe(graph)


def test_sequence_plays_whole_periods() -> None:
    graph = sequence(4, [one_peer_exponential(4), complete(4)])
    assert graph.name == "sequence(one_peer_exponential, complete)"
    assert [len(graph.at(k).outgoing[0]) for k in range(6)] == [1, 1, 3, 1, 1, 3]


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: hypercube(6),
            "topology=hypercube needs a power of two workers, got 6: use 4 or 8, or topology=one_peer_exponential",
        ),
        (
            lambda: bipartite_exponential(5),
            "topology=bipartite_exponential needs an even number of workers, got 5: use 4 or 6, or topology=ring",
        ),
        (
            lambda: torus(6, rows=4),
            "topology=torus with topology.rows=4 needs a number of workers that 4 divides, got 6:"
            " use topology.rows=1, 2, 3 or 6, or leave topology.rows out",
        ),
        (
            lambda: random_regular(7, degree=3),
            "topology=random_regular with topology.degree=3 needs an even number of workers above 3, got 7:"
            " use 8, or topology.degree=2",
        ),
        (
            lambda: random_regular(5, degree=8),
            "topology=random_regular with topology.degree=8 needs a number of workers above 8, got 5:"
            " use 9, or topology.degree=4",
        ),
        (
            lambda: random_regular(6, degree=1),
            "topology=random_regular with topology.degree=1 needs exactly 2 workers, got 6:"
            " use topology.degree=2 or more",
        ),
        (lambda: ring(0), "topology=ring needs at least 1 worker, got 0: use 1 or more"),
        (
            lambda: k_peer_exponential(8, peers=0),
            "topology=k_peer_exponential got topology.peers=0: use a whole number, 1 or more",
        ),
        (
            lambda: k_peer_exponential(8, hops=cast(Any, "even")),
            "topology=k_peer_exponential got topology.hops=even: use consecutive or powers",
        ),
        (
            lambda: star(8, weights=cast(Any, "equal")),
            "topology=star got topology.weights=equal: use uniform or metropolis",
        ),
        (lambda: random_peer(8, steps=0), "topology=random_peer got topology.steps=0: use a whole number, 1 or more"),
        (
            lambda: random_peer(8, among=cast(Any, "all")),
            "topology=random_peer got topology.among=all: use exponential or any",
        ),
        (lambda: sequence(4, []), "topology.sequence is empty: it must hold one topology or more"),
        (
            lambda: sequence(4, [ring(4), ring(5)]),
            "topology=ring in a sequence needs 4 workers, got 5: make all sizes equal",
        ),
    ],
)
def test_errors_say_what_to_do(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        make()
    assert str(error.value) == message


@settings(deadline=None)
@given(n=st.integers(2, 40), degree=st.integers(2, 40))
def test_the_remedy_of_random_regular_works(n: int, degree: int) -> None:
    try:
        random_regular(n, degree)
    except ValueError as error:
        workers, _, other = str(error).partition("use ")[2].partition(", or topology.degree=")
        assert random_regular(int(workers), degree).regular
        assert random_regular(n, int(other)).regular


def test_examples_in_the_documentation() -> None:
    results = doctest.testmod(topologies)
    assert (results.failed, results.attempted) == (0, 2)
