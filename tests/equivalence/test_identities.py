"""Identities between methods, on real gloo processes. Those that reorder a sum are tested in float64 to 1e-9 over 50
steps, and in float32 by single steps from the same state to 1e-6.
"""

from __future__ import annotations

import pytest
import torch
from harness import DOUBLE, HEAVY_BALL, SMALL, relative, run

pytestmark = pytest.mark.multiproc

EXACT = (*SMALL, *DOUBLE, "epochs=2")
STEPS = 50
NESTEROV = ("optimizer.weight_decay=0.01",)
PLAIN = ("optimizer.nesterov=false", "optimizer.momentum=0", "optimizer.weight_decay=0")


@pytest.mark.parametrize("optimizer", [PLAIN, HEAVY_BALL, NESTEROV], ids=["plain", "heavy-ball", "nesterov"])
def test_sgp_on_the_complete_graph_is_allreduce(optimizer):
    sgp = run("algorithm=sgp", "topology=complete", "nodes=3", *EXACT, *optimizer, steps=STEPS)
    allreduce = run("algorithm=allreduce", "nodes=3", *EXACT, *optimizer, steps=STEPS)
    assert sgp.shape[1] == STEPS
    assert relative(sgp, allreduce) <= 1e-9


def test_sgp_on_the_complete_graph_is_allreduce_in_one_float32_step():
    sgp = run("algorithm=sgp", "topology=complete", "nodes=4", *SMALL, steps=1)
    allreduce = run("algorithm=allreduce", "nodes=4", *SMALL, steps=1)
    assert relative(sgp, allreduce) <= 1e-6


@pytest.mark.parametrize("order", ["adapt_with_combine", "adapt_then_combine"])
@pytest.mark.parametrize("optimizer", [HEAVY_BALL, NESTEROV], ids=["heavy-ball", "nesterov"])
def test_dpsgd_with_one_worker_is_sgd(order, optimizer):
    method = ("algorithm=dpsgd", f"algorithm.order={order}", "topology=ring")
    dpsgd = run(*method, "nodes=1", *EXACT, *optimizer, steps=STEPS)
    sgd = run("algorithm=allreduce", "nodes=1", *EXACT, *optimizer, steps=STEPS)
    assert relative(dpsgd, sgd) <= 1e-9


@pytest.mark.parametrize("k", [2, 4])
def test_allreduce_on_k_workers_is_one_worker_with_k_times_the_batch(k):
    many = run("algorithm=allreduce", f"nodes={k}", *EXACT, *HEAVY_BALL, steps=STEPS)
    one = run("algorithm=allreduce", "nodes=1", *EXACT, *HEAVY_BALL, f"batch_size={8 * k}", steps=STEPS)
    assert relative(many, one.expand_as(many)) <= 1e-9


@pytest.mark.parametrize(
    "method",
    [
        ("algorithm=allreduce",),
        ("algorithm=sgp", "algorithm.merge=exact", "algorithm.overlap=1"),
        ("algorithm=sgp", "topology=complete"),
        ("algorithm=dpsgd", "topology=ring"),
    ],
    ids=["allreduce", "osgp", "sgp", "dpsgd"],
)
def test_two_nodes_of_two_are_two_workers_with_twice_the_batch(method):
    fours = run(*method, "nodes=2", "gpus_per_node=2", *EXACT, *HEAVY_BALL, steps=STEPS)
    twos = run(*method, "nodes=2", *EXACT, *HEAVY_BALL, "batch_size=16", steps=STEPS)
    assert fours.shape[0] == 4
    assert torch.equal(fours[0], fours[1])  # the processes of one worker hold the same iterate
    assert torch.equal(fours[2], fours[3])
    assert relative(fours[::2], twos) <= 1e-9


def test_arrived_messages_leave_the_processes_of_one_worker_together():
    method = ("algorithm=sgp", "algorithm.merge=arrived", "algorithm.overlap=2")
    workers = run(*method, "nodes=2", "gpus_per_node=2", *SMALL, *HEAVY_BALL, steps=STEPS)
    assert torch.equal(workers[0], workers[1])
    assert torch.equal(workers[2], workers[3])


@pytest.mark.parametrize(
    "method",
    [
        ("algorithm=allreduce", "nodes=2"),
        ("algorithm=sgp", "nodes=3"),
        ("algorithm=sgp", "nodes=4", "algorithm.merge=exact", "algorithm.overlap=2"),
        ("algorithm=dpsgd", "nodes=4"),
        ("algorithm=sgp", "nodes=2", "gpus_per_node=2"),
    ],
    ids=["allreduce", "sgp", "osgp", "dpsgd", "two-by-two"],
)
def test_same_seed_same_bytes(method):
    first = run(*method, *SMALL, steps=STEPS)
    second = run(*method, *SMALL, steps=STEPS)
    assert torch.equal(first, second)
    assert not torch.equal(first, run(*method, *SMALL, "seed=1", steps=STEPS))
