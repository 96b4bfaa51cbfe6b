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

import random
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

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
    """Workers that reduce together, their ranks ascending."""

    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        if list(self.ranks) != sorted(set(self.ranks)):
            raise ValueError(f"the ranks of a group ascend, and each stands there once: {self.ranks}")

    def __hash__(self) -> int:
        return hash((len(self.ranks), self.ranks[:2]))  # in constant time: a step looks groups up by the thousand


class Worker(Protocol):
    """One worker: a node or a GPU, as the configuration says. Ranks and sizes count workers, not processes."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int:
        """How many workers there are."""

    @property
    def everyone(self) -> Group:
        """All workers."""

    @property
    def node(self) -> Group:
        """The workers on this one's node, itself among them."""

    @property
    def servers(self) -> tuple[int, ...]:
        """Ranks of the parameter server's shards, after those of the workers; empty for a method without `serve`."""

    @property
    def graph(self) -> Graph:
        """The topology: `graph.at(k)` is the mixing matrix of step k."""

    @property
    def lr(self) -> float:
        """The learning rate of the next step, where the schedule has got to."""

    @property
    def progress(self) -> int:
        """How far training has got, in mini-batches per worker; where workers share them, that is the same for all."""

    @property
    def epoch(self) -> float:
        """Epochs of training done: `progress` in other units."""

    @property
    def last_loss(self) -> float:
        """The loss of this worker's last mini-batch."""

    def random(self, purpose: str, *keys: int) -> random.Random:
        """Random numbers by name: the same on all workers that give the same keys."""

    def initial(self) -> Vector:
        """The common starting point x0, the same on every worker; on a server its own part of it."""

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

    def forget(self) -> None:
        """Reset what the local optimiser remembers (momentum and the like); its schedule goes on."""

    def merged(self, age: int) -> None:
        """Tell the staleness of what has just been merged: by how many steps, or updates, it lagged behind."""

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

    # -- asynchronous messages -------------------------------------------------------------------------------------

    def send(self, to: int, channel: str, payload: Payload) -> None:
        """Send a message, without waiting. Those of one sender arrive on a channel in the order in which they left.

        A channel is for one kind of message, of one layout, read either by `receive` or by `messages`.
        """

    def receive(self, source: int, channel: str, like: Payload) -> Handle[Payload | None]:
        """The next message of one sender on a channel, laid out as `like`; None where it died, or it was lost."""

    def messages(self, channel: str, like: Payload) -> AsyncIterator[tuple[int, Payload]]:
        """(sender, payload) of every message on a channel, as they arrive, until all workers have left."""

    def beside(self, task: Coroutine[Any, Any, None]) -> None:
        """Let a second task of this worker run beside it: a loop over `messages`, all its memory in the state.

        It ends when all workers have left, and is never interrupted between two `await`s.
        """

    def leave(self) -> Handle[None]:
        """Send nothing more unasked; wait until all workers have got there, and what they sent has been taken in."""

    def shards(self, x: Vector) -> dict[int, Vector]:
        """By server, the part of x that it keeps."""

    def joined(self, parts: Mapping[int, Vector]) -> Vector:
        """The vector of which each server has given its part: the inverse of `shards`."""


class Algorithm(Protocol):
    """A method: see the module's docstring.

    `topology` says what it needs: "none" (it uses no graph), "column_stochastic" "doubly_stochastic" mixing, or
    "bipartite": at each step, every worker of even rank paired with one of odd rank.
    A `synchronous` one takes equally many steps on every worker. One with a parameter server has a second generator,
    `serve(worker)`, which runs on each of the servers and yields its part of the centre.
    """

    @property
    def topology(self) -> Literal["none", "column_stochastic", "doubly_stochastic", "bipartite"]: ...

    @property
    def synchronous(self) -> bool: ...

    def run(self, worker: Worker) -> AsyncGenerator[Vector, None]: ...
