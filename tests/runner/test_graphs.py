"""The topology that a configuration asks for reaches the algorithm, at the right step, or is refused with a reason."""

from __future__ import annotations

import pytest
from harness import configure

from algorithms import topologies
from runner.build import ConfigError
from runner.config import Config, workers
from runner.graphs import make_graph, make_schedule
from runner.prepare import make_algorithm

RING = {"_target_": "algorithms.topologies.ring"}
COMPLETE = {"_target_": "algorithms.topologies.complete"}


def graph(config: Config, per_epoch: int):
    return make_graph(config, make_algorithm(config), workers(config), per_epoch)


def test_phases_begin_at_their_epoch():
    """Two peers for 30 epochs, then one; the second phase starts at its own first slot."""
    config = configure("algorithm=sgp", "topology=two_then_one_peer", "nodes=8")
    phases = graph(config, per_epoch=7)
    two, one = topologies.k_peer_exponential(8, peers=2), topologies.one_peer_exponential(8)
    switch = 30 * 7
    assert [phases.at(k) for k in range(switch)] == [two.at(k) for k in range(switch)]
    assert [phases.at(switch + k) for k in range(20)] == [one.at(k) for k in range(20)]


def test_phases_can_be_typed():
    config = configure(
        "algorithm=sgp",
        "topology=two_then_one_peer",
        "topology.phases=[{epoch: 0, topology: {_target_: algorithms.topologies.complete}},"
        "{epoch: 2, topology: {_target_: algorithms.topologies.ring, directed: true}}]",
        "nodes=3",
    )
    phases = graph(config, per_epoch=5)
    assert phases.at(9) == topologies.complete(3).at(0)
    assert phases.at(10) == topologies.ring(3, directed=True).at(0)


def test_a_sequence_is_one_period_of_each_in_turn():
    config = configure("algorithm=sgp", "topology=sequence", "nodes=4")
    sequence = graph(config, per_epoch=1)
    ring, complete = topologies.ring(4).at(0), topologies.complete(4).at(0)
    assert [sequence.at(k) for k in range(7)] == [ring, ring, complete, ring, ring, complete, ring]


def test_a_sequence_may_be_a_phase():
    node = {"phases": [{"epoch": 0, "topology": {"sequence": [RING, COMPLETE]}}, {"epoch": 1, "topology": RING}]}
    phases = make_schedule(node, 4, 3)
    ring, complete = topologies.ring(4).at(0), topologies.complete(4).at(0)
    assert [phases.at(k) for k in range(5)] == [ring, complete, ring, ring, ring]


@pytest.mark.parametrize(
    ("algorithm", "default"), [("sgp", "one_peer_exponential"), ("dpsgd", "bipartite_exponential")]
)
def test_a_method_brings_its_default(algorithm, default):
    config = configure(f"algorithm={algorithm}", "nodes=4")
    assert graph(config, 1) == getattr(topologies, default)(4)


def test_a_graph_counts_workers_not_processes():
    by_node = configure("algorithm=sgp", "nodes=2", "gpus_per_node=2")
    by_gpu = configure("algorithm=sgp", "nodes=2", "gpus_per_node=2", "algorithm.worker=gpu")
    assert graph(by_node, 1).size == 2
    assert graph(by_gpu, 1).size == 4


def test_allreduce_has_none():
    assert graph(configure("algorithm=allreduce"), 1) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("algorithm=sgp", "topology=none"), r"topology=none: sgp needs one, e\.g\. topology=ring"),
        (("algorithm=dpsgd", "topology=none"), r"topology=none: dpsgd needs one"),
        (("algorithm=allreduce", "topology=ring"), r"topology=ring: allreduce uses no topology; leave it out"),
        (("algorithm=allreduce", "topology=sequence"), r"topology=sequence: allreduce uses no topology"),
        (("algorithm=allreduce", "topology=two_then_one_peer"), r"topology=two_then_one_peer: allreduce uses no"),
        (("algorithm=dpsgd", "topology=random_peer"), r"topology=random_peer: dpsgd .* doubly stochastic .*; use"),
        (("algorithm=dpsgd", "topology=star"), r"topology=star: dpsgd needs a doubly stochastic .* 4 workers"),
        (("algorithm=dpsgd", "nodes=3"), r"topology=bipartite_exponential needs an even number .* got 3: use 2 or 4"),
        (("algorithm=sgp", "topology=hypercube", "nodes=6"), r"topology=hypercube needs a power of two .* use 4 or 8"),
        (("algorithm=sgp", "topology=torus", "topology.rows=3"), r"topology\.rows=3 .* use topology\.rows=1, 2 or 4"),
        (("algorithm=sgp", "topology=ring", "topology.directed=1"), r"topology\.directed=1: must be true or false"),
        (("algorithm=sgp", "topology=sequence", "topology.sequence=[]"), r"topology\.sequence is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


@pytest.mark.parametrize("weights", ["metropolis"])
def test_what_mixes_doubly_is_not_refused(weights):
    assert configure("algorithm=dpsgd", "topology=star", f"topology.weights={weights}")


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], r"first phase must start at 0"),
        ([{"epoch": 1, "topology": RING}], r"first phase must start at 0"),
        ([{"epoch": 0, "topology": RING}, {"epoch": 0, "topology": COMPLETE}], r"must start after the one before"),
        ([{"epoch": 0}], r"topology\.phases: .* must hold `epoch` and `topology`"),
        ([{"epoch": 0, "topology": RING, "peers": 2}], r"topology\.phases: .* must hold `epoch` and `topology`"),
        ([{"epoch": 0, "topology": {**RING, "peers": 2}}], r"topology\.peers: ring has no such setting; .*directed"),
        ([{"epoch": 0, "topology": {"_target_": None}}], r"topology\._target_=null: must name what to call"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, list) else "",
)
def test_phases_that_do_not_follow_each_other_are_refused(phases, message):
    with pytest.raises(ConfigError, match=message):
        make_schedule({"phases": phases}, 4, 10)


def test_every_phase_must_mix_as_the_method_needs():
    star = {"_target_": "algorithms.topologies.star"}
    config = configure("algorithm=dpsgd", "topology=two_then_one_peer")
    config["topology"] = {"phases": [{"epoch": 0, "topology": RING}, {"epoch": 1, "topology": star}]}
    with pytest.raises(ConfigError, match="dpsgd needs a doubly stochastic"):
        graph(config, 10)
