"""The topology that a configuration asks for, checked against what the algorithm needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from algorithms.topologies import sequence
from algorithms.topology import Graph, Phases, Topology
from runner.build import ConfigError, build
from runner.config import Config

if TYPE_CHECKING:
    from algorithms.worker import Algorithm


def make_topology(node: dict[str, Any], size: int) -> Topology:
    """One topology for `size` workers, or a periodic sequence of several."""
    if not isinstance(node, dict):
        raise ConfigError(f"topology={node}: must name a topology by _target_; see conf/topology/sequence.yaml")
    if "sequence" in node:
        if not isinstance(node["sequence"], list):
            raise ConfigError(f"topology.sequence={node['sequence']}: must be a list of topologies")
        return sequence(size, [make_topology(part, size) for part in node["sequence"]])
    topology = build(node, "topology", size)
    assert isinstance(topology, Topology)
    return topology


def make_schedule(node: dict[str, Any], size: int, iterations_per_epoch: int) -> Topology | Phases:
    """What a `topology` node describes: one topology, a sequence, or phases that begin at given epochs.

    Raises:
        ConfigError: the topology does not exist for this many workers, or the phases do not follow each other.
    """
    try:
        if "phases" not in node:
            return make_topology(node, size)
        if not isinstance(node["phases"], list):
            raise ConfigError(f"topology.phases={node['phases']}: must be a list, as in topology=two_then_one_peer")
        for phase in node["phases"]:
            if set(phase) != {"epoch", "topology"}:
                raise ConfigError(f"topology.phases: {phase} must hold `epoch` and `topology`, and nothing else")
        return Phases(
            [
                (phase["epoch"] * iterations_per_epoch, make_topology(phase["topology"], size))
                for phase in node["phases"]
            ]
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def make_graph(config: Config, algorithm: Algorithm, size: int, iterations_per_epoch: int) -> Graph | None:
    """The graph of a run; None for a method that uses none.

    Raises:
        ConfigError: see `make_schedule`; or the topology does not mix as the method needs.
    """
    node, name, method = config["topology"], config["choices"]["topology"], config["choices"]["algorithm"]
    if node.get("_target_") is None and not {"phases", "sequence"} & set(node):
        if algorithm.topology != "none":
            raise ConfigError(f"topology={name}: {method} needs one, e.g. topology=ring")
        return None
    if algorithm.topology == "none":
        raise ConfigError(f"topology={name}: {method} uses no topology; leave it out")
    graph = make_schedule(node, size, iterations_per_epoch)
    if algorithm.topology == "doubly_stochastic" and not graph.doubly_stochastic:
        raise ConfigError(
            f"topology={name}: {method} needs a doubly stochastic mixing matrix, and with {size} workers this one is "
            "only column-stochastic; use topology=ring, complete or bipartite_exponential"
        )
    if algorithm.topology == "bipartite" and not _pairs_even_with_odd(graph):
        raise ConfigError(
            f"topology={name}: {method} needs pairs of an even and an odd rank at each step, and so an even number of "
            f"workers, here {size}; use nodes=2, 4, ... and topology=bipartite_exponential"
        )
    return graph


def _pairs_even_with_odd(graph: Topology | Phases) -> bool:
    topologies = [topology for _, topology in graph.phases] if isinstance(graph, Phases) else [graph]
    return all(
        len(peers) == 1 and all((i - j) % 2 == 1 and i in slot.outgoing[j] for j in peers)
        for topology in topologies
        for slot in topology.slots
        for i, peers in enumerate(slot.outgoing)
    )
