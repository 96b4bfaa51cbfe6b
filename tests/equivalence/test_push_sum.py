"""Push-sum on real processes: nothing is lost, and the weights undo what an irregular graph does to the mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import DOUBLE, SMALL, configure, run_processes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algorithms.topologies import one_peer_exponential, star
from algorithms.topology import Mixing, Topology
from runner.config import Config
from runner.parts import assemble

pytestmark = pytest.mark.multiproc

STILL = ("optimizer.lr=1e-300", "optimizer.weight_decay=0", "schedule=constant", "epochs=3")  # nothing but mixing


def mix(config: Config, graph: Topology, steps: int, start: torch.Tensor) -> dict[str, Any]:
    """Start from a worker's own vector and take so many steps; what it holds then, and what is on its way to it."""
    parts = assemble(config, torch.device("cpu"))
    worker = parts.worker
    worker._graph = graph
    worker.initial = lambda: start[worker.rank, : parts.problem.dimension].clone()  # type: ignore[method-assign]
    iterates = parts.iterates()
    z = start
    for _ in range(steps):
        z = next(iterates)
    s = worker.state
    messages = [message for _, handle in s.in_flight for message in handle.wait().values()]
    x = s.x + sum(x for x, _ in messages)
    w = s.w + sum(w for _, w in messages)
    worker.close()
    return {"x": x, "w": w, "z": z, "in_flight": len(messages)}


def start_of(n: int) -> torch.Tensor:
    return torch.randn(n, 2000, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


@st.composite
def mixings(draw: st.DrawFn, n: int) -> Mixing:
    """Any column-stochastic matrix with a positive diagonal: each worker keeps a share, and sends to whom it likes."""
    own, outgoing = [], []
    for i in range(n):
        peers = draw(st.sets(st.sampled_from([j for j in range(n) if j != i])))
        weights = {j: draw(st.floats(0.1, 1)) for j in [i, *sorted(peers)]}
        total = sum(weights.values())
        outgoing.append({j: weights[j] / total for j in sorted(peers)})
        own.append(1 - sum(outgoing[-1].values()))
    return Mixing(own, outgoing)


@given(data=st.data(), n=st.integers(2, 4), overlap=st.integers(0, 3), merge=st.sampled_from(["exact", "arrived"]))
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_sums_of_x_and_w_are_conserved(data: st.DataObject, n: int, overlap: int, merge: str) -> None:
    slots = data.draw(st.lists(mixings(n), min_size=1, max_size=3))
    steps = data.draw(st.integers(1, 12))
    method = ("algorithm=sgp", f"algorithm.overlap={overlap}", f"algorithm.merge={merge}", f"nodes={n}")
    config = configure(*method, *SMALL, *DOUBLE, *STILL)
    start = start_of(n)
    workers = run_processes(mix, n, config, Topology("drawn", slots), steps, start)
    total = sum(worker["x"] for worker in workers)
    torch.testing.assert_close(total, start[:, : len(total)].sum(0), rtol=1e-12, atol=1e-12)
    assert sum(worker["w"] for worker in workers) == pytest.approx(n, rel=1e-12)


def test_in_lockstep_on_a_regular_graph_the_weights_stay_one() -> None:
    config = configure("algorithm=sgp", "nodes=4", *SMALL, *DOUBLE, *STILL)
    for worker in run_processes(mix, 4, config, one_peer_exponential(4), 7, start_of(4)):
        assert worker["w"] == 1.0


def test_debiasing_matters_on_an_irregular_graph() -> None:
    start, graph = start_of(4), star(4)
    distance = {}
    for biased in ("false", "true"):
        config = configure("algorithm=sgp", f"algorithm.biased={biased}", "nodes=4", *SMALL, *DOUBLE, *STILL)
        workers = run_processes(mix, 4, config, graph, 60, start)
        mean = start.mean(0)[: len(workers[0]["z"])]
        distance[biased] = max(float((worker["z"] - mean).abs().max()) for worker in workers)
    assert distance["false"] < 1e-6  # every worker at the mean of where all began
    assert distance["true"] > 0.1


def test_what_is_in_flight_at_the_end_is_collected() -> None:
    method = ("algorithm=sgp", "algorithm.overlap=3", "algorithm.merge=exact", "nodes=3")
    config = configure(*method, *SMALL, *DOUBLE, *STILL, "epochs=1")
    start = start_of(3)
    config["dataset"]["train_samples"] = 8 * 3 * 5  # five steps and the end
    workers = run_processes(mix, 3, config, star(3), 6, start)
    assert all(worker["in_flight"] == 0 for worker in workers)
    total = sum(worker["x"] for worker in workers)
    torch.testing.assert_close(total, start[:, : len(total)].sum(0), rtol=1e-12, atol=1e-12)
    assert sum(worker["w"] for worker in workers) == pytest.approx(3, rel=1e-12)
