"""The parts of a virtual cluster from a configuration, as the options of conf/ describe them."""

from __future__ import annotations

import json

import pytest
from harness import SMALL, configure

from runner.build import ConfigError
from runner.cluster import make
from runner.config import conf_dir
from runner.identity import identity

TIMING = ("launcher=simulated", "problem=none", "cost=resnet50_v100")
CLUSTERS = sorted({path.stem for path in (conf_dir() / "cluster").glob("*.yaml")} - {"none"})


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_cluster_can_be_made(cluster):
    nodes = 1 if cluster == "nvlink_node" else 4
    config = configure(*TIMING, f"cluster={cluster}", f"nodes={nodes}")
    make.check(config)
    network = make.network(config)
    assert network.nodes == nodes
    assert network.lanes * network.workers_per_node == config["gpus_per_node"]
    assert network.inter.seconds(1.0) > 0


def test_a_cost_group_takes_the_place_of_the_problems_own():
    config = configure("launcher=simulated", *SMALL)
    assert make.seconds_of(config)(0, 0) == config["cluster"]["compute"]["seconds"]
    assert make.vector_bytes(make.cost(config), 123) == 123
    config = configure("launcher=simulated", *SMALL, "cost=resnet50_v100")
    assert make.seconds_of(config)(0, 0) == 0.271
    assert make.vector_bytes(make.cost(config), 123) == 25_557_032 * 4


def test_workers_are_nodes_or_gpus():
    nodes = make.network(configure(*TIMING, "nodes=2", "algorithm=sgp"))
    gpus = make.network(configure(*TIMING, "nodes=2", "algorithm=sgp", "algorithm.worker=gpu"))
    assert (nodes.workers_per_node, nodes.lanes) == (1, 8)
    assert (gpus.workers_per_node, gpus.lanes) == (8, 1)
    assert nodes.link(0, 1, 0.0) == gpus.link(0, 8, 0.0) == nodes.inter
    assert gpus.link(0, 7, 0.0) is gpus.intra


def test_links_that_differ():
    entries = "cluster.links=[{link: [2, 0], bandwidth: 1.0e+8}, {link: [0, 1], both_ways: true, latency_s: 0.5}]"
    network = make.network(configure(*TIMING, "nodes=3", entries))
    assert network.link(2, 0, 0.0).bandwidth == 1e8
    assert network.link(2, 0, 0.0).latency_s == network.inter.latency_s
    assert network.link(0, 1, 0.0).latency_s == network.link(1, 0, 0.0).latency_s == 0.5
    assert network.link(0, 2, 0.0) == network.inter


@pytest.mark.parametrize("missing", ["inter", "intra", "reduction", "compute"])
def test_a_cluster_of_ones_own_that_lacks_something(missing):
    config = configure(*TIMING)
    config["cluster"].pop(missing)
    with pytest.raises(ConfigError, match=rf"cluster\.{missing}: is missing; .*10gbe"):
        make.check(config)


@pytest.mark.parametrize(("group", "begin"), [("cost", "none"), ("failures", "none"), ("cluster", "10gbe")])
def test_a_file_of_ones_own_that_begins_without_the_defaults(group, begin):
    config = configure(*TIMING)
    for node in ({}, {"_target_": config["cost"]["_target_"], "message_bytes": 100}):
        if group != "failures" or not node:  # it has a default for everything
            with pytest.raises(ConfigError, match=rf"{group}.* begin your {group} file with `defaults: \[{begin}\]`"):
                make.check(
                    {**config, group: {"inter": {}, "intra": {}, "reduction": "ring"} if group == "cluster" else node}
                )
    config["cluster"]["compute"] = {"seconds": 0.1}
    with pytest.raises(ConfigError, match=r"cluster\.compute\._target_: is missing; begin your cluster file"):
        make.check(config)


def test_one_node_has_no_links_to_others():
    with pytest.raises(ConfigError, match=r"nodes=4: cluster=nvlink_node is one node .*; use nodes=1 .*cluster=10gbe"):
        configure(*TIMING, "cluster=nvlink_node")
    one = make.network(configure(*TIMING, "cluster=nvlink_node", "nodes=1", "algorithm.worker=gpu"))
    assert one.link(0, 7, 0.0) is one.intra
    joined = configure(*TIMING, "cluster=nvlink_node", "cluster.inter={latency_s: 1e-3, bandwidth: 1e9}")
    assert make.network(joined).link(0, 1, 0.0).bandwidth == 1e9


def test_whole_floats_are_whole_numbers():
    config = configure(*TIMING, "cost.message_bytes=100e6", "cost.bucket_bytes=1e6")
    assert make.vector_bytes(make.cost(config), None) == 100_000_000
    assert isinstance(make.cost(config).bucket_bytes, int)
    with pytest.raises(ConfigError, match=r"cost\.message_bytes=0\.5: must be a whole number"):
        configure(*TIMING, "cost.message_bytes=0.5")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("cluster.compute.seconds=0.1", r"cluster\.compute\.seconds=0\.1: has no effect .* set cost\.seconds_per_grad"),
        ("cluster.links=[{link: [0, 1]}]", r"cluster\.links\[0, 1\]: is as all links are"),
        ("cluster.links=[{link: [0, 1], bandwidth: 1.25e9, loss: 0}]", r"cluster\.links\[0, 1\]: is as all links are"),
        ("cluster.links=[{link: [0, 1], loss: 0.1, both_ways: 1}]", r"both_ways=1: must be true or false"),
        ("cluster.links=[{link: [0, true], loss: 0.1}]", r"must name two nodes of 0 to 3"),
        ("cluster.core_bandwidth=40", r"cluster\.core_bandwidth=40: must be 1e5 or more, in bytes per second"),
    ],
)
def test_settings_without_effect_and_slips(typed, words):
    with pytest.raises(ConfigError, match=words):
        configure(*TIMING, typed)


def test_settings_that_look_without_effect_and_are_not():
    configure("launcher=simulated", *SMALL, "cluster.compute.seconds=0.1")
    configure(*TIMING, "cluster.compute.seconds=0.005")  # its default
    reducing = "cluster.reduction_link={latency_s: 0, bandwidth: 1e8}"
    configure(*TIMING, reducing, "cluster.links=[{link: [0, 1], bandwidth: 1.25e9}]")  # an all-reduce finds it better


def test_an_epoch_without_a_data_set():
    config = configure(*TIMING, "nodes=2", "batch_size=4", "problem.train_samples=130")
    assert make.iterations_per_epoch(config) == 2
    config["problem"]["train_samples"] = 63
    with pytest.raises(ConfigError, match=r"problem\.train_samples=63: one global batch of 64"):
        make.iterations_per_epoch(config)


def test_a_trace_counts_by_what_it_holds(tmp_path):
    def run(path, *seconds):
        rows = [{"worker": 0, "step": step + 1, "compute_s": each} for step, each in enumerate(seconds)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return identity(configure("launcher=simulated", f"cluster.compute.trace={path}"))

    first = run(tmp_path / "a.jsonl", 0.1, 0.2)
    assert run(tmp_path / "b.jsonl", 0.1, 0.2) == first
    assert run(tmp_path / "a.jsonl", 0.1, 0.3) != first


def test_a_trace_that_has_changed_since_is_refused(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"worker": 0, "step": 1, "compute_s": 0.1}\n')
    config = configure("launcher=simulated", f"cluster.compute.trace={trace}")
    trace.write_text('{"worker": 0, "step": 1, "compute_s": 0.2}\n')
    with pytest.raises(ConfigError, match="is not what it was"):
        make.seconds_of(config)
