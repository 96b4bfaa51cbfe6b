"""Verdicts, and the statistics behind them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.claims.evidence import Values

Verdict = Literal["holds", "does not hold", "undecided", "not run"]
CONFIDENCE = 0.95
ACROSS = "its interval lies on both sides of the limit"
BETWEEN = "its interval, or when a top-1 was reached, between two evaluations, lies on both sides"


@dataclass(frozen=True)
class Answer:
    """Of one part of a claim, under one assumption about what the clock stands for.

    Args:
        numbers: what came out.
        n: seeds of the side that has fewer.
        part: which part; "" where there is but one.
        assumption: which; "" where the answer rests on none.
        why: it is undecided, if it is.
        beside: it is no part of the verdict: nothing speaks for that assumption.
    """

    verdict: Verdict
    numbers: str
    n: int
    part: str = ""
    assumption: str = ""
    why: str = ACROSS
    beside: bool = False

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"why": self.why if self.verdict == "undecided" else ""}

    @property
    def about(self) -> str:
        """Part and assumption, in words."""
        return "; ".join(filter(None, ["beside the verdict" if self.beside else "", self.part, self.assumption]))


def positive(margins: Iterable[float]) -> Verdict:
    """Whether a margin, one by seed, is above 0 in the mean: by its confidence interval, Student's t."""
    found = [*margins]
    mean, error = statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found))
    half = _quantile(len(found) - 1) * error if error > 1e-12 * abs(mean) else 0.0
    return "holds" if mean - half > 0 else "does not hold" if mean + half <= 0 else "undecided"


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several conditions that must all hold."""
    found = {*verdicts}
    return next((each for each in ("does not hold", "undecided") if each in found), "holds")


def either(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several conditions of which one is enough."""
    found = {*verdicts}
    return next((each for each in ("holds", "undecided") if each in found), "does not hold")


def _quantile(freedom: float) -> float:
    """Of Student's t, for a two-sided interval."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def difference(a: Values, b: Values) -> tuple[float, float, float]:
    """mean(a) - mean(b), and its confidence interval by Welch's t.

    One side may have no spread (virtual times often have none): scipy's own test then complains of lost precision.
    """
    gap = a.mean - b.mean
    errors = [statistics.variance(side.of.values()) / len(side.of) for side in (a, b)]
    if sum(errors) < (1e-12 * max(abs(a.mean), abs(b.mean))) ** 2:
        return gap, gap, gap
    freedom = sum(errors) ** 2 / sum(error**2 / (len(side.of) - 1) for error, side in zip(errors, (a, b), strict=True))
    half = _quantile(freedom) * math.sqrt(sum(errors))
    return gap, gap - half, gap + half


def at_most(low: float, high: float, limit: float) -> Verdict:
    """Whether a value with that confidence interval is at most `limit`."""
    if high <= limit:
        return "holds"
    return "does not hold" if low > limit else "undecided"


def smaller(a: Values, b: Values) -> Verdict:
    """Whether the mean of a is below that of b; of times between two evaluations, in any case (`Values.after`).

    Where some run never got there in its epochs there is no mean: then all seeds of one side must have got there before
    any of the other did.
    """
    if not (a.finite and b.finite):
        if max(a.of.values()) < min(b.earliest.of.values()):
            return "holds"
        return "does not hold" if max(b.of.values()) < min(a.earliest.of.values()) else "undecided"
    if at_most(*difference(a, b.earliest)[1:], 0.0) == "holds":
        return "holds"
    return "does not hold" if at_most(*difference(a.earliest, b)[1:], 0.0) == "does not hold" else "undecided"


def listed(values: Mapping[str, Values], form: str, scale: float = 1.0, unit: str = "") -> str:
    """Values by name, in words: see `Values.told`."""
    return ", ".join(f"{name} {each.told(form, scale, unit)}" for name, each in values.items())


def longer(factors: Mapping[str, Values]) -> str:
    """Factors by which something takes longer, in words."""
    return listed(factors, ".2f", unit="times as long")


def faster(before: Values, after: Values) -> str:
    """How many times as fast it has become, in words; "never" where some run never got there."""
    return f"{before.mean / after.mean:.1f} times as fast" if before.finite and after.finite else "never"


def overall(answers: Sequence[Answer], combine: Callable[[Iterable[Verdict]], Verdict] = every) -> tuple[Verdict, str]:
    """One verdict for all answers, and the reason where there is none, or beside what it would be another.

    The parts are combined under each assumption by itself, with those that rest on none; then all assumptions must
    agree. One under which only some parts were checked cannot make a claim hold.

    Args:
        combine: `every`: all parts must hold; `either`: one is enough.
    """
    beside = [answer.assumption for answer in answers if answer.beside and answer.verdict == "holds"]
    answers = [answer for answer in answers if not answer.beside]
    assumptions = list(dict.fromkeys(answer.assumption for answer in answers if answer.assumption)) or [""]
    parts = {each: [answer.verdict for answer in answers if answer.assumption in ("", each)] for each in assumptions}
    most = max(map(len, parts.values()))
    by_assumption = {
        each: verdict
        for each, verdicts in parts.items()
        if (verdict := combine(verdicts)) != "holds" or len(verdicts) == most
    }
    found = {*by_assumption.values()}
    if len(found) == 1 and "undecided" not in found:
        would = f"it would hold with {', '.join(map(repr, beside))}, for which nothing speaks"
        return (verdict := found.pop()), would if beside and verdict != "holds" else ""
    said = [
        f"{verdict} with {', '.join(repr(each) for each in by_assumption if by_assumption[each] == verdict)}"
        for verdict in sorted(found)
    ]
    if len(found - {"undecided"}) > 1:
        return "undecided", f"it depends: {'; '.join(said)}"
    why = dict.fromkeys(answer.why for answer in answers if answer.verdict == "undecided")
    return "undecided", "; ".join([*why, *(said if len(found) > 1 else ())])
