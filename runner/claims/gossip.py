"""The claims of Jin et al. 2016 (arXiv 1611.04581) at the virtual scale."""

from __future__ import annotations

from typing import Any

from runner.claims.answers import Answer, decided, every, listed, longer, smaller
from runner.claims.evidence import Evidence, Values

SEEDS = 3
FEW, SEVERAL, MANY = 8, 32, 128
TARGETS = (0.7, 0.75, 0.77, 0.8)
"""Top-1 to be reached: a verdict that depends on which is none."""
ASSUMPTIONS = {"gradients reduced after the backward pass": False, "gradients reduced behind it": True}
"""Of allreduce. A system of 2016 did the first; the methods that send models have no such choice."""
ASYNCHRONOUS = ("easgd", "gossip_pull", "gossip_push")


def server(evidence: Evidence) -> list[Answer]:
    """From 8 to 128 nodes an iteration becomes longer by a larger factor with a server than without one."""
    factors = {}
    for name in ("easgd", "async_sgd", "gossip_pull", "allreduce"):
        few, many = (
            evidence.measured("iteration_time_s", algorithm=name, nodes=nodes, problem="none", seeds=SEEDS)
            for nodes in (FEW, MANY)
        )
        factors[name] = many / few
    longer_with_one = [
        min(factors[name].of[seed] for name in ("easgd", "async_sgd"))
        > max(factors[name].of[seed] for name in ("gossip_pull", "allreduce"))
        for seed in factors["easgd"].of
    ]
    return [Answer(decided(*longer_with_one), longer(factors), SEEDS, "one server, on a node's own link")]


def failures(evidence: Evidence) -> list[Answer]:
    """An iteration, in the mean over workers, becomes longer by a larger factor for allreduce than for both gossips.

    Not the time to the last worker's end: where each has its own mini-batches, the slow one ends last in any case.
    """
    away = {"worker": 3, "dies_at_s": 10, "returns_at_s": 40}
    well: dict[str, Any] = {"cluster__compute__slow": None, "failures__plan": []}
    ill: dict[str, dict[str, Any]] = {
        "1 worker of 16 always 4 times slower": {"cluster__compute__slow": {3: 4.0}, "failures__plan": []},
        "1 worker of 16 away for 30 s": {"cluster__compute__slow": None, "failures__plan": [away]},
    }
    mini_batches = {"shared mini-batches": "global_batches", "each worker its own": "shard_with_replacement"}
    answers = []
    for what, differs in ill.items():
        for whose, sampling in mini_batches.items():
            common: dict[str, Any] = {"problem": "none", "nodes": 16, "sampling": sampling, "seeds": SEEDS}
            factors = {
                name: evidence.measured("iteration_time_s", algorithm=name, **common, **differs)
                / evidence.measured("iteration_time_s", algorithm=name, **common, **well)
                for name in ("allreduce", "gossip_pull", "gossip_push")
            }
            slowest, *gossip = factors.values()
            more = [slowest.of[seed] > max(factor.of[seed] for factor in gossip) for seed in slowest.of]
            answers.append(Answer(decided(*more), longer(factors), SEEDS, f"{what}, {whose}"))
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
    for assumption, overlap in ASSUMPTIONS.items():
        for target in TARGETS:
            by_nodes = {nodes: _times(evidence, nodes, target, overlap) for nodes in (FEW, 16, SEVERAL)}
            verdict = every(
                smaller(times[name], times["allreduce"]) for times in by_nodes.values() for name in ASYNCHRONOUS
            )
            numbers = "; ".join(f"{nodes} nodes: {listed(times, '.1f', unit='s')}" for nodes, times in by_nodes.items())
            answers.append(Answer(verdict, numbers, SEEDS, f"{100 * target:g} %, {assumption}"))
    return answers


def large(evidence: Evidence) -> list[Answer]:
    """At 128 nodes allreduce reaches 70, 75, 77 and 80 % top-1 in less time than each asynchronous method.

    A time lies between two evaluations; of a run that never got there only its end is known.
    """
    answers = []
    for assumption, overlap in ASSUMPTIONS.items():
        for target in TARGETS:
            times = _times(evidence, MANY, target, overlap)
            verdict = every(smaller(times["allreduce"], times[name]) for name in ASYNCHRONOUS)
            numbers = listed(times, ".1f", unit="s")
            answers.append(Answer(verdict, numbers, SEEDS, f"{100 * target:g} %, {assumption}"))
    return answers
