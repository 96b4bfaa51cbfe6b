"""All claims: what the paper says, what is checked, and with which study's runs."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import studies
from runner.claims import gossip, sgp
from runner.claims.answers import Answer, overall
from runner.claims.evidence import Evidence, MissingRunsError
from runner.config import conf_dir
from runner.report.runs import shorten

PUBLISHED = (conf_dir().with_name("published"), conf_dir().parent / "results/published")
"""Where the published values are, of an installed package and of a checkout."""


@dataclass(frozen=True)
class Check:
    """How a claim is held against runs.

    Args:
        study: whose runs answer it.
        answers: its docstring is the expression.
    """

    study: str
    answers: Callable[[Evidence], list[Answer]]


SCALE = "virtual"
"""At which claims are checked so far."""
CHECKS = {
    "sgp-speed": Check("sgp/scaling", sgp.speed),
    "sgp-scaling": Check("sgp/scaling", sgp.scaling),
    "sgp-latency": Check("sgp/slow_nodes", sgp.latency),
    "sgp-accuracy": Check("sgp/accuracy", sgp.accuracy),
    "sgp-small": Check("sgp/accuracy", sgp.small),
    "jin-failures": Check("gossip/failures", gossip.failures),
    "jin-server": Check("gossip/contention", gossip.server),
}


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    id: str
    claim: str
    source: str
    expression: str
    verdict: str
    reason: str
    answers: list[Answer]
    n: int
    clock: str
    scale: str
    command: str

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"answers": [vars(answer) for answer in self.answers]}


def published() -> list[dict[str, str]]:
    """The rows of claims.csv: id, paper, claim, mark, source."""
    folder = next(path for path in PUBLISHED if path.is_dir())
    with (folder / "claims.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def papers() -> list[str]:
    """That have claims."""
    return list(dict.fromkeys(row["paper"] for row in published()))


def judge(results_dirs: Sequence[Path], scale: str, paper: str | None = None) -> list[Judged]:
    """Every published claim, or those of one paper, with what the finished runs say of it."""
    return [_judge(row, results_dirs, scale) for row in published() if paper in (None, row["paper"])]


def _judge(row: dict[str, str], results_dirs: Sequence[Path], scale: str) -> Judged:
    check = CHECKS.get(row["id"])
    told = {"id": row["id"], "claim": row["claim"], "source": f"{row['source']} ({row['mark']})", "scale": scale}
    if check is None:
        return Judged(
            **told, expression="", verdict="not run", reason="no check yet", answers=[], n=0, clock="", command=""
        )
    if scale != SCALE:
        reason = f"is checked at scale={SCALE} only"
        return Judged(**told, expression="", verdict="not run", reason=reason, answers=[], n=0, clock="", command="")
    study = studies.load(check.study)
    place = results_dirs[0]
    elsewhere = "" if place == Path("results") else f" results_dir={shlex.quote(str(place))}"
    evidence = Evidence.of(study.preset(scale), results_dirs)
    reason = ""
    try:
        answers = check.answers(evidence)
        verdict, reason = overall(answers)
    except MissingRunsError as error:
        answers, verdict, reason = [], "not run", f"there are {error}"
    except ValueError as error:
        answers, verdict, reason = [], "undecided", str(error)
    return Judged(
        **told,
        expression=" ".join((check.answers.__doc__ or "").split()),
        verdict=verdict,
        reason=reason,
        answers=answers,
        n=max((answer.n for answer in answers), default=0),
        clock=shorten(sorted({str(run.values.get("clock")) for run in evidence.used})),
        command=f"run-experiment experiment={check.study} scale={scale}{elsewhere}",
    )
