"""Which process of a run is which, the groups that they form, and the counter that they share."""

from __future__ import annotations

import itertools
from datetime import timedelta

import torch
import torch.distributed as dist

from algorithms.worker import Group


class Mesh:
    """Which process is which: ranks in rows of `per_worker`, one row a worker; then the servers, one process each.

    Collective: made by all at once.
    """

    def __init__(self, per_worker: int, backend: str, servers: int = 0, asynchronous: bool = False) -> None:
        self.rank, self.ranks, self.per_worker = dist.get_rank(), dist.get_world_size() - servers, per_worker
        self.workers, self.servers = self.ranks // per_worker, servers
        self.is_server = self.rank >= self.ranks
        self.worker, self.lane = divmod(self.rank, per_worker)
        if self.is_server:
            self.worker, self.lane = self.member_of(self.rank), 0
        self.host_staged = backend == "gloo"  # gloo's point-to-point moves host memory only
        everybody = list(range(dist.get_world_size()))
        # For messages that may be long in coming: nothing is wrong where nobody sends any.
        self.quiet = new_group(everybody, timedelta(days=365)) if asynchronous else None
        # Torch names a group by its members and by how many groups a process has made, so a server makes as many as
        # the others do, of itself alone.
        row = everybody[self.rank - self.lane :][:per_worker] if not self.is_server else [self.rank]
        self.inside = new_group(row) if per_worker > 1 else None
        self.training: dist.ProcessGroup | None = None  # of all training processes; None: all there are
        if servers:
            self.training = new_group([self.rank] if self.is_server else everybody[: self.ranks])
        self.groups: dict[tuple[int, ...], dist.ProcessGroup] = {}

    def process_of(self, member: int) -> int:
        """The process that speaks for a worker, or a server."""
        return member * self.per_worker if member < self.workers else self.ranks + member - self.workers

    def member_of(self, process: int) -> int:
        """The worker or server that a process speaks for."""
        return process // self.per_worker if process < self.ranks else self.workers + process - self.ranks

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


def new_group(ranks: list[int], timeout: timedelta | None = None) -> dist.ProcessGroup:
    """A process group, made by its members alone."""
    made = dist.new_group(ranks, timeout, use_local_synchronization=True)
    assert isinstance(made, dist.ProcessGroup)
    return made


class SharedClaims:
    """`runner.runtimes.base.Claims` of all processes of a group, by a counter in its store. Made by all of them alike.

    Args:
        total: mini-batches of all workers.
    """

    _made = itertools.count()

    def __init__(self, total: int) -> None:
        self.total = total
        self.before = 0  # taken before this process began
        self._store, self._key = dist.distributed_c10d._get_default_store(), f"claims of run {next(self._made)}"

    def take(self) -> int | None:
        number = self.before + self._store.add(self._key, 1) - 1
        return number if number < self.total else None

    @property
    def taken(self) -> int:
        """By all processes together."""
        return min(self.total, self.before + int(self._store.add(self._key, 0)))
