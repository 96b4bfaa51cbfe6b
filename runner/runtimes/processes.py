"""The runtime of real processes: torch.distributed, one process per GPU (per worker on a CPU).

A worker of several processes (a node of several GPUs) runs the algorithm in each of them on equal iterates: its
gradient is the mean over them, and each carries its own share of every message, gathered inside the node.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from algorithms.topology import Graph
from algorithms.worker import Group, Payload, Vector
from runner.clock import Mark, TrainingClock
from runner.optimizer import LocalOptimizer
from runner.problem import Problem
from runner.runtimes.accounting import all_gather_bytes, all_reduce_bytes
from runner.runtimes.base import Claims, Member, Saved
from runner.runtimes.driver import Request, drive
from runner.runtimes.exchange import Exchange, wait_for
from runner.runtimes.mesh import Mesh, new_group
from runner.runtimes.post import Letters, Post, Receipt

S = TypeVar("S")
Batches = Callable[[int], tuple[Tensor, Tensor]]

# BatchNorm buffers are each worker's own; torch renamed the switch, and warns of the old name, in 2.15.
_ddp_settings = inspect.signature(DistributedDataParallel).parameters
OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _ddp_settings else "broadcast_buffers": False
}

HOLD = -2
"""In place of the number of a mini-batch."""

MOST_UNSENT = 4
"""Exchanges whose sending may lag behind: a worker that far ahead of a receiver waits for it."""


class ProcessWorker(Member):
    """`algorithms.worker.Worker` on this process.

    Args:
        batches: the mini-batch of each draw, a pure function; with `claims`, of each claim.
        draws: how many mini-batches this worker has in all.
        clock: the training clock; `split` is filled in along with it.
        asynchronous: whether the method sends messages that nobody has agreed upon. Such a worker's first process
            runs the method, and the others compute gradients for it.
        timeout_s: how long an asynchronous worker waits for an answer.
    """

    counters = ("draw", "exchanges")

    def __init__(
        self,
        mesh: Mesh,
        problem: Problem,
        batches: Batches,
        draws: int,
        optimizer: LocalOptimizer,
        graph: Graph | None,
        clock: TrainingClock,
        *,
        per_node: int = 1,
        per_epoch: int,
        seed: int,
        claims: Claims | None = None,
        asynchronous: bool = False,
        timeout_s: float = 1800.0,
    ) -> None:
        everyone = Group(tuple(range(mesh.workers)))
        super().__init__(mesh.worker, everyone, per_node, mesh.servers, per_epoch, seed, graph, claims)
        self.mesh, self.problem, self.batches, self.draws = mesh, problem, batches, draws
        self.optimizer: LocalOptimizer = optimizer
        self.clock = clock
        self.post: Post | None = None
        if asynchronous and mesh.lane == 0:
            where = mesh.process_of, mesh.member_of
            self.post = Post(self, mesh.quiet, problem.dtype, problem.device, timeout_s, *where, self.hear)
        self.leads = asynchronous and mesh.per_worker > 1 and not mesh.is_server
        self.exchanges = 0
        self.outbox: deque[list[dist.Work]] = deque()
        self.loss = torch.zeros(())
        self.watcher: ThreadPoolExecutor | None = None
        self._reducer: tuple[Group | None, DistributedDataParallel] | None = None
        self._backward_done: Mark | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.lr

    @property
    def last_loss(self) -> float:
        if self.mesh.inside is None:
            return float(self.loss)
        mine = self.loss.detach().cpu()
        losses = [torch.empty_like(mine) for _ in range(self.mesh.per_worker)]
        dist.all_gather(losses, mine, group=self.mesh.inside)
        return float(torch.stack(losses).mean())

    def initial(self) -> Vector:
        return self.own_part(self.problem.initial())

    def save(self) -> Saved:
        # Torch's reducer sums its first gradients in another order than all later ones. Whoever goes on from here
        # has a new one; so has this run.
        self._reducer = None
        waited_s = self.split.wait_s
        saved = super().save()  # which waits for what is under way, while the clock stands still
        saved["split"]["wait_s"] = self.split.wait_s = waited_s
        return saved

    def buffers(self) -> list[dict[str, Tensor]]:
        return [{name: buffer.clone() for name, buffer in self.problem.buffers().items()}]

    def set_buffers(self, buffers: list[dict[str, Tensor]]) -> None:
        for name, buffer in self.problem.buffers().items():
            buffer.copy_(buffers[0][name])

    def has_work(self) -> Request[bool]:
        return Request(lambda: self.draw < self.draws if self.claims is None else self.has_claim())

    # -- computing -------------------------------------------------------------------------------------------------

    def gradient(self, x: Vector, mean_over: Group | None = None) -> Request[Vector]:
        return Request(lambda: self._gradient(x, mean_over))

    def _gradient(self, x: Vector, mean_over: Group | None) -> Vector:
        slot, draw = self.next_batch()
        number = draw if self.claims is None else draw * self.size + slot
        if self.leads:
            self._tell_followers(x, number)
        return self._gradient_of(x, number, mean_over)

    def _gradient_of(self, x: Vector, number: int, mean_over: Group | None) -> Vector:
        started_s = self.clock.now()
        batch = self.batches(number)
        loaded_s = self.clock.now()
        reducer = self._reducer_for(mean_over)
        draw, slot = (number, self.rank) if self.claims is None else divmod(number, self.size)
        self.loss, g = self.problem.gradient(x, batch, (slot, self.mesh.lane, draw), reducer, self._note_reduced)
        self.split.data_s += loaded_s - started_s
        if reducer is not None:
            ranks = self.mesh.per_worker * (1 if mean_over is None else len(mean_over.ranks))
            self.split.count_sent(all_reduce_bytes(g.nbytes, ranks))
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
            processes = self.mesh.training
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
            self.timed(lambda: wait_for(self.outbox.popleft()))
        return exchange

    def all_reduce(self, x: Vector, group: Group) -> Request[Vector]:
        return Request(lambda: self.timed(lambda: self._all_reduce(x, group)))

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

    def timed(self, wait: Callable[[], S]) -> S:
        started_s = self.clock.now()
        value = wait()
        self.split.wait_s += self.clock.now() - started_s
        return value

    def watch(self, wait: Callable[[], None]) -> Future[None]:
        """Wait in a thread: gloo does not tell that a message has arrived before it is waited for."""
        if self.watcher is None:
            self.watcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="arrivals")
        return self.watcher.submit(wait)

    # -- asynchronous messages -------------------------------------------------------------------------------------

    def send(self, to: int, channel: str, payload: Payload) -> None:
        self._posted.send(to, channel, payload)

    def receive(self, source: int, channel: str, like: Payload) -> Receipt:
        return Receipt(self._posted, source, channel)

    def messages(self, channel: str, like: Payload) -> Letters:
        return Letters(self._posted, channel)

    def beside(self, task: Coroutine[Any, Any, None]) -> None:
        post = self._posted

        def run() -> None:
            with post.turn.lock:
                drive(task, post.turn)

        post.run_beside(run)

    def leave(self) -> Request[None]:
        return Request(lambda: self.timed(self._posted.leave))

    @property
    def _posted(self) -> Post:
        assert self.post is not None, "a method that sends messages of this kind declares that it is not synchronous"
        return self.post

    def _tell_followers(self, x: Vector | None, number: int = -1) -> None:
        """To the other processes of this worker: compute a gradient; without x, there is none left to compute."""
        inside, source = self.mesh.inside, self.mesh.process_of(self.rank)
        dist.broadcast(torch.tensor([number]), source, group=inside)
        if x is not None:
            dist.broadcast(x.to("cpu", copy=True), source, group=inside)

    def follow(self) -> Iterator[bool]:
        """Compute gradients for the first process of this worker until it has no more.

        Yields whether all workers are held now, instead of having computed one.
        """
        inside, source = self.mesh.inside, self.mesh.process_of(self.rank)
        number = torch.zeros(1, dtype=torch.int64)
        x = self.problem.initial().to("cpu")
        while True:
            dist.broadcast(number, source, group=inside)
            if number == HOLD:
                yield True
                continue
            if number < 0:
                return
            dist.broadcast(x, source, group=inside)
            self.draw = int(number) // (self.size if self.claims is not None else 1) + 1
            self.optimizer.go_to(self.draw - 1)  # for the record
            self._gradient_of(x.to(self.problem.device), int(number), None)
            yield False

    def release_followers(self) -> None:
        if self.leads and self.mesh.lane == 0:
            self._tell_followers(None)

    def hold_followers(self) -> None:
        """Let them know that all workers are held now: see `runner.runtimes.cut`."""
        if self.leads and self.mesh.lane == 0:
            self._tell_followers(None, HOLD)

    def close(self) -> None:
        if self.post is not None:
            self.post.close()
        while self.outbox:
            wait_for(self.outbox.popleft())
        if self.watcher is not None:
            self.watcher.shutdown()
        self._reducer = None
