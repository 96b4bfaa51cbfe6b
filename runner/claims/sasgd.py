"""The claims of Cong, Bhardwaj, Feng 2017 (ICPP) at the virtual scale."""

from __future__ import annotations

import math
from typing import Any

from runner.claims.answers import Answer, at_most, decided, difference, every, listed, smaller
from runner.claims.assumptions import LINKS
from runner.claims.evidence import Evidence, Measure, Values
from runner.report.runs import Run

SEEDS = 3
LEARNERS = 16
METHODS = ("sasgd", "downpour", "eamsgd")
INTERVALS = (1, 50)
TRAINED: dict[str, Any] = {"problem": "supervised", "seeds": SEEDS}
TARGETS = (0.75, 0.8, 0.82)
"""Top-1 to be reached: a verdict that depends on which is none."""
ASSUMPTIONS: dict[str, dict[str, Any]] = {
    "10 Gbit/s Ethernet": {"cluster": "10gbe", "cluster__inter__efficiency": 1.0},
    **LINKS,
    "100 Gbit/s InfiniBand": {"cluster": "infiniband_100g"},
}


def _method(name: str, T: int) -> dict[str, Any]:
    keys = {"sasgd": ["T"], "downpour": ["n_push", "n_fetch"], "eamsgd": ["tau"]}[name]
    return {"algorithm": name} | {f"algorithm__{key}": T for key in keys}


def _timed(evidence: Evidence, metric: str | Measure, name: str, T: int, **links: Any) -> Values:
    timing: dict[str, Any] = {"problem": "none", "nodes": LEARNERS, **links}
    return evidence.measured(metric, **_method(name, T), **timing)


def amortise(evidence: Evidence) -> list[Answer]:
    """An iteration of 16 learners waits for communication at most 1.1 / 50 as long with T=50 as with T=1."""
    answers = []
    for assumption, links in ASSUMPTIONS.items():
        waits = {T: 1000 * _timed(evidence, _wait_s, "sasgd", T, **links).mean for T in INTERVALS}
        numbers = f"{waits[1]:.3f} ms with T=1, {waits[50]:.4f} ms with T=50: 1 / {waits[1] / waits[50]:.0f}"
        answers.append(Answer(decided(50 * waits[50] <= 1.1 * waits[1]), numbers, 1, assumption))
    return answers


def _wait_s(run: Run) -> float:
    """For communication, per iteration."""
    return float(run.values["wait_s"] / run.values["iterations"])


def better(evidence: Evidence) -> list[Answer]:
    """At 16 learners and equal intervals SASGD takes less time an iteration than the other two; its top-1 is higher."""
    answers = []
    for T in INTERVALS:
        for assumption, links in ASSUMPTIONS.items():
            times = {name: _timed(evidence, "iteration_time_s", name, T, **links) for name in METHODS}
            fastest = times["sasgd"].mean < min(times["downpour"].mean, times["eamsgd"].mean)
            numbers = listed(times, ".4f", 1000, "ms")
            answers.append(Answer(decided(fastest), numbers, 1, f"communication, T={T}, {assumption}"))
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
            answers.append(Answer(smaller(alone, eightfold), numbers, min(len(alone.of), len(times.of)), what))
    return answers
