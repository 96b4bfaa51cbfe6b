"""Where the gradients of virtual workers come from: a pool of threads, a batched pass, or nowhere.

Each gives the same interface: `begin` when a worker asks, `result()` when the virtual clock has got there. A gradient
is a pure function of (x, rank, draw) and of that rank's buffers, so the order of computing does not matter.
"""

from __future__ import annotations

import copy
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from algorithms.worker import Vector
from runner.data.dataset import Batches, together
from runner.problem import Problem

Gradients = tuple[Sequence[Tensor], Sequence[Vector]]
"""Losses () and gradients (d,), one of each per GPU of a worker."""

Buffers = dict[str, Tensor]

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK_BYTES = 8 * 2**20
"""Of iterates in one batched pass: many, for each pass costs some milliseconds; but not more than fit the caches."""


class Work(Protocol):
    """Gradients under way."""

    def result(self) -> Gradients: ...


class Source(Protocol):
    """Computes gradients for virtual workers."""

    def begin(self, x: Vector, ranks: Sequence[int], slot: int, draw: int) -> Work:
        """The gradients at x on the mini-batches of a worker's ranks in that draw, or, where another worker has taken
        over what a `slot` (a worker) was due, of that one's. (slot, lane, draw) names the dropout masks.
        """

    def forget(self, ranks: Sequence[int]) -> None:
        """What these ranks have asked for is not wanted any more."""

    def buffers_of(self, ranks: Sequence[int]) -> list[Buffers]:
        """Copies of their buffers, as they are."""

    def set_buffers(self, ranks: Sequence[int], buffers: list[Buffers]) -> None:
        """Give them these buffers, copied."""

    def close(self) -> None: ...


class StandIn:
    """In place of a vector where only the time is asked for: whatever is done with it gives it back.

    Args:
        share: of a whole vector, where it stands for a part.
    """

    __slots__ = ("share",)

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def _itself(self, _: object) -> StandIn:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _itself

    def add_(self, _: object, alpha: float = 1.0) -> StandIn:
        return self

    def __neg__(self) -> StandIn:
        return self

    @classmethod
    def __torch_function__(cls, function: object, types: object, arguments: Sequence[object], *_: object) -> StandIn:
        return next((each for each in arguments if isinstance(each, StandIn)), STAND_IN)


STAND_IN = StandIn()


class NoGradients:
    """Timing only."""

    def begin(self, x: Vector, ranks: Sequence[int], slot: int, draw: int) -> Work:
        return self

    def result(self) -> Gradients:
        return (), (STAND_IN,)  # type: ignore[return-value]

    def forget(self, ranks: Sequence[int]) -> None:
        pass

    def buffers_of(self, ranks: Sequence[int]) -> list[Buffers]:
        return []

    def set_buffers(self, ranks: Sequence[int], buffers: list[Buffers]) -> None:
        pass

    def close(self) -> None:
        pass


class Replicas:
    """One copy of the problem per thread, and one set of buffers (BatchNorm statistics) per rank.

    Args:
        threads: of the pool; each computes with `threads_per_worker` threads of its own, which is a part of a
            run's numerics and a setting of torch's per thread. The calling thread may compute too, and gets it as well.
    """

    def __init__(self, problem: Problem, ranks: int, threads: int, threads_per_worker: int) -> None:
        self.problem = problem
        own = dict(problem.model.named_buffers())
        self.buffers: list[Buffers] = [copied(own) for _ in range(ranks)] if own else []
        self.threads = threads
        torch.set_num_threads(threads_per_worker)
        self._lock = threading.Lock()
        self._mine = threading.local()
        self.pool = ThreadPoolExecutor(
            threads, thread_name_prefix="gradients", initializer=torch.set_num_threads, initargs=(threads_per_worker,)
        )

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results in the items' order: of the pool, or of the calling thread where another would gain nothing."""
        if self.threads == 1 or len(items) == 1:
            return [function(item) for item in items]
        return list(self.pool.map(function, items))

    def mine(self) -> Problem:
        """The calling thread's copy."""
        if not hasattr(self._mine, "problem"):
            with self._lock:
                self._mine.problem = copy.deepcopy(self.problem)
        problem: Problem = self._mine.problem
        return problem

    def holding(self, buffers: Buffers) -> Problem:
        """The calling thread's copy, with those tensors as its buffers; training updates them in place."""
        problem = self.mine()
        for name, buffer in buffers.items():
            path, _, leaf = name.rpartition(".")
            problem.model.get_submodule(path)._buffers[leaf] = buffer
        return problem

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def copied(buffers: Buffers) -> Buffers:
    return {name: buffer.clone() for name, buffer in buffers.items()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class _Asked:
    """One gradient that a worker waits for."""

    __slots__ = ("batches", "done", "draw", "key", "rank", "x")

    def __init__(self, x: Vector, rank: int, batches: int, key: tuple[int, ...], draw: int) -> None:
        self.x, self.rank, self.batches, self.key, self.draw = x, rank, batches, key, draw
        self.done: tuple[Tensor, Vector] | None = None


class _Lazy(ABC):
    """Computes nothing until a gradient falls due, and then all that have been asked for.

    Computing at once, beside the workers' own steps, would be slower: threads that each need the interpreter for a
    moment between two operations of torch wait for one another.
    """

    def __init__(self, replicas: Replicas, batches: Sequence[Batches]) -> None:
        self.replicas, self.batches = replicas, batches
        self.waiting: list[_Asked] = []

    def begin(self, x: Vector, ranks: Sequence[int], slot: int, draw: int) -> Work:
        first = slot * len(ranks)
        asked = [_Asked(x, rank, first + lane, (slot, lane, draw), draw) for lane, rank in enumerate(ranks)]
        self.waiting += asked
        return _Together(self, asked)

    def forget(self, ranks: Sequence[int]) -> None:
        self.waiting = [asked for asked in self.waiting if asked.rank not in ranks]

    def buffers_of(self, ranks: Sequence[int]) -> list[Buffers]:
        return [copied(self.replicas.buffers[rank]) for rank in ranks if self.replicas.buffers]

    def set_buffers(self, ranks: Sequence[int], buffers: list[Buffers]) -> None:
        for rank, each in zip(ranks if buffers else (), buffers, strict=True):
            self.replicas.buffers[rank] = copied(each)

    def compute(self) -> None:
        """All that wait."""
        asked, self.waiting = self.waiting, []
        self._compute(asked)

    @abstractmethod
    def _compute(self, every: list[_Asked]) -> None: ...

    def _alone(self, asked: _Asked) -> tuple[Tensor, Vector]:
        """One gradient, bit for bit as on a real process."""
        buffers = self.replicas.buffers
        problem = self.replicas.holding(buffers[asked.rank] if buffers else {})
        return problem.gradient(asked.x, self.batches[asked.batches](asked.draw), asked.key)

    def close(self) -> None:
        self.replicas.close()


class _Together:
    """The gradients of one worker."""

    __slots__ = ("asked", "source")

    def __init__(self, source: _Lazy, asked: list[_Asked]) -> None:
        self.source, self.asked = source, asked

    def result(self) -> Gradients:
        if self.asked[0].done is None:
            self.source.compute()
        losses, gradients = zip(*(asked.done for asked in self.asked if asked.done is not None), strict=True)
        return losses, gradients


class Pool(_Lazy):
    """Each gradient by itself, as many side by side as there are threads."""

    def _compute(self, every: list[_Asked]) -> None:
        left = deque(every)
        self.replicas.map(self._drain, [left] * min(self.replicas.threads, len(every)))

    def _drain(self, left: deque[_Asked]) -> None:
        while left:
            try:
                asked = left.popleft()
            except IndexError:  # another thread was faster
                return
            asked.done = self._alone(asked)


class Batched(_Lazy):
    """Several gradients in one pass (vmap).

    Which ones those are follows from virtual time alone, so a run is reproducible; its bits are not those of `Pool`.
    One that waits alone is computed as there: vmap takes several times as long for it.
    """

    def _compute(self, every: list[_Asked]) -> None:
        if len(every) == 1:
            every[0].done = self._alone(every[0])
            return
        size = max(16, CHUNK_BYTES // self.replicas.problem.x0.nbytes)
        chunks = [every[i : i + size] for i in range(0, len(every), size)]
        for chunk, (losses, gradients) in zip(chunks, self.replicas.map(self._chunk, chunks), strict=True):
            for asked, loss, g in zip(chunk, losses.unbind(), gradients.unbind(), strict=True):
                asked.done = loss, g

    def _chunk(self, chunk: list[_Asked]) -> tuple[Tensor, Tensor]:
        problem = self.replicas.mine()
        images, labels = together([self.batches[asked.batches] for asked in chunk], [asked.draw for asked in chunk])
        return problem.gradients(torch.stack([asked.x for asked in chunk]), images, labels)
