"""One neighbour exchange between real processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from algorithms.worker import Payload
from runner.runtimes.accounting import message_bytes
from runner.runtimes.driver import Request

if TYPE_CHECKING:
    from runner.runtimes.processes import ProcessWorker

MOST_PARTS = 8
"""Vectors (and one set of scalars) in one message."""


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
        super().__init__(lambda: worker.timed(self._receive))
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
        self.worker.timed(lambda: dist.all_reduce(votes, op=dist.ReduceOp.MIN, group=mesh.inside))
        return bool(votes.item())
