"""The claims of Cong, Bhardwaj, Feng 2017 (ICPP) at the virtual scale."""

from __future__ import annotations

import math
from typing import Any

from runner.claims.answers import BETWEEN, Answer, at_most, decided, difference, every, listed, smaller
from runner.claims.assumptions import IDEAL_CLUSTER, LINKS, NOISE
from runner.claims.evidence import Evidence, Measure, Values, by_seed
from runner.report.runs import Run

SEEDS = 3
LEARNERS = 16
METHODS = ("sasgd", "downpour", "eamsgd")
INTERVALS = (1, 50)
TRAINED: dict[str, Any] = {"problem": "supervised", "seeds": SEEDS}
TARGETS = (0.75, 0.8, 0.82)
"""Top-1 to be reached: a verdict that depends on which is none."""
PLAIN: dict[str, Any] = IDEAL_CLUSTER | {"cluster": "10gbe"}
ASSUMPTIONS: dict[str, dict[str, Any]] = {
    "10 Gbit/s Ethernet": {},
    **LINKS,
    **NOISE,
    "100 Gbit/s InfiniBand": {"cluster": "infiniband_100g"},
}


def _method(name: str, T: int) -> dict[str, Any]:
    keys = {"sasgd": ["T"], "downpour": ["n_push", "n_fetch"], "eamsgd": ["tau"]}[name]
    return {"algorithm": name} | {f"algorithm__{key}": T for key in keys}


def _timed(evidence: Evidence, metric: str | Measure, name: str, T: int, assumption: str) -> Values:
    timing: dict[str, Any] = {"problem": "none", "nodes": LEARNERS} | PLAIN | ASSUMPTIONS[assumption]
    seeds = SEEDS if assumption in NOISE else 1
    return evidence.measured(metric, seeds=seeds, **_method(name, T), **timing)


def amortise(evidence: Evidence) -> list[Answer]:
    """An iteration of 16 learners waits for communication at most 1.1 / 50 as long with T=50 as with T=1.

    Waiting for the slowest learner is part of it.
    """
    answers = []
    for assumption in ASSUMPTIONS:
        often, rarely = (_timed(evidence, _wait_s, "sasgd", T, assumption) for T in INTERVALS)
        ratios = (often / rarely).of.values()
        told = f"{often.told('.3f', 1000)} ms with T=1, {rarely.told('.4f', 1000)} ms with T=50"
        numbers = f"{told}: 1 / {sum(ratios) / len(ratios):.0f}"
        answers.append(Answer(decided(*(1.1 * ratio >= 50 for ratio in ratios)), numbers, len(ratios), assumption))
    return answers


def _wait_s(run: Run) -> float:
    """For communication, per iteration."""
    return float(run.values["wait_s"] / run.values["iterations"])


def better(evidence: Evidence) -> list[Answer]:
    """At 16 learners and equal intervals SASGD takes at least 1 % less time an iteration than either of the other two.

    And its top-1 is higher.
    """
    answers = []
    for T in INTERVALS:
        for assumption in ASSUMPTIONS:
            times = {name: _timed(evidence, "iteration_time_s", name, T, assumption) for name in METHODS}
            faster = [mine <= 0.99 * min(others) for mine, *others in by_seed(*times.values()).values()]
            numbers = listed(times, ".4f", 1000, "ms")
            answers.append(Answer(decided(*faster), numbers, len(faster), f"communication, T={T}, {assumption}"))
        top1 = {name: evidence.measured("top1", nodes=LEARNERS, **_method(name, T), **TRAINED) for name in METHODS}
        higher = [at_most(*difference(top1[name], top1["sasgd"]), 0.0) for name in ("downpour", "eamsgd")]
        seeds = min(len(each.of) for each in top1.values())
        answers.append(Answer(every(higher), listed(top1, ".2f", 100, "%"), seeds, f"convergence, T={T}"))
    return answers


def downpour(evidence: Evidence) -> list[Answer]:
    """16 learners of Downpour reach a top-1 of 75, 80 and 82 % less than 8 times as fast as SGD on one.

    A time lies between two evaluations; of a run that never got there only its end is known.
    """
    answers = []
    for T in INTERVALS:
        for target in TARGETS:
            alone = evidence.reached(target, nodes=1, algorithm="allreduce", **TRAINED)
            times = evidence.reached(target, nodes=LEARNERS, **_method("downpour", T), **TRAINED)
            eightfold = times.times(LEARNERS / 2)
            speedup = f": {alone.mean / times.mean:.1f} times as fast" if math.isfinite(times.mean) else ""
            numbers = f"SGD {alone.told('.1f', unit='s')}, Downpour {times.told('.1f', unit='s')}{speedup}"
            what = f"n_push = n_fetch = {T}, {100 * target:g} %"
            answers.append(Answer(smaller(alone, eightfold), numbers, min(len(alone.of), len(times.of)), what, BETWEEN))
    return answers
