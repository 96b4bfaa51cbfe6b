"""The claims of Jin et al. 2016 (arXiv 1611.04581) at the virtual scale."""

from __future__ import annotations

from typing import Any

from runner.claims.answers import BETWEEN, Answer, decided, every, listed, longer, smaller
from runner.claims.assumptions import CLUSTERS, IDEAL
from runner.claims.evidence import Evidence, Values, by_seed

SEEDS = 3
FEW, SEVERAL, MANY = 8, 32, 128
TARGETS = (0.7, 0.75, 0.77, 0.8)
"""Top-1 to be reached: a verdict that depends on which is none."""
OVERLAPS = {"gradients reduced after the backward pass": False, "gradients reduced behind it": True}
"""Of allreduce. A system of 2016 did the first; the methods that send models have no such choice."""
ASYNCHRONOUS = ("easgd", "gossip_pull", "gossip_push")


def _timed(evidence: Evidence, name: str, cluster: dict[str, Any], **conditions: Any) -> Values:
    """Seconds per iteration of runs for the time only; methods that send models have no gradients to reduce."""
    wanted = IDEAL | cluster
    if name != "allreduce":
        del wanted["cost__overlap_backward"]
    return evidence.measured("iteration_time_s", algorithm=name, problem="none", seeds=SEEDS, **wanted, **conditions)


def server(evidence: Evidence) -> list[Answer]:
    """From 8 to 128 nodes an iteration becomes longer by a larger factor with a server than without one."""
    answers = []
    for assumption, cluster in CLUSTERS.items():
        factors = {
            name: _timed(evidence, name, cluster, nodes=MANY) / _timed(evidence, name, cluster, nodes=FEW)
            for name in ("easgd", "async_sgd", "gossip_pull", "allreduce")
        }
        seen = by_seed(*factors.values()).values()
        more = [min(easgd, async_sgd) > max(gossip, allreduce) for easgd, async_sgd, gossip, allreduce in seen]
        answers.append(Answer(decided(*more), longer(factors), len(more), assumption))
    return answers


def failures(evidence: Evidence) -> list[Answer]:
    """An iteration, in the mean over workers, becomes longer by a larger factor for allreduce than for both gossips.

    Not the time to the last worker's end: where each has its own mini-batches, the slow one ends last in any case.
    """
    well: dict[str, Any] = {"cluster__compute__slow": None, "cluster__compute__sleep_ranks": [], "failures__plan": []}
    ill: dict[str, dict[str, Any]] = {
        "1 worker of 16 always 4 times slower": {"cluster__compute__slow": {3: 4.0}},
        "1 worker of 16 sleeps 0 to 0.3 s after each gradient": {"cluster__compute__sleep_ranks": [3]},
        "1 worker of 16 away for 30 s": {"failures__plan": [{"worker": 3, "dies_at_s": 10, "returns_at_s": 40}]},
    }
    own: tuple[str, dict[str, Any], str] = ("each worker its own mini-batches", {}, "shard_with_replacement")
    shared = [
        (f"shared mini-batches; {assumption}", cluster, "global_batches") for assumption, cluster in CLUSTERS.items()
    ]
    answers = []
    for what, differs in ill.items():
        for where, cluster, sampling in [own, *shared]:
            common: dict[str, Any] = {"nodes": 16, "sampling": sampling}
            factors = {
                name: _timed(evidence, name, cluster, **common, **well | differs)
                / _timed(evidence, name, cluster, **common, **well)
                for name in ("allreduce", "gossip_pull", "gossip_push")
            }
            more = [allreduce > max(gossip) for allreduce, *gossip in by_seed(*factors.values()).values()]
            answers.append(Answer(decided(*more), longer(factors), len(more), f"{what}; {where}"))
    return answers


def _times(evidence: Evidence, nodes: int, target: float, overlap: bool) -> dict[str, Values]:
    common: dict[str, Any] = {"nodes": nodes, "problem": "supervised", "seeds": SEEDS}
    allreduce = evidence.reached(target, algorithm="allreduce", cost__overlap_backward=overlap, **common)
    return {"allreduce": allreduce} | {
        name: evidence.reached(target, algorithm=name, **common) for name in ASYNCHRONOUS
    }


def small(evidence: Evidence) -> list[Answer]:
    """At 8, 16 and 32 nodes each asynchronous method reaches 70, 75, 77 and 80 % top-1 in less time than allreduce.

    A time lies between two evaluations; of a run that never got there only its end is known.
    """
    answers = []
    for assumption, overlap in OVERLAPS.items():
        for target in TARGETS:
            by_nodes = {nodes: _times(evidence, nodes, target, overlap) for nodes in (FEW, 16, SEVERAL)}
            verdict = every(
                smaller(times[name], times["allreduce"]) for times in by_nodes.values() for name in ASYNCHRONOUS
            )
            numbers = "; ".join(f"{nodes} nodes: {listed(times, '.1f', unit='s')}" for nodes, times in by_nodes.items())
            answers.append(Answer(verdict, numbers, SEEDS, f"{100 * target:g} %, {assumption}", BETWEEN))
    return answers


def large(evidence: Evidence) -> list[Answer]:
    """At 128 nodes allreduce reaches 70, 75, 77 and 80 % top-1 in less time than each asynchronous method.

    A time lies between two evaluations; of a run that never got there only its end is known.
    """
    answers = []
    for assumption, overlap in OVERLAPS.items():
        for target in TARGETS:
            times = _times(evidence, MANY, target, overlap)
            verdict = every(smaller(times["allreduce"], times[name]) for name in ASYNCHRONOUS)
            numbers = listed(times, ".1f", unit="s")
            answers.append(Answer(verdict, numbers, SEEDS, f"{100 * target:g} %, {assumption}", BETWEEN))
    return answers
