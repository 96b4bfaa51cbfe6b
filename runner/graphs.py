"""The topology that a configuration asks for, checked against what the algorithm needs."""

from __future__ import annotations

from typing import Any

from algorithms.topology import Graph, Phases, Topology
from runner.build import ConfigError, build
from runner.config import Config


def make_topology(node: dict[str, Any], size: int) -> Topology:
    """One topology, or a periodic sequence of them, for `size` workers."""
    if "sequence" in node:
        parts = [make_topology(part, size) for part in node["sequence"]]
        slots = tuple(slot for part in parts for slot in part.slots)
        return Topology(name="sequence", slots=slots)
    topology = build(node, "topology", size)
    assert isinstance(topology, Topology)
    return topology


def make_graph(config: Config, algorithm: Any, size: int, iterations_per_epoch: int) -> Graph | None:
    """The graph of a run; None for a method that uses none.

    Raises:
        ConfigError: the topology does not exist for this many workers or does not mix as the method needs.
    """
    node, name, method = config["topology"], config["choices"]["topology"], config["choices"]["algorithm"]
    needs = algorithm.topology
    if node.get("_target_") is None and "phases" not in node and "sequence" not in node:
        if needs != "none":
            raise ConfigError(f"topology={name}: {method} needs one, e.g. topology=ring")
        return None
    if needs == "none":
        raise ConfigError(f"topology={name}: {method} uses no topology; leave it out")
    if "phases" in node:
        phases = [(p["epoch"] * iterations_per_epoch, make_topology(p["topology"], size)) for p in node["phases"]]
    else:
        phases = [(0, make_topology(node, size))]
    for _, topology in phases:
        if needs == "doubly_stochastic" and not topology.doubly_stochastic:
            raise ConfigError(
                f"topology={name}: {method} needs a doubly stochastic mixing matrix, {topology.name} with {size} "
                "workers is only column-stochastic; use topology=ring, complete or bipartite_exponential"
            )
    try:
        return phases[0][1] if len(phases) == 1 else Phases(tuple(phases))
    except ValueError as error:
        raise ConfigError(f"topology={name}: {error}") from error
