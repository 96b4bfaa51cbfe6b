"""Who talks to whom, as data: sparse mixing matrices, periodic topologies, schedules of topologies, and their analysis.

P[j, i] = p_ji is the share of worker i's value that goes to worker j, so columns belong to senders and rows to
receivers, and one step of mixing is x_j <- sum_i p_ji x_i. Every matrix is column-stochastic (nothing is lost), which
is what push-sum needs; `doubly_stochastic` and `symmetric` tell the methods that need more. The generators stand in
`algorithms.topologies`. Building and using a graph needs no torch; the analysis at the end of this file does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-12  # of a row's or a column's sum


@dataclass(frozen=True, slots=True)
class Mixing:
    """One sparse column-stochastic mixing matrix P of shape (size, size), stored by columns and by rows.

    own[i] is p_ii; outgoing[i] is {j: p_ji} and incoming[i] is {j: p_ij}, both without i itself and in ascending
    order of rank. Methods sum in that order: it fixes the bits of a result.

    Raises ValueError when an entry is not positive, a worker is its own peer, a rank is out of range, or a column
    does not sum to 1.
    """

    own: Sequence[float]
    outgoing: Sequence[Mapping[int, float]]
    incoming: Sequence[Mapping[int, float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = len(self.own)
        if n == 0 or len(self.outgoing) != n:
            raise ValueError(
                f"a mixing matrix needs as many columns as workers: {n} own, {len(self.outgoing)} outgoing"
            )
        incoming: list[dict[int, float]] = [{} for _ in range(n)]
        for i, (own, peers) in enumerate(zip(self.own, self.outgoing, strict=True)):
            for j, share in peers.items():
                if j == i or not 0 <= j < n:
                    raise ValueError(f"worker {i} cannot send to {j}: peers are the other ranks in 0..{n - 1}")
                if not share > 0:
                    raise ValueError(f"worker {i} sends the share {share} to {j}: shares must be positive")
                incoming[j][i] = share  # i ascends, so each row is in order
            if not own > 0 or not abs(math.fsum((own, *peers.values())) - 1) <= TOLERANCE:
                raise ValueError(
                    f"worker {i} keeps {own} and sends {dict(peers)}: it must keep a positive share,"
                    f" and the column must sum to 1"
                )
        object.__setattr__(self, "own", tuple(self.own))
        object.__setattr__(self, "outgoing", tuple(dict(sorted(peers.items())) for peers in self.outgoing))
        object.__setattr__(self, "incoming", tuple(incoming))

    @classmethod
    def uniform(cls, peers: Iterable[Iterable[int]]) -> Mixing:
        """Uniform mixing, p = 1 / (out-degree + 1): worker i sends to the ranks peers[i], each counted once.

        >>> Mixing.uniform([[1], [2], [0]]).outgoing[2]
        {0: 0.5}
        """
        distinct = [set(ranks) for ranks in peers]
        shares = [1 / (len(ranks) + 1) for ranks in distinct]
        return cls(shares, [dict.fromkeys(ranks, share) for ranks, share in zip(distinct, shares, strict=True)])

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.own)

    @property
    def doubly_stochastic(self) -> bool:
        """Whether the rows sum to 1 too, so that the mean over the workers is a fixed point."""
        rows = zip(self.own, self.incoming, strict=True)
        return all(abs(math.fsum((own, *peers.values())) - 1) <= TOLERANCE for own, peers in rows)

    @property
    def symmetric(self) -> bool:
        """Whether p_ij = p_ji."""
        return self.outgoing == self.incoming

    @property
    def regular(self) -> bool:
        """Whether every worker sends to, and hears from, the same number of peers."""
        return len({len(peers) for peers in (*self.outgoing, *self.incoming)}) == 1


class Graph(Protocol):
    """What an algorithm is given: the number of workers and the mixing matrix of step k = 0, 1, ..."""

    @property
    def size(self) -> int:
        """The number of workers."""

    def at(self, k: int) -> Mixing:
        """The mixing matrix of step k."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A periodic sequence of mixing matrices of one size. Raises ValueError when there is none or the sizes differ."""

    name: str
    slots: Sequence[Mixing]

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", tuple(self.slots))
        sizes = sorted({slot.size for slot in self.slots})
        if len(sizes) != 1:
            raise ValueError(f"topology={self.name} needs one slot or more, all of one size; the sizes are {sizes}")

    @property
    def size(self) -> int:
        """The number of workers."""
        return self.slots[0].size

    @property
    def period(self) -> int:
        """The number of steps after which the matrices repeat."""
        return len(self.slots)

    def at(self, k: int) -> Mixing:
        """The mixing matrix of step k: it advances once per step."""
        return self.slots[k % self.period]

    @property
    def doubly_stochastic(self) -> bool:
        """Whether every slot is doubly stochastic."""
        return all(slot.doubly_stochastic for slot in self.slots)

    @property
    def symmetric(self) -> bool:
        """Whether every slot is symmetric."""
        return all(slot.symmetric for slot in self.slots)

    @property
    def regular(self) -> bool:
        """Whether every slot is regular; the degree may differ between slots."""
        return all(slot.regular for slot in self.slots)


@dataclass(frozen=True, slots=True)
class Phases:
    """A schedule of topologies: (first step, topology), ...; each starts at its own slot 0 at its first step.

    Raises ValueError unless the first phase starts at step 0, the steps increase, and the sizes agree.
    """

    phases: Sequence[tuple[int, Topology]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        steps = [step for step, _ in self.phases]
        if not steps or steps[0] != 0:
            raise ValueError(f"topology.phases starts at {steps or 'nothing'}: the first phase must start at 0")
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"topology.phases starts at the steps {steps}: each phase must start after the one before")
        sizes = [topology.size for _, topology in self.phases]
        if len(set(sizes)) != 1:
            raise ValueError(f"topology.phases has topologies of {sizes} workers: make them all equal")

    @property
    def name(self) -> str:
        """The topologies' names, in order."""
        return " then ".join(topology.name for _, topology in self.phases)

    @property
    def size(self) -> int:
        """The number of workers."""
        return self.phases[0][1].size

    def at(self, k: int) -> Mixing:
        """The mixing matrix of step k >= 0."""
        start, topology = self.phases[bisect_right(self.phases, k, key=lambda phase: phase[0]) - 1]
        return topology.at(k - start)

    @property
    def doubly_stochastic(self) -> bool:
        """Whether every phase is doubly stochastic."""
        return all(topology.doubly_stochastic for _, topology in self.phases)

    @property
    def symmetric(self) -> bool:
        """Whether every phase is symmetric."""
        return all(topology.symmetric for _, topology in self.phases)

    @property
    def regular(self) -> bool:
        """Whether every phase is regular."""
        return all(topology.regular for _, topology in self.phases)


# Analysis ---------------------------------------------------------------------------------------------------------

DENSE_LIMIT = 1024  # workers: beyond this the dense products of `describe` take long
PRINT_LIMIT = 16  # workers, and slots, whose matrices `describe` prints


def matrix(mixing: Mixing) -> Tensor:
    """P as a dense float64 tensor of shape (n, n), P[j, i] = p_ji."""
    import torch

    P = torch.zeros(mixing.size, mixing.size, dtype=torch.float64)
    for i, (own, peers) in enumerate(zip(mixing.own, mixing.outgoing, strict=True)):
        P[i, i] = own
        for j, share in peers.items():
            P[j, i] = share
    return P


def product(topology: Topology) -> Tensor:
    """The product of one period's matrices, later ones on the left: float64, shape (n, n)."""
    import torch

    P = torch.eye(topology.size, dtype=torch.float64)
    for slot in topology.slots:
        P = matrix(slot) @ P
    return P


def spectral_gap(topology: Topology) -> float:
    """1 - second largest |eigenvalue| of one period's product: 1 if a period averages exactly, 0 if it never mixes."""
    return _gap(product(topology))


def _gap(P: Tensor) -> float:
    # Columns sum to 1, so P - J/n has P's eigenvalues with the leading 1 replaced by 0 (Wielandt's deflation), and its
    # spectral radius is lim ||M^N||^(1/N) (Gelfand), N = 2, 4, 8, ... LAPACK's eigvals fails to converge on several of
    # these matrices, such as J/64.
    M = P - 1 / len(P)
    log_radius = 0.0
    for squaring in range(40):
        norm = float(M.norm())
        if norm == 0:
            return 1.0
        log_radius += math.log(norm) / 2**squaring
        M = M / norm
        M = M @ M
    return 1 - math.exp(log_radius)


def describe(graph: Topology | Phases, unit: str = "step") -> str:
    """A text for people: degree, stochasticity, spectral gap, whether a period averages exactly, and the matrices.

    `unit` is what the starts of phases count.
    """
    import torch

    if isinstance(graph, Phases):
        return "\n\n".join(f"from {unit} {start}: {describe(topology)}" for start, topology in graph.phases)
    n = graph.size
    kind = "doubly stochastic" if graph.doubly_stochastic else "column-stochastic"
    facts = [
        f"{graph.name}: {n} worker{'s' * (n != 1)}, period {graph.period}",
        f"  peers per step   sends to {_span(slot.outgoing for slot in graph.slots)},"
        f" hears from {_span(slot.incoming for slot in graph.slots)}",
        f"  matrices         {kind}, {'' if graph.symmetric else 'not '}symmetric,"
        f" {'' if graph.regular else 'not '}regular",
    ]
    if n <= DENSE_LIMIT:
        P = product(graph)
        residual = torch.linalg.matrix_norm(P - 1 / n, ord=2).item()
        facts += [
            f"  spectral gap     {_gap(P):.4g} (1 - second largest |eigenvalue| of one period's product)",
            f"  exact average    {'yes' if residual <= TOLERANCE else 'no'}, ‖product - J/{n}‖₂ = {residual:.3g}",
        ]
    else:
        facts.append(f"  spectral gap     not computed above {DENSE_LIMIT} workers")
    if n > PRINT_LIMIT:
        return "\n".join(facts)
    facts.append("  P[j, i], the share of worker i's value (column) that goes to worker j (row):")
    for k, slot in enumerate(graph.slots[:PRINT_LIMIT]):
        facts += [f"  step {k}" + f" mod {graph.period}" * (graph.period > 1), *_rows(slot)]
    if graph.period > PRINT_LIMIT:
        facts.append(f"  and {graph.period - PRINT_LIMIT} more")
    return "\n".join(facts)


def _span(slots: Iterable[Sequence[Mapping[int, float]]]) -> str:
    degrees = {len(peers) for slot in slots for peers in slot}
    return f"{min(degrees)}" if len(degrees) == 1 else f"{min(degrees)} to {max(degrees)}"


def _rows(mixing: Mixing) -> list[str]:
    """The matrix with fractions such as 1/2, zeros as dots, the columns aligned."""
    n = mixing.size
    shares = [{**mixing.incoming[j], j: mixing.own[j]} for j in range(n)]
    cells = [[_fraction(row[i]) if i in row else "." for i in range(n)] for row in shares]
    width = max(len(cell) for row in cells for cell in row)
    return ["    " + "  ".join(cell.rjust(width) for cell in row) for row in cells]


def _fraction(share: float) -> str:
    simple = Fraction(share).limit_denominator(1000)
    return str(simple) if abs(float(simple) - share) <= TOLERANCE else f"{share:.4g}"
