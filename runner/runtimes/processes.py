"""The runtime of real processes: torch.distributed, one process per GPU (per worker on a CPU).

A worker of several processes (a node of several GPUs) runs the algorithm in each of them on equal iterates: its
gradient is the mean over them, and each carries its own share of every message, gathered inside the node.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from algorithms.topology import Graph
from algorithms.worker import Group, Payload, Vector
from runner.clock import Mark, Split, TrainingClock
from runner.optimizer import LocalOptimizer
from runner.problem import Problem
from runner.runtimes.accounting import all_gather_bytes, all_reduce_bytes, message_bytes
from runner.runtimes.driver import Request

S = TypeVar("S")
Batches = Callable[[int], tuple[Tensor, Tensor]]

# BatchNorm buffers are each worker's own; torch renamed the switch, and warns of the old name, in 2.15.
_ddp_settings = inspect.signature(DistributedDataParallel).parameters
OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _ddp_settings else "broadcast_buffers": False
}

MOST_PARTS = 8
"""Vectors (and one set of scalars) in one message."""

MOST_UNSENT = 4
"""Exchanges whose sending may lag behind: a worker that far ahead of a receiver waits for it."""


class Mesh:
    """Which process is which: ranks in rows of `per_worker`, one row a worker. Collective: made by all at once."""

    def __init__(self, per_worker: int, backend: str) -> None:
        self.rank, self.ranks, self.per_worker = dist.get_rank(), dist.get_world_size(), per_worker
        self.worker, self.lane = divmod(self.rank, per_worker)
        self.workers = self.ranks // per_worker
        self.host_staged = backend == "gloo"  # gloo's point-to-point moves host memory only
        self.inside = dist.new_subgroups(per_worker)[0] if per_worker > 1 else None
        self.groups: dict[tuple[int, ...], dist.ProcessGroup] = {}

    def home(self, device: torch.device) -> torch.device:
        """Where tensors of a device must be to travel."""
        return torch.device("cpu") if self.host_staged else device

    def peer(self, worker: int) -> int:
        """The process of another worker that exchanges with this one: the same place in its row."""
        return worker * self.per_worker + self.lane

    def across(self, group: Group) -> dist.ProcessGroup:
        """This process's counterparts in a group of workers, made when first asked for, by its members alone."""
        ranks = tuple(self.peer(worker) for worker in group.ranks)
        if ranks not in self.groups:
            self.groups[ranks] = new_group(list(ranks))
        return self.groups[ranks]


def new_group(ranks: list[int]) -> dist.ProcessGroup:
    """A process group, made by its members alone."""
    made = dist.new_group(ranks, use_local_synchronization=True)
    assert isinstance(made, dist.ProcessGroup)
    return made


class ProcessWorker:
    """`algorithms.worker.Worker` on this process.

    Args:
        batches: the mini-batch of each draw, a pure function.
        draws: how many mini-batches this worker has in all.
        clock: the training clock; `split` is filled in along with it.
    """

    def __init__(
        self,
        mesh: Mesh,
        problem: Problem,
        batches: Batches,
        draws: int,
        optimizer: LocalOptimizer,
        graph: Graph | None,
        clock: TrainingClock,
    ) -> None:
        self.mesh, self.problem, self.batches, self.draws = mesh, problem, batches, draws
        self.optimizer, self._graph, self.clock = optimizer, graph, clock
        self.rank, self.size = mesh.worker, mesh.workers
        self.everyone = Group(tuple(range(mesh.workers)))
        self.split = Split()
        self.draw = 0
        self.exchanges = 0
        self.outbox: deque[list[dist.Work]] = deque()
        self.loss = torch.zeros(())
        self.state: Any = None
        self.watcher: ThreadPoolExecutor | None = None
        self._reducer: tuple[Group | None, DistributedDataParallel] | None = None
        self._backward_done: Mark | None = None

    @property
    def graph(self) -> Graph:
        assert self._graph is not None, "an algorithm that uses a graph declares so in `topology`"
        return self._graph

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.lr

    def initial(self) -> Vector:
        return self.problem.initial()

    def restore(self, state: S) -> S:
        self.state = state
        return state

    def has_work(self) -> Request[bool]:
        return Request(lambda: self.draw < self.draws)

    # -- computing -------------------------------------------------------------------------------------------------

    def gradient(self, x: Vector, mean_over: Group | None = None) -> Request[Vector]:
        return Request(lambda: self._gradient(x, mean_over))

    def _gradient(self, x: Vector, mean_over: Group | None) -> Vector:
        started_s = self.clock.now()
        batch = self.batches(self.draw)
        loaded_s = self.clock.now()
        reducer = self._reducer_for(mean_over)
        key = (self.rank, self.mesh.lane, self.draw)
        self.loss, g = self.problem.gradient(x, batch, key, reducer, self._note_reduced)
        self.draw += 1
        self.split.data_s += loaded_s - started_s
        if reducer is not None:
            ranks = self.mesh.per_worker * (1 if mean_over is None else len(mean_over.ranks))
            self.split.bytes_sent += all_reduce_bytes(g.nbytes, ranks)
        return g

    def _note_reduced(self) -> None:
        """What the reducer still waited for once the backward pass was over is communication that nothing hid."""
        if self._backward_done is not None:
            self.split.wait_s += self._backward_done.elapsed_s()

    def descend(self, x: Vector, g: Vector) -> Vector:
        return self.optimizer.descend(x, g)

    def _reducer_for(self, group: Group | None) -> DistributedDataParallel | None:
        """Torch's DDP over the processes whose gradients are averaged: its native reducer, without a Python hook.

        One lives at a time, because two on one model would both answer its backward pass; a method that changes its
        group does so once, at a switch, and pays for a new one there.
        """
        if self.mesh.per_worker == 1 and (group is None or len(group.ranks) == 1):
            self._reducer = None
            return None
        if self._reducer is None or self._reducer[0] != group:
            self._reducer = None
            self._reducer = (group, self._make_reducer(group))
        return self._reducer[1]

    def _make_reducer(self, group: Group | None) -> DistributedDataParallel:
        if group is None:
            processes = self.mesh.inside
        elif len(group.ranks) == self.mesh.workers:
            processes = None
        else:
            members = [w * self.mesh.per_worker + lane for w in group.ranks for lane in range(self.mesh.per_worker)]
            processes = new_group(members)
        reducer = DistributedDataParallel(
            self.problem.forward,
            process_group=processes,
            gradient_as_bucket_view=True,
            init_sync=False,
            **OWN_BUFFERS,
        )
        if self._backward_done is None:
            self._backward_done = Mark(self.problem.device)
            first = self.problem.parameters[0]  # its gradient is the last that the backward pass computes
            first.register_hook(self._backward_done.set)
        return reducer

    # -- communicating ---------------------------------------------------------------------------------------------

    def exchange(
        self, outgoing: Mapping[int, Payload], incoming: Collection[int], like: Payload | None = None
    ) -> Exchange:
        self.exchanges += 1
        exchange = Exchange(self, outgoing, incoming, like, self.exchanges)
        self.outbox.append(exchange.sends)
        if len(self.outbox) > MOST_UNSENT:
            self._timed(lambda: wait_for(self.outbox.popleft()))
        return exchange

    def all_reduce(self, x: Vector, group: Group) -> Request[Vector]:
        return Request(lambda: self._timed(lambda: self._all_reduce(x, group)))

    def _all_reduce(self, x: Vector, group: Group) -> Vector:
        share = self.share(x).clone().to(self.mesh.home(x.device))
        dist.all_reduce(share, group=self.mesh.across(group))
        share /= len(group.ranks)
        self.split.bytes_sent += all_reduce_bytes(share.nbytes, len(group.ranks))
        return self.gathered(share, x.numel()).to(x.device)

    def share(self, x: Vector) -> Tensor:
        """The part of a vector that this process carries for its worker, all parts padded to one length."""
        if self.mesh.per_worker == 1:
            return x
        length = -(-x.numel() // self.mesh.per_worker)
        padded = torch.nn.functional.pad(x, (0, length * self.mesh.per_worker - x.numel()))
        return padded.narrow(0, self.mesh.lane * length, length)

    def gathered(self, share: Tensor, length: int) -> Vector:
        """The whole vector of which each process of this worker has its share."""
        if self.mesh.per_worker == 1:
            return share
        whole = torch.empty(share.numel() * self.mesh.per_worker, dtype=share.dtype, device=share.device)
        dist.all_gather_into_tensor(whole, share, group=self.mesh.inside)
        self.split.bytes_sent += all_gather_bytes(share.nbytes, self.mesh.per_worker)
        return whole[:length]

    def _timed(self, wait: Callable[[], S]) -> S:
        started_s = self.clock.now()
        value = wait()
        self.split.wait_s += self.clock.now() - started_s
        return value

    def watch(self, wait: Callable[[], None]) -> Future[None]:
        """Wait in a thread: gloo does not tell that a message has arrived before it is waited for."""
        if self.watcher is None:
            self.watcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="arrivals")
        return self.watcher.submit(wait)

    def close(self) -> None:
        while self.outbox:
            wait_for(self.outbox.popleft())
        if self.watcher is not None:
            self.watcher.shutdown()
        self._reducer = None


def wait_for(works: list[dist.Work]) -> None:
    for work in works:
        work.wait()


class Exchange(Request[dict[int, Payload]]):
    """One neighbour exchange under way, posted as one group: see `Worker.exchange`."""

    def __init__(
        self,
        worker: ProcessWorker,
        outgoing: Mapping[int, Payload],
        incoming: Collection[int],
        like: Payload | None,
        sequence: int,
    ) -> None:
        super().__init__(lambda: worker._timed(self._receive))
        layout = like if like is not None else next(iter(outgoing.values()))
        self.worker = worker
        self.device = next((part.device for part in layout if isinstance(part, Tensor)), torch.device("cpu"))
        self.layout = [part.numel() if isinstance(part, Tensor) else None for part in layout]
        packed = {id(payload): self._pack(payload) for payload in outgoing.values()}  # often the same for all
        self.sent = {j: packed[id(payload)] for j, payload in outgoing.items()}
        self.received = {j: [torch.empty_like(part) for part in self._pack(layout)] for j in incoming}
        self.watched: Future[None] | None = None
        operations = [
            dist.P2POp(operation, part, worker.mesh.peer(j), tag=sequence * MOST_PARTS + place)
            # Receives first: gloo tells a sender that it may begin, else only after all that goes the other way.
            for operation, messages in ((dist.irecv, self.received), (dist.isend, self.sent))
            for j, parts in messages.items()
            for place, part in enumerate(parts)
        ]
        assert all(len(parts) <= MOST_PARTS for parts in self.received.values()), "tags of two exchanges would meet"
        works = dist.batch_isend_irecv(operations) if operations else []
        receiving = sum(len(parts) for parts in self.received.values())
        if not worker.mesh.host_staged:
            receiving = len(works)  # NCCL's group is one work for both
        self.receives, self.sends = works[:receiving], works[receiving:]
        worker.split.bytes_sent += sum(message_bytes(part.nbytes for part in parts) for parts in self.sent.values())

    def _pack(self, payload: Payload) -> list[Tensor]:
        """What travels: this process's share of each vector, then the scalars as one float64 tensor."""
        home = self.worker.mesh.home(self.device)
        parts = [self.worker.share(part).to(home) for part in payload if isinstance(part, Tensor)]
        scalars = [part for part in payload if not isinstance(part, Tensor)]
        return parts + ([torch.tensor(scalars, dtype=torch.float64, device=home)] if scalars else [])

    def _unpack(self, parts: list[Tensor]) -> Payload:
        scalars = iter(parts[-1].tolist() if None in self.layout else [])
        shares = iter(parts)
        return tuple(
            next(scalars) if length is None else self.worker.gathered(next(shares), length).to(self.device)
            for length in self.layout
        )

    def _receive(self) -> dict[int, Payload]:
        if self.watched is not None:
            self.watched.result()
        else:
            wait_for(self.receives)
        return {j: self._unpack(parts) for j, parts in self.received.items()}

    @property
    def arrived(self) -> bool:
        """Whether all messages are here. The processes of one worker agree on the answer: they must act alike."""
        mesh = self.worker.mesh
        if self._wait is None:
            here = True
        elif mesh.host_staged:
            if self.watched is None:
                self.watched = self.worker.watch(lambda: wait_for(self.receives))
            here = self.watched.done()
        else:
            here = all(work.is_completed() for work in self.receives)
        if mesh.inside is None:
            return here
        votes = torch.tensor([int(here)], device=mesh.home(self.device))
        self.worker._timed(lambda: dist.all_reduce(votes, op=dist.ReduceOp.MIN, group=mesh.inside))
        return bool(votes.item())
