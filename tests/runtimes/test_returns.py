"""A worker that returns takes a living one's place in the method: its anchors, its blocks, its switch."""

from __future__ import annotations

import pytest
import torch
from harness import SMALL, configure
from virtual import play

RUN = (
    *("launcher=simulated", *SMALL, "nodes=4", "gpus_per_node=1", "epochs=1", "dataset.train_samples=768"),
    *("cluster.compute.seconds=1", "schedule=constant", "failures.timeout_s=50"),
)
DEATH = "failures.plan=[{worker: 3, dies_at_s: 9.5, returns_at_s: 11.5}]"
IN_BLOCKS = ("local_sgd", "slowmo", "bmuf", "diloco", "hier_avg", "sasgd", "slowmo_sgp", "post_local_sgd", "easgd_sync")
SETTINGS = {
    "post_local_sgd": ("algorithm.epoch=0.2",),
    "allreduce_then_sgp": ("algorithm.epoch=0.2",),
    "slowmo_sgp": ("algorithm.period=8",),
}


@pytest.mark.parametrize("method", [*IN_BLOCKS, "noloco", "allreduce_then_sgp"])
def test_who_returns_is_one_of_them_again(method: str) -> None:
    played = play(configure(f"algorithm={method}", *RUN, *SETTINGS.get(method, ()), DEATH))
    workers, iterates = played.workers, played.iterates
    assert [worker.draw for worker in workers] == [24] * 4
    assert played.times[3][-1] == pytest.approx(played.times[0][-1], abs=0.5)
    last = [each[-1] for each in iterates]
    start = played.simulation.cluster.workers[0].x0
    apart = max(float(torch.linalg.vector_norm(x - last[0])) for x in last)
    if method in IN_BLOCKS and method != "easgd_sync":  # the last block has ended for all at one point
        assert apart <= 1e-5
    assert apart < float(torch.linalg.vector_norm(last[0] - start))
