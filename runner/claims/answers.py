"""Verdicts, and the statistics behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.claims.evidence import Values

Verdict = Literal["holds", "does not hold", "undecided", "not run"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Answer:
    """Of one claim, under one assumption about what the clock stands for.

    Args:
        numbers: what came out.
        n: seeds of each side; 1 where the model has no noise.
        assumption: "" where no time is involved.
    """

    verdict: Verdict
    numbers: str
    n: int
    assumption: str = ""


def difference(a: Values, b: Values) -> tuple[float, float, float]:
    """mean(a) - mean(b), and its 95 % confidence interval by Welch's t."""
    from scipy import stats

    test = stats.ttest_ind(list(a.of.values()), list(b.of.values()), equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return a.mean - b.mean, float(interval.low), float(interval.high)


def at_most(value: float, low: float, high: float, limit: float) -> Verdict:
    """Whether a value with that confidence interval is at most `limit`."""
    if high <= limit:
        return "holds"
    return "does not hold" if low > limit else "undecided"


def overall(answers: list[Answer]) -> tuple[Verdict, str]:
    """One verdict for all assumptions, and the reason where there is none."""
    verdicts = {answer.verdict for answer in answers}
    if len(verdicts) == 1:
        [verdict] = verdicts
        return (
            verdict,
            "the 95 % interval reaches across the limit; more seeds narrow it" if verdict == "undecided" else "",
        )
    said = {verdict: [a.assumption for a in answers if a.verdict == verdict] for verdict in sorted(verdicts)}
    return "undecided", "it depends: " + "; ".join(
        f"{verdict} with {', '.join(names)}" for verdict, names in said.items()
    )
