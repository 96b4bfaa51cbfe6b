"""The claims of Jin et al. 2016 (arXiv 1611.04581) at the virtual scale."""

from __future__ import annotations

from typing import Any

from runner.claims.answers import BETWEEN, Answer, every, faster, listed, longer, positive, smaller
from runner.claims.assumptions import AFTER, BEHIND, CLUSTERS, IDEAL, LINKS, STRAGGLER
from runner.claims.evidence import Evidence, Values, by_seed

FEW, SEVERAL, MANY = 8, 32, 128
TARGETS = (0.7, 0.75, 0.77, 0.8)
"""Top-1 to be reached: a verdict that depends on which is none."""
AWAY = "1 worker of 16 away for 30 s"
ASYNCHRONOUS = ("easgd", "gossip_pull", "gossip_push")
TRAINED_ON = {**AFTER, **BEHIND, **LINKS, **STRAGGLER}
"""Where runs that train are: each is a run of its own, for asynchronous methods take other steps on another cluster."""


def _method(name: str, cluster: dict[str, Any]) -> dict[str, Any]:
    """A method on a cluster; those that send models have no gradients to reduce behind the backward pass."""
    wanted = IDEAL | {"algorithm": name} | cluster
    if name != "allreduce":
        del wanted["cost__overlap_backward"]
    return wanted


def _timed(
    evidence: Evidence, name: str, cluster: dict[str, Any], metric: str = "iteration_time_s", **conditions: Any
) -> Values:
    """Seconds, of runs for the time only."""
    return evidence.measured(metric, problem="none", **_method(name, cluster) | conditions)


def server(evidence: Evidence) -> list[Answer]:
    """From 8 to 128 nodes an iteration becomes longer by a larger factor with a server than without one."""
    answers = []
    for assumption, cluster in CLUSTERS.items():
        factors = {
            name: _timed(evidence, name, cluster, nodes=MANY) / _timed(evidence, name, cluster, nodes=FEW)
            for name in ("easgd", "async_sgd", "gossip_pull", "allreduce")
        }
        seen = by_seed(*factors.values()).values()
        more = [min(easgd, async_sgd) - max(gossip, allreduce) for easgd, async_sgd, gossip, allreduce in seen]
        answers.append(Answer(positive(more), longer(factors), len(more), assumption=assumption))
    return answers


def failures(evidence: Evidence) -> list[Answer]:
    """An iteration, in the mean over workers, becomes longer by a larger factor for allreduce than for both gossips.

    Where each worker has its own mini-batches, so does training until the last worker has taken all its steps. A worker
    that was away is left out there: it skips the mini-batches of that time, so that what is lost holds nothing up.
    """
    well: dict[str, Any] = {"cluster__compute__slow": None, "cluster__compute__sleep_ranks": [], "failures__plan": []}
    ill: dict[str, dict[str, Any]] = {
        "1 worker of 16 always 4 times slower": {"cluster__compute__slow": {3: 4.0}},
        "1 worker of 16 sleeps 0 to 0.3 s after each gradient": {"cluster__compute__sleep_ranks": [3]},
        AWAY: {"failures__plan": [{"worker": 3, "dies_at_s": 10, "returns_at_s": 40}]},
    }
    [ideal] = AFTER
    iteration, training, own = "iteration_time_s", "training_time_s", "shard_with_replacement"
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        (f"each worker its own mini-batches, in the mean over workers, {ideal}", {}, own, iteration),
        (f"each worker its own mini-batches, until the last has taken all its steps, {ideal}", {}, own, training),
        *(
            (f"shared mini-batches, {assumption}", cluster, "global_batches", iteration)
            for assumption, cluster in CLUSTERS.items()
            if assumption not in STRAGGLER  # which is one of the ills
        ),
    ]
    answers = []
    for what, differs in ill.items():
        for where, cluster, sampling, metric in cases:
            if what == AWAY and sampling == own:
                continue
            common: dict[str, Any] = {"nodes": 16, "sampling": sampling}
            factors = {
                name: _timed(evidence, name, cluster, metric, **common, **well | differs)
                / _timed(evidence, name, cluster, metric, **common, **well)
                for name in ("allreduce", "gossip_pull", "gossip_push")
            }
            more = [allreduce - max(gossip) for allreduce, *gossip in by_seed(*factors.values()).values()]
            answers.append(Answer(positive(more), longer(factors), len(more), what, where))
    return answers


def _times(evidence: Evidence, nodes: int, target: float, cluster: dict[str, Any]) -> dict[str, Values]:
    return {
        name: evidence.reached(target, nodes=nodes, problem="supervised", **_method(name, cluster))
        for name in ("allreduce", *ASYNCHRONOUS)
    }


def small(evidence: Evidence) -> list[Answer]:
    """At 8, 16 and 32 nodes each asynchronous method reaches 70, 75, 77 and 80 % top-1 in less time than allreduce.

    Each has the rate with which it ends best; that the paper speaks of a large step size is left open. A time lies
    between two evaluations; a run that does not get there in its epochs is later than any that does.
    """
    answers = []
    for assumption, cluster in TRAINED_ON.items():
        for target in TARGETS:
            by_nodes = {nodes: _times(evidence, nodes, target, cluster) for nodes in (FEW, 16, SEVERAL)}
            for name in ASYNCHRONOUS:
                pairs = {
                    nodes: {each: times[each] for each in (name, "allreduce")} for nodes, times in by_nodes.items()
                }
                verdict = every(smaller(*pair.values()) for pair in pairs.values())
                numbers = "; ".join(f"{nodes} nodes: {listed(pair, '.1f', unit='s')}" for nodes, pair in pairs.items())
                n = min(_seeds(pair) for pair in pairs.values())
                answers.append(Answer(verdict, numbers, n, name, f"{100 * target:g} %, {assumption}", BETWEEN))
    return answers


def large(evidence: Evidence) -> list[Answer]:
    """At 128 nodes allreduce reaches 70, 75, 77 and 80 % top-1 in less time than each asynchronous method.

    What each gains from 8 nodes to 128 is said beside. A time lies between two evaluations; a run that does not get
    there in its epochs is later than any that does.
    """
    answers = []
    for assumption, cluster in TRAINED_ON.items():
        for target in TARGETS:
            times = _times(evidence, MANY, target, cluster)
            verdict = every(smaller(times["allreduce"], times[name]) for name in ASYNCHRONOUS)
            few = _times(evidence, FEW, target, cluster)
            gained = ", ".join(f"{name} {faster(few[name], each)}" for name, each in times.items())
            numbers = f"{listed(times, '.1f', unit='s')}; from {FEW} nodes: {gained}"
            answers.append(Answer(verdict, numbers, _seeds(times), "", f"{100 * target:g} %, {assumption}", BETWEEN))
    return answers


def _seeds(times: dict[str, Values]) -> int:
    return min(len(each.of) for each in times.values())
