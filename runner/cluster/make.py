"""The parts of a virtual cluster, from a resolved configuration; each refuses what it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import config as configs
from runner.build import ConfigError, build, nearest
from runner.cluster.compute import Compute, digest, make_clock, read_trace
from runner.cluster.cost import Cost
from runner.cluster.failures import Failures
from runner.cluster.links import LEAST_BANDWIDTH, TOO_SLOW, Link, Network, is_number, make_link
from runner.config import Config
from runner.identity import ledger

NEEDED = ("inter", "intra", "reduction", "compute")
KEYS = {*NEEDED, "gpus_per_node", "links", "core_bandwidth", "reduction_link"}
BEGIN = "begin your cluster file with `defaults: [10gbe]`"


def cost(config: Config) -> Cost:
    """What the modelled work costs."""
    node = _whole_group(config, "cost", "_target_", "of", "message_bytes", "seconds_per_gradient")
    # 1e8 is a whole number of bytes, though YAML reads it as a float
    whole = {k: int(v) for k, v in node.items() if k.endswith("_bytes") and isinstance(v, float) and v.is_integer()}
    made: Cost = build({**node, **whole}, "cost")
    return made


def _whole_group(config: Config, group: str, *needed: str) -> dict[str, Any]:
    """The node of a group whose file may be the user's own."""
    node: dict[str, Any] = config[group]
    for key in needed:
        if key not in node:
            raise ConfigError(f"{group}.{key}: is missing; begin your {group} file with `defaults: [none]`")
    return node


def vector_bytes(cost: Cost, own: int | None) -> int:
    """Bytes of a vector (d,) in a message.

    Args:
        own: of the problem's own; None where there is no problem.
    """
    nbytes = cost.message_bytes if cost.message_bytes is not None else own
    if nbytes is None:
        raise ConfigError("cost=none: problem=none has no messages of its own; choose a cost, e.g. cost=resnet50_v100")
    return nbytes


def workers_per_node(config: Config) -> int:
    return int(config["gpus_per_node"]) // configs.gpus_per_worker(config)


def server_nodes(config: Config) -> list[int]:
    """The node of each server: node 0, or nodes of their own after the others."""
    beside = config["server"]["placement"] == "beside_0"
    return [0 if beside else config["nodes"] + shard for shard in range(configs.servers(config))]


def network(config: Config) -> Network:
    """The links, with what the plan of failures does to them."""
    node, nodes = config["cluster"], config["nodes"]
    unknown = sorted(set(node) - KEYS)
    if unknown:
        raise ConfigError(f"cluster.{unknown[0]}: a cluster has no such setting; {nearest(unknown[0], KEYS)}")
    missing = [key for key in NEEDED if key not in node]
    if missing:
        raise ConfigError(f"cluster.{missing[0]}: is missing; {BEGIN}")
    core = node.get("core_bandwidth")
    if core is not None and not (is_number(core) and core > 0):
        raise ConfigError(f"cluster.core_bandwidth={core}: must be positive, in bytes per second, or null for no limit")
    if core is not None and core < LEAST_BANDWIDTH:
        raise ConfigError(f"cluster.core_bandwidth={core}: {TOO_SLOW}")
    if node["reduction"] not in ("ring", "tree"):
        raise ConfigError(f"cluster.reduction={node['reduction']}: must be one of ring, tree")
    intra = make_link(node["intra"], "cluster.intra")
    inter = intra if _is_one_node(config) else make_link(node["inter"], "cluster.inter")
    reduction_link = None
    if node.get("reduction_link") is not None:
        reduction_link = make_link(node["reduction_link"], "cluster.reduction_link")
    return Network(
        nodes,
        workers_per_node(config),
        configs.gpus_per_worker(config),
        inter,
        intra,
        _overrides(node.get("links") or [], nodes, inter, reduction_link or inter),
        core,
        node["reduction"],
        failures(config).link_changes(nodes),
        reduction_link,
        server_nodes(config),
    )


def _is_one_node(config: Config) -> bool:
    """Whether the cluster has no links between nodes."""
    if config["cluster"]["inter"] is None and any([config["nodes"] > 1, *server_nodes(config)]):
        raise ConfigError(
            f"nodes={config['nodes']}: cluster={config['choices'].get('cluster')} is one node (cluster.inter=null); "
            "use nodes=1 (a server beside_0), a cluster of nodes such as cluster=10gbe, or say what is between them, "
            "e.g. 'cluster.inter={latency_s: 5e-5, bandwidth: 1.25e9}'"
        )
    return config["cluster"]["inter"] is None


def _overrides(entries: Any, nodes: int, inter: Link, reducing: Link) -> dict[tuple[int, int], Link]:
    """Links that differ: [{link: [2, 5], both_ways: true, bandwidth: 1.0e8}, ...]."""
    if not isinstance(entries, list):
        raise ConfigError(f"cluster.links={entries}: must be a list, e.g. [{{link: [2, 5], bandwidth: 1.0e8}}]")
    found: dict[tuple[int, int], Link] = {}
    for entry in entries:
        ends = entry.get("link") if isinstance(entry, dict) else None
        if not (
            isinstance(ends, list)
            and len(ends) == 2
            and ends[0] != ends[1]
            and all(type(e) is int and 0 <= e < nodes for e in ends)
        ):
            raise ConfigError(
                f"cluster.links: {entry} must name two nodes of 0 to {nodes - 1}, e.g. {{link: [0, 1], bandwidth: 1e8}}"
            )
        changed = {key: value for key, value in entry.items() if key not in ("link", "both_ways")}
        key, both_ways = f"cluster.links[{ends[0]}, {ends[1]}]", entry.get("both_ways", False)
        link = make_link(changed, key, base=inter)
        if all(replace(link, key=usual.key) == usual for usual in (inter, reducing)):
            raise ConfigError(f"{key}: is as all links are, cluster.inter; say what differs, or leave it out")
        if not isinstance(both_ways, bool):
            raise ConfigError(f"{key}.both_ways={both_ways}: must be true or false")
        for a, b in [ends, ends[::-1]] if both_ways else [ends]:
            found[a, b] = link
    return found


def compute(config: Config) -> Compute:
    """How the GPUs compute; a cost group's seconds per gradient take the place of the cluster's."""
    node = config["cluster"]["compute"]
    if not isinstance(node, dict):
        raise ConfigError(f"cluster.compute={node}: must hold the settings of runner.cluster.compute.Compute")
    if "_target_" not in node:
        raise ConfigError(f"cluster.compute._target_: is missing; {BEGIN}")
    seconds = cost(config).seconds_per_gradient
    if seconds is not None:
        node = {**node, "seconds": seconds}
    made: Compute = build(node, "cluster.compute")
    made.check_ranks(configs.ranks(config))
    return made


def seconds_of(config: Config) -> Callable[[int, int], float]:
    """(worker, draw) -> seconds of its gradient."""
    return make_clock(compute(config), config["seed"], configs.workers(config), configs.gpus_per_worker(config))


def failures(config: Config) -> Failures:
    made: Failures = build(_whole_group(config, "failures", "_target_"), "failures")
    return made


def iterations_per_epoch(config: Config) -> int:
    """Of a run without a data set, whose size problem=none states.

    Raises:
        ConfigError: a global batch is larger than that.
    """
    samples, batch = config["problem"]["train_samples"], configs.global_batch_size(config)
    if batch > samples:
        raise ConfigError(
            f"problem.train_samples={samples}: one global batch of {batch} samples is more; use a smaller batch_size "
            "or fewer nodes"
        )
    return int(samples // batch)


def check(config: Config) -> None:
    """Make every part once, and note what a trace holds.

    Raises:
        ConfigError: one of them cannot be.
    """
    network(config)
    node = config["cluster"]["compute"]
    if isinstance(node, dict) and isinstance(node.get("trace"), str):
        node["trace_sha256"] = digest(read_trace(node["trace"]))
        node["trace"] = str(Path(node["trace"]).expanduser().resolve())  # found from wherever the run is started
    seconds_of(config)(0, 0)
    _check_seconds(config)
    vector_bytes(cost(config), None if configs.timing_only(config) else 1)
    if configs.servers(config) and config["server"]["placement"] == "beside_0":
        for entry in config["failures"]["plan"]:
            if isinstance(entry, dict) and entry.get("node") == 0 and "dies_at_s" in entry:
                raise ConfigError(
                    f"failures.plan: {entry} takes the parameter server with it, which runs beside node 0, and no "
                    "method goes on without it; name the workers ({worker: 0, ...}), or add server.placement=own"
                )
    failures(config).happenings(configs.workers(config), workers_per_node(config))


def _check_seconds(config: Config) -> None:
    """Refuse two times for one gradient; that of a cluster file of the user's own gives way in silence."""
    typed, of_cost = config["cluster"]["compute"].get("seconds"), cost(config).seconds_per_gradient
    default = ledger().get(f"cluster/{config['choices'].get('cluster')}", {}).get("compute.seconds")
    if of_cost is not None and default is not None and typed not in (None, default):
        raise ConfigError(
            f"cluster.compute.seconds={typed}: has no effect beside cost.seconds_per_gradient={of_cost}; leave it out, "
            "or set cost.seconds_per_gradient"
        )
