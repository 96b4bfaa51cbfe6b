"""All claims: what the paper says, what is checked, and with which study's runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from runner import studies
from runner.claims import gossip, hier_avg, sasgd, sgp
from runner.claims.answers import Answer, Verdict, either, every, overall
from runner.claims.evidence import Evidence, MissingRunsError
from runner.report.published import rows
from runner.report.runs import Run, shorten
from runner.study_runs import runs_of


@dataclass(frozen=True)
class Check:
    """How a claim is held against runs.

    Args:
        studies: whose runs answer it, of one preset.
        answers: its docstring is the expression.
        combine: its parts: `every` must hold, or `either` is enough.
    """

    studies: str
    answers: Callable[[Evidence], list[Answer]]
    combine: Callable[[Iterable[Verdict]], Verdict] = every


SCALE = "virtual"
"""At which claims are checked so far."""
CHECKS = {
    "sgp-speed": Check("sgp/scaling sgp/assumptions sgp/slow_nodes", sgp.speed),
    "sgp-scaling": Check("sgp/scaling sgp/assumptions", sgp.scaling),
    "sgp-latency": Check("sgp/slow_nodes sgp/assumptions", sgp.latency),
    "sgp-accuracy": Check("sgp/accuracy", sgp.accuracy),
    "sgp-small": Check("sgp/accuracy", sgp.small),
    "jin-small": Check("gossip/error_against_time gossip/assumptions", gossip.small),
    "jin-large": Check("gossip/error_against_time gossip/assumptions", gossip.large),
    "jin-failures": Check("gossip/failures gossip/clusters", gossip.failures),
    "jin-server": Check("gossip/contention gossip/clusters", gossip.server),
    "hier-k2": Check("hier_avg/K2 hier_avg/time_per_iteration", hier_avg.k2, either),
    "hier-k1-s": Check("hier_avg/K1_and_S hier_avg/time_per_iteration", hier_avg.k1_and_s),
    "hier-kavg": Check("hier_avg/against_kavg hier_avg/time_per_iteration", hier_avg.against_k_avg),
    "hier-general": Check("hier_avg/special_cases", hier_avg.special_cases),
    "sasgd-amortise": Check("sasgd/epoch_time sasgd/assumptions", sasgd.amortise),
    "sasgd-better": Check("sasgd/accuracy sasgd/epoch_time sasgd/assumptions", sasgd.better),
    "sasgd-downpour": Check("sasgd/accuracy sasgd/downpour_speedup", sasgd.downpour),
}


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, the reason where that is none, and the command that makes the runs behind it.

    Args:
        n: seeds of the answer that has the fewest.
        task: what was trained, and whose time the clock tells.
        runs: how many were held against it, and where they are.
        problems: runs that could not be read, and were left out.
    """

    id: str
    claim: str
    source: str
    expression: str
    scale: str
    verdict: Verdict = "not run"
    reason: str = ""
    answers: list[Answer] = field(default_factory=list)
    n: int = 0
    clock: str = ""
    task: str = ""
    runs: str = ""
    command: str = ""
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"answers": [answer.as_json() for answer in self.answers]}


def published() -> list[dict[str, str]]:
    """The rows of claims.csv: id, paper, claim, mark, source."""
    return rows("claims")


def papers() -> list[str]:
    """That have claims."""
    return list(dict.fromkeys(row["paper"] for row in published()))


def judge(results_dirs: Sequence[Path], scale: str, of: str | None = None) -> list[Judged]:
    """Every published claim, or those of a paper, or the one of an id, with what the finished runs say of it."""
    return [_judge(row, results_dirs, scale) for row in published() if of in (None, row["paper"], row["id"])]


def _judge(row: dict[str, str], results_dirs: Sequence[Path], scale: str) -> Judged:
    check = CHECKS[row["id"]]
    judged = Judged(
        id=row["id"],
        claim=row["claim"],
        source=f"{row['source']} ({row['mark']})",
        expression=" ".join((check.answers.__doc__ or "").split()),
        scale=scale,
    )
    mine = [studies.load(name) for name in check.studies.split()]
    place = results_dirs[0]
    elsewhere = "" if place == Path("results") else f" results_dir={shlex.quote(str(place))}"
    command = " && ".join(f"run-experiment experiment={study.name} scale={SCALE}{elsewhere}" for study in mine)
    if scale != SCALE:
        return replace(judged, reason=f"is checked at scale={SCALE} only", command=command)
    evidence = Evidence.of(mine[0].preset(scale), results_dirs, partial(runs_of, mine, scale, results_dirs))
    verdict: Verdict
    answers: list[Answer]
    try:
        answers = check.answers(evidence)
        verdict, reason = overall(answers, check.combine)
    except MissingRunsError as error:
        answers, verdict, reason = [], "not run", f"there are {error}"
    except ValueError as error:
        answers, verdict, reason = [], "undecided", str(error)
    return replace(
        judged,
        verdict=verdict,
        reason=reason,
        answers=answers,
        n=min((answer.n for answer in answers), default=0),
        problems=evidence.problems,
        task=_task(evidence.used),
        runs=_where(evidence.used, results_dirs),
        clock=shorten(sorted({str(run.values.get("clock")) for run in evidence.used})),
        command=command,
    )


def _task(used: Sequence[Run]) -> str:
    """What was trained, and whose time the clock tells: "accuracy of mlp on digits; time as for ResNet-50 on V100"."""
    trained = dict.fromkeys(_trained(run) for run in used if not run.timing_only)
    clocks = dict.fromkeys(f"time as for {run.values.get('time_as_for')}" for run in used)
    return "; ".join([*(trained or ["nothing trained"]), *clocks]) if used else ""


def _trained(run: Run) -> str:
    values = run.values
    sizes = [part for part in str(values.get("settings")).split(", ") if part.startswith(("model.", "dataset."))]
    return ", ".join([f"accuracy of {values.get('model')} on {values.get('dataset')}", *sizes])


def _where(used: Sequence[Run], results_dirs: Sequence[Path]) -> str:
    """62 runs of results/showcase."""
    folders = {run.folder for run in used}
    counts = {place: sum(place / "runs" in folder.parents for folder in folders) for place in results_dirs}
    return ", ".join(f"{count} runs of {place}" for place, count in counts.items() if count)
