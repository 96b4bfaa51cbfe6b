"""Stochastic Gradient Push. Assran, Loizou, Ballas, Rabbat, ICML 2019, arXiv:1811.10792.

Algorithm 1 (SGP, overlap=0) and its overlapped form (tau-OSGP, overlap=tau), after the authors' code and secondary
notes; the numbering of the lines is unverified. x is the push-sum numerator, w the push-sum weight, z = x / w the
de-biased iterate, P column-stochastic:

    loop k:
      g_i = grad F_i(z_i; batch)                          at the de-biased z
      x_i = x_i - lr step(g_i)                            the step moves the numerator; momentum stays local
      send (p_ji x_i, p_ji w_i) to the out-peers j; receive from the in-peers
      x_i = sum_j p_ij x_j ;  w_i = sum_j p_ij w_j ;  z_i = x_i / w_i

Under overlap a worker does not wait for the messages of its own step: it adds those that have arrived, and blocks
only when its oldest outstanding exchange is tau iterations old.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from algorithms.stepwise import Stepwise
from algorithms.worker import Handle, Payload, Vector, Worker


@dataclass
class State:
    x: Vector
    w: float = 1.0
    k: int = 0
    in_flight: list[tuple[int, Handle[dict[int, Payload]]]] = field(default_factory=list)  # (step posted, exchange)
    z: Vector | None = None  # x / w, once it has been asked for


@dataclass
class SGP(Stepwise):
    """SGP and overlap SGP.

    Args:
        overlap: tau, how many iterations a message may stay in flight; 0 is Algorithm 1.
        merge: `arrived` adds each exchange as soon as it is there (the paper's); `exact` adds it exactly tau
            iterations after it was posted (deterministic).
        biased: take x itself as the iterate, as if w were held at 1 (biased OSGP).
    """

    overlap: int = 0
    merge: Literal["arrived", "exact"] = "arrived"
    biased: bool = False

    topology: ClassVar[Literal["column_stochastic"]] = "column_stochastic"

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise ValueError(f"algorithm.overlap={self.overlap}: the iterations a message may stay in flight are >= 0")

    def begin(self, worker: Worker, x: Vector) -> State:
        return State(x)

    async def step(self, worker: Worker, s: State) -> None:
        g = await worker.gradient(self.iterate(s))
        s.x, s.z = worker.descend(s.x, g), None

        P, i = worker.graph.at(s.k), worker.rank
        # One product per distinct weight: on a regular graph what is sent and what is kept are the same vector.
        share = {p: (p * s.x, p * s.w) for p in {P.own[i], *P.outgoing[i].values()}}
        like = share[P.own[i]]
        outgoing: dict[int, Payload] = {j: share[p] for j, p in P.outgoing[i].items()}
        s.in_flight.append((s.k, worker.exchange(outgoing, P.incoming[i], like)))
        s.x, s.w = share[P.own[i]]

        # Decide first, then take: `arrived` may change between two looks.
        due = [(k, m) for k, m in s.in_flight if self.is_due(s.k - k, m)]
        for entry in due:
            s.in_flight.remove(entry)
            await self.add(worker, s, *entry)
        s.k += 1

    def is_due(self, age: int, message: Handle[dict[int, Payload]]) -> bool:
        return age >= self.overlap or (self.merge == "arrived" and message.arrived)

    async def add(self, worker: Worker, s: State, k: int, message: Handle[dict[int, Payload]]) -> None:
        received = await message
        worker.merged(s.k - k)
        for x, w in received.values():
            s.x = s.x + x
            s.w += w

    async def settle(self, worker: Worker, s: State) -> bool:
        """The mass still under way belongs to the result."""
        in_flight, s.in_flight, s.z = s.in_flight, [], None
        for entry in in_flight:
            await self.add(worker, s, *entry)
        return bool(in_flight)

    def iterate(self, s: State) -> Vector:
        """The de-biased z."""
        if self.biased or s.w == 1.0:
            return s.x
        if s.z is None:
            s.z = s.x / s.w
        return s.z

    def replace(self, s: State, x: Vector) -> None:
        self.move(s, x)

    def move(self, s: State, x: Vector) -> None:
        s.x, s.w, s.z = x, 1.0, None
