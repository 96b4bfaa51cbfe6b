"""What an algorithm sees of the machine it runs on.

An algorithm is a dataclass of the paper's hyper-parameters with one method, an async generator::

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        s = worker.restore(State(x=worker.initial()))
        while await worker.has_work():
            g = await worker.gradient(s.x)
            s.x = worker.descend(s.x, g)
            yield s.x

`await` marks the only places where a worker can be interrupted; `yield` hands the iterate to the runner at the end
of a step. There is no event loop: a runtime drives the generator and answers what it awaits, on real processes or on
a virtual cluster, and the algorithm cannot tell which.

Iterates and gradients are flat vectors of shape (d,). An algorithm rebinds them and never changes in place what it
has sent, differentiated or yielded: the runtime may still be reading it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from torch import Tensor

from algorithms.topology import Graph

Vector = Tensor
"""A flat vector of shape (d,)."""

Payload = tuple[Any, ...]
"""One message: vectors, and Python floats that travel as float64 (a push-sum weight, say)."""

T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")


class Handle(Protocol[T_co]):
    """Something under way. `await` it for its value; ask `arrived` to learn, without waiting, whether it is there."""

    @property
    def arrived(self) -> bool: ...

    def __await__(self) -> Generator[Any, Any, T_co]: ...


@dataclass(frozen=True)
class Group:
    """Workers that reduce together, by rank."""

    ranks: tuple[int, ...]

    def __hash__(self) -> int:
        return hash((len(self.ranks), self.ranks[:2]))  # in constant time: a step looks groups up by the thousand


class Worker(Protocol):
    """One worker: a node or a GPU, as the configuration says. Ranks and sizes count workers, not processes."""

    rank: int
    size: int
    everyone: Group

    @property
    def graph(self) -> Graph:
        """The topology: `graph.at(k)` is the mixing matrix of step k."""

    def initial(self) -> Vector:
        """The common starting point x0, the same on every worker."""

    def restore(self, state: S) -> S:
        """Declare `state` as all that a checkpoint of this algorithm holds; returns it, or the saved one.

        `state` is a dataclass. Where a worker of a virtual cluster returns from the dead, its `x` is replaced by an
        iterate, and its whole numbers (the step) by those of a living worker; the other fields are as given.
        """

    def has_work(self) -> Handle[bool]:
        """Whether there is another mini-batch for this worker."""

    def gradient(self, x: Vector, mean_over: Group | None = None) -> Handle[Vector]:
        """The gradient of the loss on this worker's next mini-batch, at x.

        With a group, its mean over the group, reduced while the backward pass still runs.
        """

    def descend(self, x: Vector, g: Vector) -> Vector:
        """X after one step of the local optimiser (momentum, weight decay and schedule are its business)."""

    def exchange(
        self, outgoing: Mapping[int, Payload], incoming: Collection[int], like: Payload | None = None
    ) -> Handle[dict[int, Payload]]:
        """Post one synchronous neighbour exchange, all messages as one group; await it for {sender: payload}.

        All payloads of one exchange have the same layout: that of any outgoing one, or of `like` where a worker may
        have nothing to send. The senders' order in the result is that of `incoming`; one whose message is lost, or
        that is gone, is left out.
        """

    def all_reduce(self, x: Vector, group: Group) -> Handle[Vector]:
        """The mean of x over the group."""


class Algorithm(Protocol):
    """A method: see the module's docstring.

    `topology` says what it needs: "none" (it uses no graph), "column_stochastic" or "doubly_stochastic" mixing.
    """

    topology: ClassVar[Literal["none", "column_stochastic", "doubly_stochastic"]]

    def run(self, worker: Worker) -> AsyncGenerator[Vector, None]: ...
