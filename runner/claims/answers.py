"""Verdicts, and the statistics behind them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from runner.claims.evidence import Values

Verdict = Literal["holds", "does not hold", "undecided", "not run"]
CONFIDENCE = 0.95
LOOKED_TWICE = 0.975
"""Where more seeds came after fewer had been looked at: by Bonferroni, both looks together have 0.95."""
ACROSS = "its interval, or its seeds, lie on both sides of the limit"
BETWEEN = "when a top-1 was reached is not known well: between two evaluations, after the end, or differently by seed"
Combine = Literal["assumptions", "all", "any"]


@dataclass(frozen=True)
class Answer:
    """Of one claim, under one assumption about what the clock stands for, or of a part of it.

    Args:
        numbers: what came out.
        n: seeds of each side; 1 where the model has no noise.
        assumption: that, or the part; "" where there is but one.
        why: it is undecided, if it is.
    """

    verdict: Verdict
    numbers: str
    n: int
    assumption: str = ""
    why: str = ACROSS


def decided(*holds: bool) -> Verdict:
    """Of numbers with little noise or none: whether every seed says so, or none does."""
    return "holds" if all(holds) else "undecided" if any(holds) else "does not hold"


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several conditions that must all hold."""
    found = {*verdicts}
    return next((each for each in ("does not hold", "undecided") if each in found), "holds")


def difference(a: Values, b: Values, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """mean(a) - mean(b), and its confidence interval by Welch's t; infinite where one side's values are.

    One side may have no spread (virtual times often have none): scipy's own test then complains of lost precision.
    """
    gap = a.mean - b.mean
    if not math.isfinite(gap):
        return (math.nan, -math.inf, math.inf) if math.isnan(gap) else (gap, gap, gap)
    errors = [statistics.variance(side.of.values()) / len(side.of) for side in (a, b)]
    if sum(errors) < (1e-12 * max(abs(a.mean), abs(b.mean))) ** 2:
        return gap, gap, gap
    from scipy import stats

    freedom = sum(errors) ** 2 / sum(error**2 / (len(side.of) - 1) for error, side in zip(errors, (a, b), strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(errors))
    return gap, gap - half, gap + half


def at_most(value: float, low: float, high: float, limit: float) -> Verdict:
    """Whether a value with that confidence interval is at most `limit`."""
    if high <= limit:
        return "holds"
    return "does not hold" if low > limit else "undecided"


def smaller(a: Values, b: Values) -> Verdict:
    """Whether the mean of a is below that of b; of times between two evaluations, in any case (`Values.after`).

    A run that never got there may have done so right after its end.
    """
    if a.finite and at_most(*difference(a, b.earliest), 0.0) == "holds":
        return "holds"
    if b.finite and at_most(*difference(a.earliest, b), 0.0) == "does not hold":
        return "does not hold"
    return "undecided"


def listed(values: Mapping[str, Values], form: str, scale: float = 1.0, unit: str = "") -> str:
    """Values by name, in words: see `Values.told`."""
    return ", ".join(f"{name} {each.told(form, scale, unit)}" for name, each in values.items())


def longer(factors: Mapping[str, Values]) -> str:
    """Factors by which something takes longer, in words."""
    return listed(factors, ".2f", unit="times as long")


def overall(answers: list[Answer], combine: Combine = "assumptions") -> tuple[Verdict, str]:
    """One verdict for all answers, and the reason where there is none.

    Args:
        combine: "assumptions": all must agree; "all": the answers are conditions that must all hold; "any": or one.
    """
    verdicts = [answer.verdict for answer in answers]
    if combine == "all":
        verdict = every(verdicts)
    elif combine == "any":
        verdict = next((each for each in ("holds", "undecided") if each in verdicts), "does not hold")
    elif len({*verdicts} - {"undecided"}) <= 1:
        verdict = "undecided" if "undecided" in verdicts else verdicts[0]
    else:
        said = (
            f"{verdict} with {', '.join(repr(answer.assumption) for answer in answers if answer.verdict == verdict)}"
            for verdict in sorted({*verdicts})
        )
        return "undecided", f"it depends: {'; '.join(said)}"
    reasons = dict.fromkeys(answer.why for answer in answers if answer.verdict == "undecided")
    return verdict, "; ".join(reasons) if verdict == "undecided" else ""
