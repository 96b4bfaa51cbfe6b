"""The claims of Jin et al. 2016 (arXiv 1611.04581) at the virtual scale."""

from __future__ import annotations

from typing import Any

from runner.claims.answers import Answer, Verdict
from runner.claims.evidence import Evidence

FEW, MANY = 8, 128


def server(evidence: Evidence) -> list[Answer]:
    """From 8 to 128 nodes an iteration becomes longer by a larger factor with a server than without one."""
    factors = {}
    for name in ("easgd", "async_sgd", "gossip_pull", "allreduce"):
        few, many = (
            evidence.measured("iteration_time_s", algorithm=name, nodes=nodes, problem="none", cluster="10gbe").mean
            for nodes in (FEW, MANY)
        )
        factors[name] = many / few
    with_server = min(factors["easgd"], factors["async_sgd"])
    without = max(factors["gossip_pull"], factors["allreduce"])
    verdict: Verdict = "holds" if with_server > without else "does not hold"
    numbers = ", ".join(f"{name} {factor:.2f} times as long" for name, factor in factors.items())
    return [Answer(verdict, numbers, 1, "one server, on a node's own link")]


def failures(evidence: Evidence) -> list[Answer]:
    """Training becomes longer by a larger factor for allreduce than for both ways of gossip."""
    common: dict[str, Any] = {"problem": "none", "nodes": 16, "sampling": "global_batches"}
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
            times = [
                evidence.measured("training_time_s", algorithm=name, **common, **conditions).mean
                for conditions in (differs, well)
            ]
            factors[name] = times[0] / times[1]
        verdict: Verdict = "holds" if factors["allreduce"] > max(list(factors.values())[1:]) else "does not hold"
        numbers = ", ".join(f"{name} {factor:.2f} times as long" for name, factor in factors.items())
        answers.append(Answer(verdict, numbers, 1, what))
    return answers
