"""Rebind, never mutate: what a worker has sent, differentiated or yielded is as it was when the run is over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import SMALL, configure, run_processes
from torch import Tensor

from runner.config import Config
from runner.training import assemble

pytestmark = pytest.mark.multiproc


def watched(config: Config, steps: int) -> dict[str, Any]:
    """How many vectors left the algorithm's hands, and how many of them were changed afterwards."""
    parts = assemble(config, torch.device("cpu"))
    worker = parts.worker
    seen: list[tuple[Tensor, int, Tensor]] = []

    def note(*vectors: Any) -> None:
        seen.extend((v, v._version, v.clone()) for v in vectors if isinstance(v, Tensor))

    exchange, gradient, descend = worker.exchange, worker.gradient, worker.descend

    def noting_exchange(outgoing: Any, incoming: Any, like: Any = None) -> Any:
        note(*(part for payload in outgoing.values() for part in payload))
        return exchange(outgoing, incoming, like)

    def noting_gradient(x: Tensor, mean_over: Any = None) -> Any:
        note(x)
        return gradient(x, mean_over)

    def noting_descend(x: Tensor, g: Tensor) -> Tensor:
        note(x, g)
        return descend(x, g)

    worker.exchange = noting_exchange  # type: ignore[method-assign]
    worker.gradient = noting_gradient  # type: ignore[method-assign]
    worker.descend = noting_descend  # type: ignore[method-assign]
    iterates = parts.iterates()
    for _ in range(steps):
        note(next(iterates))
    worker.close()
    changed = sum(v._version != version or not torch.equal(v, copy) for v, version, copy in seen)
    return {"seen": len(seen), "changed": changed}


@pytest.mark.parametrize(
    "method",
    [
        ("algorithm=allreduce",),
        ("algorithm=dpsgd", "topology=ring"),
        ("algorithm=dpsgd", "topology=ring", "algorithm.order=adapt_then_combine"),
        ("algorithm=sgp",),
        ("algorithm=sgp", "algorithm.overlap=2", "algorithm.merge=exact"),
    ],
    ids=["allreduce", "dpsgd-with", "dpsgd-then", "sgp", "osgp"],
)
def test_nothing_that_left_the_algorithm_is_changed(method: tuple[str, ...]) -> None:
    for worker in run_processes(watched, 3, configure(*method, "nodes=3", *SMALL), 12):
        assert worker["seen"] >= 48
        assert worker["changed"] == 0
