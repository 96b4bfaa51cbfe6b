"""The claims of Zhou & Cong 2019 (arXiv 1903.05133) at the virtual scale."""

from __future__ import annotations

from typing import Any

from runner.claims.answers import CONFIDENCE, LOOKED_TWICE, Answer, at_most, decided, difference, every, listed, smaller
from runner.claims.assumptions import IDEAL_CLUSTER, LINKS, NOISE
from runner.claims.evidence import Evidence, Values
from runner.report.curves import mean_top1

SEEDS = 3
TARGETS = (0.75, 0.8, 0.82)
"""Top-1 to be reached."""
TIMED: dict[str, dict[str, Any]] = {"ideal links": {}, **LINKS, **NOISE}
TRAINED: dict[str, Any] = {"problem": "supervised", "epochs": 12, "evaluation__every": 1, "seeds": SEEDS}


def _hier_avg(K1: int, K2: int, S: int) -> dict[str, Any]:
    return {"algorithm": "hier_avg", "algorithm__K1": K1, "algorithm__K2": K2, "algorithm__S": S}


K_AVG: dict[str, Any] = {"algorithm": "k_avg", "algorithm__period": 16}


def _less_error(
    better: Values, worse: Values, names: tuple[str, str], what: str, confidence: float = CONFIDENCE
) -> Answer:
    """Whether top-1, or its mean over epochs, is higher on one side."""
    gap, low, high = (100 * value for value in difference(worse, better, confidence))
    told = listed(dict(zip(names, (better, worse), strict=True)), ".2f", 100, "%")
    numbers = f"{told} ({100 * confidence:g} %: {-high:.2f} to {-low:.2f} points)"
    return Answer(at_most(gap, low, high, 0.0), numbers, min(len(better.of), len(worse.of)), what)


def k2(evidence: Evidence) -> list[Answer]:
    """K2=32 instead of 8 (K1=4, S=4): a higher mean of top-1 over the epochs, or 75, 80 and 82 % all in less time.

    A time lies between two evaluations; of a run that never got there only its end is known.
    """
    trained = TRAINED | {"evaluation__every": 0.1}
    curves = {K2: evidence.measured(mean_top1, **_hier_avg(4, K2, 4), **trained) for K2 in (8, 32)}
    verdicts, numbers = [], []
    for target in TARGETS:
        often, rarely = (evidence.reached(target, **_hier_avg(4, K2, 4), **trained) for K2 in (8, 32))
        verdicts.append(smaller(rarely, often))
        numbers.append(f"{100 * target:g} %: {listed({'K2=8': often, 'K2=32': rarely}, '.1f', unit='s')}")
    return [
        _less_error(curves[32], curves[8], ("K2=32", "K2=8"), "training counted in epochs"),
        Answer(every(verdicts), "; ".join(numbers), SEEDS, "training counted in time, on 10 Gbit/s Ethernet"),
    ]


def k1_and_s(evidence: Evidence) -> list[Answer]:
    """With K2=32 the mean of top-1 over the epochs is higher for K1=4 than 16 (S=4), and for S=8 than 2 (K1=4)."""
    by_k1 = {K1: evidence.measured(mean_top1, **_hier_avg(K1, 32, 4), **TRAINED) for K1 in (4, 16)}
    by_s = {S: evidence.measured(mean_top1, **_hier_avg(4, 32, S), **TRAINED) for S in (2, 8)}
    return [
        _less_error(by_k1[4], by_k1[16], ("K1=4", "K1=16"), "more frequent local averages"),
        _less_error(by_s[8], by_s[2], ("S=8", "S=2"), "larger groups"),
    ]


def against_k_avg(evidence: Evidence) -> list[Answer]:
    """Hier-AVG (K1=4, K2=32, S=4) takes at most 5 % longer an iteration than K-AVG (K=16), and its top-1 is higher.

    An interval of 97.5 %: three of the eight seeds had been looked at before. Neither method has gradients to reduce.
    """
    methods = (_hier_avg(4, 32, 4), K_AVG)
    mine, its = (evidence.measured("top1", **method, **TRAINED) for method in methods)
    accuracy = _less_error(mine, its, ("Hier-AVG", "K-AVG"), "", LOOKED_TWICE)
    answers = []
    for assumption, cluster in TIMED.items():
        wanted = {"problem": "none"} | IDEAL_CLUSTER | cluster
        seconds = [1000 * evidence.measured("iteration_time_s", **method, **wanted).mean for method in methods]
        comparable = decided(seconds[0] <= 1.05 * seconds[1])
        numbers = f"{seconds[0]:.0f} ms against {seconds[1]:.0f} ms an iteration; top-1 {accuracy.numbers}"
        answers.append(Answer(every([comparable, accuracy.verdict]), numbers, accuracy.n, assumption))
    return answers


def special_cases(evidence: Evidence) -> list[Answer]:
    """Loss after 2 epochs is that of K-AVG(16) with S=1, with K1=K2=16 and with S=P, K1=16; allreduce's with K1=K2=1.

    Within 1 %: sums in another order differ in their last bits, which training amplifies; seeds differ by 10 %.
    """
    short = TRAINED | {"epochs": 2}
    targets = {
        "K-AVG": evidence.measured("loss_mean_model", **K_AVG, **short),
        "synchronous SGD": evidence.measured("loss_mean_model", algorithm="allreduce", **short),
    }
    answers = []
    for (K1, K2, S), name in {
        (4, 16, 1): "K-AVG",
        (16, 16, 4): "K-AVG",
        (16, 64, 32): "K-AVG",
        (1, 1, 4): "synchronous SGD",
    }.items():
        mine = evidence.measured("loss_mean_model", **_hier_avg(K1, K2, S), **short)
        apart = max(abs(mine.of[seed] / targets[name].of[seed] - 1) for seed in mine.of)
        numbers = f"losses of {len(mine.of)} seeds differ by at most {100 * apart:.2g} %"
        answers.append(Answer(decided(apart <= 0.01), numbers, SEEDS, f"K1={K1}, K2={K2}, S={S} as {name}"))
    return answers
