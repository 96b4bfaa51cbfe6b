"""The claims of Jin et al. 2016 (arXiv 1611.04581) at the virtual scale."""

from __future__ import annotations

from functools import partial
from typing import Any

from runner.claims.answers import Answer, decided, every, longer, smaller
from runner.claims.evidence import Evidence, Values
from runner.report.curves import time_to

SEEDS = 3
FEW, SEVERAL, MANY = 8, 32, 128
TARGET = 0.77
"""The top-1 to be reached: few are there at the first look, after an epoch, and gossip ends above it at 32 nodes."""
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
    """Training becomes longer by a larger factor for allreduce than for both ways of gossip."""
    common: dict[str, Any] = {"problem": "none", "nodes": 16, "sampling": "global_batches", "seeds": SEEDS}
    well: dict[str, Any] = {"cluster__compute__slow": None, "failures__plan": []}
    away = {"worker": 3, "dies_at_s": 10, "returns_at_s": 40}
    ill: dict[str, dict[str, Any]] = {
        "1 worker of 16 always 4 times slower, gossip shares the mini-batches": {"cluster__compute__slow": {3: 4.0}},
        "1 worker of 16 away for 30 s, gossip shares the mini-batches": {"failures__plan": [away]},
    }
    answers = []
    for what, differs in ill.items():
        factors = {}
        for name in ("allreduce", "gossip_pull", "gossip_push"):
            with_it, without = (
                evidence.measured("training_time_s", algorithm=name, **common, **conditions)
                for conditions in (differs, well)
            )
            factors[name] = with_it / without
        slowest, *gossip = factors.values()
        more = [slowest.of[seed] > max(factor.of[seed] for factor in gossip) for seed in slowest.of]
        answers.append(Answer(decided(*more), longer(factors), SEEDS, what))
    return answers


def _time_to_target(evidence: Evidence, algorithm: str, nodes: int) -> Values:
    measure = partial(time_to, top1=TARGET)
    return evidence.measured(measure, algorithm=algorithm, nodes=nodes, problem="supervised", seeds=SEEDS)


def _told(times: dict[str, Values]) -> str:
    return ", ".join(f"{name} {values.told('.1f', unit='s')}" for name, values in times.items())


def small(evidence: Evidence) -> list[Answer]:
    """At 8 and at 32 nodes each asynchronous method reaches a top-1 of 77 % in less time than allreduce."""
    answers = []
    for name in ASYNCHRONOUS:
        verdicts, numbers = [], []
        for nodes in (FEW, SEVERAL):
            times = {each: _time_to_target(evidence, each, nodes) for each in (name, "allreduce")}
            verdicts.append(smaller(times[name], times["allreduce"]))
            numbers.append(f"{nodes} nodes: {_told(times)}")
        answers.append(Answer(every(verdicts), "; ".join(numbers), SEEDS, name))
    return answers


def large(evidence: Evidence) -> list[Answer]:
    """At 128 nodes allreduce reaches a top-1 of 77 % in less time than each asynchronous method."""
    answers = []
    for name in ASYNCHRONOUS:
        times = {each: _time_to_target(evidence, each, MANY) for each in ("allreduce", name)}
        answers.append(Answer(smaller(times["allreduce"], times[name]), _told(times), SEEDS, f"against {name}"))
    return answers
