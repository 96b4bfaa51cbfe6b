"""The topologies: functions of the number of workers n that return a checked `Topology`.

Weights are uniform, p = 1 / (out-degree + 1), unless a function says otherwise, and peers that coincide count once. One
worker alone has the identity matrix. Every function raises ValueError, with the remedy in its message, for an n or an
option that it cannot serve. L = (n-1).bit_length() is the number of powers of two below n.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from math import isqrt
from random import Random
from typing import Concatenate, Literal, ParamSpec

from algorithms.topology import Mixing, Topology

Options = ParamSpec("Options")


def _topology(
    slots: Callable[Concatenate[int, Options], Iterator[Mixing]],
) -> Callable[Concatenate[int, Options], Topology]:
    """Turn a generator of the slots of one period into a function that returns their `Topology`, under its own name."""

    @wraps(slots)
    def topology(n: int, /, *args: Options.args, **options: Options.kwargs) -> Topology:
        if n < 1:
            raise _refusal(slots.__name__, n, "at least 1 worker", "use 1 or more")
        return Topology(slots.__name__, tuple(slots(n, *args, **options)) or (Mixing([1.0], [{}]),))

    return topology


# Exponential graphs -------------------------------------------------------------------------------------------------


@_topology
def one_peer_exponential(n: int) -> Iterator[Mixing]:
    """Directed exponential graph, one peer, time-varying: at step k, i sends to i + 2^(k mod L). Doubly stochastic.

    The graph of Assran, Loizou, Ballas, Rabbat, Stochastic Gradient Push, ICML 2019, arXiv:1811.10792. The product over
    one period of L steps is exactly J/n if and only if n is a power of two.

    >>> [next(iter(slot.outgoing[3])) for slot in one_peer_exponential(8).slots]
    [4, 5, 7]
    """
    for hop in _powers_of_two(n):
        yield _circulant(n, [hop])


@_topology
def static_exponential(n: int) -> Iterator[Mixing]:
    """Directed exponential graph, static: i sends to i + 1, i + 2, i + 4, ..., its L peers. Doubly stochastic.

    For even n, ||W - J/n||_2 = (L-1) / (L+1) (Ying et al., NeurIPS 2021, arXiv:2110.13363).
    """
    yield _circulant(n, _powers_of_two(n))


@_topology
def k_peer_exponential(
    n: int, peers: int = 2, hops: Literal["consecutive", "powers"] = "consecutive"
) -> Iterator[Mixing]:
    """Directed exponential graph, several peers, time-varying. Doubly stochastic; peers=1: `one_peer_exponential`.

    hops="consecutive" (Assran et al. 2019; unverified): with two peers the hops are (2^0, 2^1), then (2^1, 2^2), and so
    on. Slot k takes the exponents k, ..., k + peers - 1 modulo L, so that with two peers the last slot joins 2^(L-1)
    with 2^0. From L peers on all slots are equal: the static exponential graph, period 1.

    hops="powers" (the authors' code): slot e has the hops j (peers+1)^e, j = 1..peers, for every (peers+1)^e below n.
    Hops count modulo n; one that is 0 modulo n is left out. One period averages exactly if n is a power of peers + 1.
    """
    _check_count("k_peer_exponential", "peers", peers)
    _check_choice("k_peer_exponential", "hops", hops, ("consecutive", "powers"))
    powers = _powers_of_two(n)
    if hops == "powers":
        base = 1
        while base < n:
            yield _circulant(n, [j * base for j in range(1, peers + 1) if j * base % n])
            base *= peers + 1
    elif peers < len(powers):
        for k in range(len(powers)):
            yield _circulant(n, [powers[(k + j) % len(powers)] for j in range(peers)])
    else:
        yield _circulant(n, powers)


@_topology
def bipartite_exponential(n: int) -> Iterator[Mixing]:
    """Bipartite exponential graph, one peer, time-varying, for an even n: each slot pairs even ranks with odd ones.

    The graph of D-PSGD and AD-PSGD in the code of Assran et al. 2019. The hops, seen from an even rank, are -1, +1,
    then -(1 + 2^e), +(1 + 2^e) for e = 1..L-1; those equal modulo n count once. The two of a pair average: symmetric.

    >>> [next(iter(slot.outgoing[0])) for slot in bipartite_exponential(8).slots]
    [7, 1, 5, 3]
    """
    if n > 1 and n % 2:
        raise _refusal(
            "bipartite_exponential", n, "an even number of workers", f"use {n - 1} or {n + 1}, or topology=ring"
        )
    odd = [1 if power == 1 else 1 + power for power in _powers_of_two(n)]
    for hop in dict.fromkeys(sign * h % n for h in odd for sign in (-1, 1)):  # distinct, in order of appearance
        yield Mixing.uniform([(i + hop if i % 2 == 0 else i - hop) % n] for i in range(n))


# Static graphs ------------------------------------------------------------------------------------------------------


@_topology
def ring(n: int, directed: bool = False) -> Iterator[Mixing]:
    """Ring: i sends to i + 1, and to i - 1 too unless `directed`. Doubly stochastic; undirected: symmetric."""
    if n > 1:
        yield _circulant(n, [1] if directed else [1, -1])


@_topology
def complete(n: int) -> Iterator[Mixing]:
    """Complete graph: P = J/n, so that one step averages exactly."""
    yield _circulant(n, range(1, n))


@_topology
def torus(n: int, rows: int | None = None) -> Iterator[Mixing]:
    """Two-dimensional torus, rows x (n / rows), with neighbours left, right, above and below. Symmetric.

    Without `rows` it is as square as n allows: rows is the largest divisor up to sqrt(n). For a prime n that is 1, and
    a 1 x n torus is the undirected ring. Where there are two rows or columns, the neighbours on both sides are one.
    """
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    if rows is None:
        rows = max(d for d in divisors if d <= isqrt(n))
    if rows not in divisors:
        remedy = f"use topology.rows={_either(divisors)}, or leave topology.rows out"
        raise _refusal(f"torus with topology.rows={rows}", n, f"a number of workers that {rows} divides", remedy)
    columns = n // rows

    def neighbours(i: int) -> set[int]:
        row, column = divmod(i, columns)
        vertical = {(row + step) % rows * columns + column for step in (-1, 1)}
        horizontal = {row * columns + (column + step) % columns for step in (-1, 1)}
        return (vertical | horizontal) - {i}  # a single row or column wraps onto itself

    yield Mixing.uniform(neighbours(i) for i in range(n))


@_topology
def hypercube(n: int) -> Iterator[Mixing]:
    """Hypercube, static, for n a power of two: the log2(n) peers of i differ from it in one bit. Symmetric."""
    if n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        remedy = f"use {below} or {2 * below}, or topology=one_peer_exponential"
        raise _refusal("hypercube", n, "a power of two workers", remedy)
    yield Mixing.uniform([i ^ bit for bit in _powers_of_two(n)] for i in range(n))


@_topology
def star(n: int, weights: Literal["uniform", "metropolis"] = "uniform") -> Iterator[Mixing]:
    """Star around rank 0.

    weights="uniform": rank 0 keeps and sends shares of 1/n, the others of 1/2: for n > 2 column-stochastic only, so
    that push-sum weights leave 1. weights="metropolis": p_ij = 1 / (1 + max(degree_i, degree_j)), which is 1/n on every
    edge: symmetric and doubly stochastic.
    """
    _check_choice("star", "weights", weights, ("uniform", "metropolis"))
    if weights == "uniform":
        yield Mixing.uniform([range(1, n), *[[0]] * (n - 1)])
    else:
        own = [1 / n, *[(n - 1) / n] * (n - 1)]
        yield Mixing(own, [dict.fromkeys(range(1, n), 1 / n), *[{0: 1 / n}] * (n - 1)])


# Random graphs ------------------------------------------------------------------------------------------------------


@_topology
def random_regular(n: int, degree: int = 3, seed: int = 0) -> Iterator[Mixing]:
    """A random connected simple graph, undirected and static, in which every worker has `degree` peers. Symmetric.

    Needs n x degree even, degree < n, and degree >= 2 (1 for two workers). (n, degree, seed) decides the graph.
    Sampled as in Steger & Wormald, Generating random regular graphs quickly, 1999, and drawn again until connected.
    """
    _check_count("random_regular", "degree", degree)
    if n == 1:
        return
    if degree == 1 and n > 2:
        raise _refusal("random_regular with topology.degree=1", n, "exactly 2 workers", "use topology.degree=2 or more")
    if degree >= n or n * degree % 2:
        fewer = min(degree, n - 1) if n * min(degree, n - 1) % 2 == 0 else degree - 1
        more = max(degree + 1, n + n * degree % 2)
        needs = f"{'an even number' if degree % 2 else 'a number'} of workers above {degree}"
        remedy = f"use {more}, or topology.degree={fewer}"
        raise _refusal(f"random_regular with topology.degree={degree}", n, needs, remedy)
    random = Random(seed)
    # Pairing gets stuck in dense graphs, so those are made as the complement of a sparse one.
    dense = 2 * degree > n - 1
    while True:
        peers = _pair_up(n, n - 1 - degree if dense else degree, random)
        if dense:
            peers = [set(range(n)) - ranks - {i} for i, ranks in enumerate(peers)]
        if _connected(peers):
            break
    yield Mixing.uniform(peers)


def _pair_up(n: int, degree: int, random: Random) -> list[set[int]]:
    """A random simple graph of n nodes of one degree: pair free ends at random, again and again, refusing bad pairs."""
    while True:
        peers: list[set[int]] = [set() for _ in range(n)]
        ends = [i for i in range(n) for _ in range(degree)]
        stuck = False
        while ends and not stuck:
            random.shuffle(ends)
            left = []
            for i, j in zip(ends[::2], ends[1::2], strict=True):
                if i == j or j in peers[i]:
                    left += [i, j]
                else:
                    peers[i].add(j)
                    peers[j].add(i)
            stuck = len(left) == len(ends)
            ends = left
        if not stuck:
            return peers


def _connected(peers: Sequence[set[int]]) -> bool:
    reached, frontier = {0}, {0}
    while frontier:
        frontier = set().union(*(peers[i] for i in frontier)) - reached
        reached |= frontier
    return len(reached) == len(peers)


@_topology
def random_peer(
    n: int, steps: int = 1000, seed: int = 0, among: Literal["exponential", "any"] = "exponential"
) -> Iterator[Mixing]:
    """One random peer per worker and step, each chosen independently: column-stochastic only.

    Chosen among="exponential": i + 2^e, e in 0..L-1; among="any": all others. `steps` steps are drawn, decided by seed,
    then they repeat. They are held in memory: about half a kilobyte for a worker and step.
    """
    _check_count("random_peer", "steps", steps)
    _check_choice("random_peer", "among", among, ("exponential", "any"))
    if n == 1:
        return
    random = Random(seed)
    hops = _powers_of_two(n) if among == "exponential" else range(1, n)
    for _ in range(steps):
        yield Mixing.uniform([(i + random.choice(hops)) % n] for i in range(n))


# Combinations -------------------------------------------------------------------------------------------------------


def sequence(n: int, topologies: Sequence[Topology]) -> Topology:
    """A periodic sequence: one whole period of each of the topologies, one after the other."""
    if not topologies:
        raise ValueError("topology.sequence is empty: it must hold one topology or more")
    for topology in topologies:
        if topology.size != n:
            raise _refusal(f"{topology.name} in a sequence", topology.size, f"{n} workers", "make all sizes equal")
    name = f"sequence({', '.join(topology.name for topology in topologies)})"
    return Topology(name, tuple(slot for topology in topologies for slot in topology.slots))


# Helpers ------------------------------------------------------------------------------------------------------------


def _powers_of_two(n: int) -> list[int]:
    return [1 << e for e in range((n - 1).bit_length())]


def _circulant(n: int, hops: Iterable[int]) -> Mixing:
    hops = list(hops)
    return Mixing.uniform([(i + hop) % n for hop in hops] for i in range(n))


def _refusal(name: str, n: int, needs: str, remedy: str) -> ValueError:
    return ValueError(f"topology={name} needs {needs}, got {n}: {remedy}")


def _check_count(name: str, key: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"topology={name} got topology.{key}={value}: use a whole number, 1 or more")


def _check_choice(name: str, key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"topology={name} got topology.{key}={value}: use {_either(choices)}")


def _either(values: Iterable[object]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last
