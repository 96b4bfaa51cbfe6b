"""LSGD: every worker is pulled towards the best one. Teng, Gao, Choromanska et al., NeurIPS 2019, arXiv:1905.10395.

    x <- x - lr step(g(x)) ;  every tau steps also
    x <- x - lambda (x - x of the local leader) - lambda_G (x - x of the global leader)

A leader is whose last mini-batch had the lowest loss: the local one in a worker's group, the global one of all. All
terms are taken at the x before the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from algorithms.hier_avg import check_groups, group_of
from algorithms.stepwise import State, Stepwise
from algorithms.worker import Vector, Worker


@dataclass
class LSGD(Stepwise):
    """See the module.

    Args:
        tau: steps between pulls.
        local_pull: lambda.
        global_pull: lambda_G.
        S: workers in a group, of adjacent ranks; null: those of a node.
    """

    tau: int = 4
    local_pull: float = 0.1
    global_pull: float = 0.1
    S: int | None = None

    def __post_init__(self) -> None:
        if self.tau < 1:
            raise ValueError(f"algorithm.tau={self.tau}: steps between pulls are 1 or more")

    def check(self, workers: int) -> None:
        check_groups(workers, self.S)

    async def step(self, worker: Worker, s: State) -> None:
        x = s.x
        g = await worker.gradient(x)
        s.x = worker.descend(x, g)
        s.k += 1
        if s.k % self.tau == 0:
            losses = await losses_of_all(worker)
            for group, pull in ((group_of(worker, self.S), self.local_pull), (worker.everyone, self.global_pull)):
                leader = min(group.ranks, key=lambda rank: (losses.get(rank, float("inf")), rank))
                lead = await spread(worker, x, leader, group.ranks)
                s.x = torch.sub(s.x, x - lead, alpha=pull)


async def losses_of_all(worker: Worker) -> dict[int, float]:
    """The last loss of every worker, by rank."""
    mine = worker.last_loss
    others = [rank for rank in worker.everyone.ranks if rank != worker.rank]
    received = await worker.exchange(dict.fromkeys(others, (mine,)), others, like=(mine,))
    return {worker.rank: mine} | {rank: loss for rank, (loss,) in received.items()}


async def spread(worker: Worker, x: Vector, leader: int, ranks: Sequence[int]) -> Vector:
    """The leader's x, on every worker of its group; a worker's own where the leader is gone."""
    if worker.rank == leader:
        outgoing = {rank: (x,) for rank in ranks if rank != leader}
        await worker.exchange(outgoing, [], like=(x,))
        return x
    received = await worker.exchange({}, [leader], like=(x,))
    return received[leader][0] if received else x
