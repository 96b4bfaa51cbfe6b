"""Find the runs below a results folder and read them.

A report must come out whatever lies there: what cannot be read becomes a `Run` with a `problem`, never an exception.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import config as configs
from runner.build import nearest
from runner.identity import as_typed, flat
from runner.report import configured
from runner.report.metrics import top1_key

STATUSES = ("queued", "running", "finished", "failed", "interrupted")
ACTIVE = ("queued", "running")
DESERTED = "its launcher was killed, or its machine went down; the same command takes it up again"
_RUN_FILES = {"config.yaml", "state.json", "summary.json"}
_OF_A_STUDY = re.compile(r"/(?:tuning_)?(paper|virtual|laptop)$")
"""Among experiments; its group is the scale: see `runner.studies`."""
_DEEPEST = 8  # levels below runs/; ends a loop of symbolic links

# What a summary must hold where it holds it at all; null is always allowed, other keys are nobody's business here.
_TEXTS = (
    *("algorithm", "variant", "settings", "experiment", "topology"),
    *("dataset", "model", "problem", "launcher", "clock", "cluster", "cost", "failures", "time_as_for", "batch_norm"),
    "evaluated_model",
)
COUNTS = ("nodes", "gpus_per_node", "workers", "batch_size", "global_batch_size", "seed")
_NUMBERS = (
    *("epochs", "iterations", "top1_mean_model", "top1_workers_mean", "top1_workers_std", "top1_centre"),
    *("loss_mean_model", "consensus_distance", "epoch_time_s", "training_time_s", "iteration_time_s"),
    *("compute_s", "wait_s", "data_s", "bytes_sent", "staleness_mean"),
)


@dataclass(frozen=True)
class Run:
    """One run's folder. `summary` is there exactly when the run is finished and its summary can be read.

    `status` is one of STATUSES, or "corrupt" (its files cannot be read), "foreign" (no run at all) or "unknown" (no
    state yet). `problem` says what could not be read; a run with both a summary and a problem can still be reported.
    """

    folder: Path
    group: str  # the folder's path below runs/: the experiment or the algorithm
    status: str
    state: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    problem: str | None = None
    submitted: bool = False  # as a job of SLURM

    @property
    def unsettled(self) -> bool:
        """Whether its job may be over, or in the queue again, without its records saying so: see `runner.jobs`."""
        return self.submitted and self.status in (*ACTIVE, "interrupted")

    @property
    def identity(self) -> str:
        """The run's identity, which is its folder's name."""
        return self.folder.name

    @property
    def readable(self) -> bool:
        """Whether it is a run whose own files can be read, finished or not."""
        return self.status not in ("corrupt", "foreign")

    @property
    def timing_only(self) -> bool:
        """Whether it is finished and had nothing to evaluate: a virtual run with problem=none."""
        return self.summary is not None and self.summary.get("clock") == "virtual" and not self.summary.get("dataset")

    @cached_property
    def values(self) -> dict[str, Any]:
        """What a filter, a row or a column can ask for: the summary, or else the configuration, and what follows."""
        if self.summary is not None:  # older ones name neither the problem nor the model evaluated
            values = {"problem": "none" if self.timing_only else "supervised"} | self.summary
            values["evaluated_model"] = values.get("evaluated_model") or "mean"
            values["top1"] = values.get(top1_key(values["evaluated_model"]))
        else:
            found = configured.as_summarised(self.folder / "config.yaml")
            values = {key: found.get(key) for key in (*_TEXTS, *COUNTS, "epochs") if _is_scalar(found.get(key))}
        values |= {"identity": self.identity, "status": self.status, "group": self.group, "method": method(values)}
        of_a_study = _OF_A_STUDY.search(values.get("experiment") or "")
        values["scale"] = of_a_study[1] if of_a_study else None
        total = values.get("training_time_s")
        for part in ("compute", "wait", "data"):
            seconds = values.get(f"{part}_s")
            values[f"{part}_share"] = seconds / total if seconds is not None and total else None
        return {key: value if _is_scalar(value) else json.dumps(value, sort_keys=True) for key, value in values.items()}


def method(values: dict[str, Any]) -> str:
    """The algorithm with the settings in which it differs from its defaults: `sgp`, `sgp (overlap=1)`."""
    algorithm, variant = values.get("algorithm") or "?", values.get("variant")
    return f"{algorithm} ({variant})" if variant else str(algorithm)


def _makes_one(experiment: str | None) -> str:
    """What would put a run there."""
    return f"experiment={experiment}" if experiment else "algorithm=sgp nodes=4"


def find_runs(results_dir: Path | str, experiment: str | None = None, where: Iterable[str] = ()) -> list[Run]:
    """Return the runs below `results_dir`/runs, in the order of their paths.

    `experiment` keeps the runs of an experiment or algorithm and of everything below it (`sgp` keeps `sgp/table1`).
    Each entry of `where` is `key=value` or `key=value,value`; all must hold. Keys are of summaries or, where these have
    none of that name, of the configuration (algorithm.overlap). Runs that could not be read are kept, for the reader
    to be told. Raises LookupError where there is nothing to report, ValueError for an unknown experiment or key.
    """
    root = Path(results_dir) / "runs"
    if experiment is not None and not (
        (root / experiment).is_dir() and root.resolve() in (root / experiment).resolve().parents
    ):
        known = sorted({run.group for run in _walk(root, root, 0)} - {"."})
        if known:
            raise unknown_name("experiment", experiment, known)
    start = root / experiment if experiment is not None else root
    runs = sorted(_walk(start, root, 0), key=lambda run: run.folder)
    if not any(run.status != "foreign" for run in runs):
        raise LookupError(
            f"no runs in {start}. Make one with `run-experiment {_makes_one(experiment)}`, "
            "or say where they are with --results-dir."
        )
    return filter_runs(runs, where)


def finished(preset: str, results_dirs: Iterable[Path]) -> tuple[dict[str, Run], list[str]]:
    """By identity, the finished runs below each results_dir/runs/<preset>, the first place first; and what is wrong."""
    runs: dict[str, Run] = {}
    problems = []
    for place in results_dirs:
        if (place / "runs" / preset).is_dir():
            for run in sorted(_walk(place / "runs" / preset, place / "runs", 0), key=lambda run: run.folder):
                if run.problem:
                    problems.append(f"skipped {run.problem}")
                elif run.summary is not None:
                    runs.setdefault(run.identity, run)
    return runs, problems


def read_run(run: Run) -> Run:
    """The run as it stands now."""
    with os.scandir(run.folder) as entries:
        return _read_run(run.folder, run.group, [entry.name for entry in entries])


def filter_runs(runs: list[Run], where: Iterable[str]) -> list[Run]:
    """Keep the runs of which each `key=value[,value]` holds and those that could not be read; raises as `find_runs`."""
    for condition in where:
        key, equals, wanted = condition.partition("=")
        if not equals or not key:
            raise ValueError(f"--where {condition}: write key=value or key=value,value, for example --where nodes=4")
        readable = [run for run in runs if run.readable]
        known = {name for run in readable for name in run.values}
        if key in known or not readable:
            its = {run.folder: run.values.get(key) for run in readable}
        else:
            runs, its = _configured(runs, key, known)
        runs = [run for run in runs if not run.readable or (run.folder in its and _matches(its[run.folder], wanted))]
        if not any(run.readable for run in runs):
            there = [_plain(value) for value in sorted({*its.values()}, key=natural_order)]
            raise LookupError(f"no run with {condition}; {key} is {shorten(there) if there else 'in no run'}")
    return runs


def _configured(runs: list[Run], key: str, known: Iterable[str]) -> tuple[list[Run], dict[Path, Any]]:
    """The runs, corrupt where their configuration cannot be read, and what those that have the key there say of it.

    Raises:
        ValueError: none has it.
    """
    found: list[Run] = []
    its: dict[Path, Any] = {}
    others: set[str] = set()
    for run in runs:
        try:
            config = configured.part(run.folder / "config.yaml", key) if run.readable else {}
        except ValueError as error:
            problem = f"{run.folder / 'config.yaml'}: cannot be read ({str(error).splitlines()[0]})"
            run, config = replace(run, status="corrupt", summary=None, problem=problem), {}
        found.append(run)
        if configs.has(config, key):
            value = configs.select(config, key)
            its[run.folder] = value if _is_scalar(value) else as_typed(value)
        elif "." in key and not its:
            others |= {name for name, _ in flat(config)}
    if not its:
        raise unknown_name("--where", key, sorted({*known, *others}))
    return found, its


def read_evaluations(run: Run) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of evaluations.jsonl in order of epoch, and what was wrong with it.

    Where an epoch occurs twice the last row counts. A line that is no JSON object with a number as `epoch`, and numbers
    or null beside the clock's name, is skipped; the second value then names the file and the lines.
    """
    path = run.folder / "evaluations.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        return [], f"{path}: {error.strerror}"
    rows, bad = {}, []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not _is_evaluation(row):
                raise ValueError
        except (ValueError, RecursionError):
            bad.append(str(number))
            continue
        rows[float(row["epoch"])] = row
    ordered = [rows[epoch] for epoch in sorted(rows)]
    if bad:
        return ordered, f"{path}: skipped line {shorten(bad)}, not an evaluation"
    return ordered, None if ordered else f"{path}: no evaluation in it"


def unknown_name(key: str, value: str, allowed: Sequence[str]) -> ValueError:
    """The error for a name that does not exist: the key, the value, the nearest names and all that are allowed."""
    return ValueError(f"{key}: there is no {value!r}; {nearest(value, allowed)}")


def natural_order(value: Any) -> tuple[int, float, tuple[str | float, ...]]:
    """A sort key for values of any kind: missing ones, numbers, the baseline `allreduce`, text; K1=4 before K1=16."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return (0, 0.0, ())
    if _is_number(value):
        return (1, float(value), ())
    parts = enumerate(re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", str(value)))  # text and numbers in turn
    return (
        2 if str(value).startswith("allreduce") else 3,
        0.0,
        tuple(float(part) if i % 2 else part for i, part in parts),
    )


def in_order(keys: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Several values each, sorted by the natural order of the first, then of the next."""
    return sorted(keys, key=lambda key: [natural_order(value) for value in key])


def shorten(values: Sequence[Any], most: int = 10) -> str:
    """`a, b, c`, cut after `most` values with the number of the rest."""
    return ", ".join(map(str, values[:most])) + (f", and {len(values) - most} more" if len(values) > most else "")


def _walk(folder: Path, root: Path, depth: int) -> Iterator[Run]:
    """Yield the runs in `folder` and below it; a folder that holds a run's files is a run, not searched further."""
    try:
        with os.scandir(folder) as entries:
            inside = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    except FileNotFoundError:
        return
    except OSError as error:
        yield Run(folder, _group(folder, root), "foreign", problem=f"{folder}: {error.strerror}")
        return
    if folder != root and not _RUN_FILES.isdisjoint(inside):
        yield _read_run(folder, _group(folder, root), inside)
        return
    for name, is_folder in inside.items():
        if not is_folder:
            problem = f"{folder / name}: not part of a run"
            yield Run(folder / name, _group(folder / name, root), "foreign", problem=problem)
        elif depth < _DEEPEST:
            yield from _walk(folder / name, root, depth + 1)


def _group(folder: Path, root: Path) -> str:
    return folder.parent.relative_to(root).as_posix() if folder != root else "."


def _read_run(folder: Path, group: str, inside: Iterable[str]) -> Run:
    state, problem = _read_object(folder / "state.json") if "state.json" in inside else ({}, None)
    if "summary.json" in inside:
        summary, trouble = _read_object(folder / "summary.json")
        trouble = trouble or _wrong_in(summary, folder / "summary.json")
        if trouble:
            return Run(folder, group, "corrupt", state, problem=trouble)
        return Run(folder, group, "finished", state, summary, problem, submitted="job.json" in inside)
    status, submitted = state.get("status", "unknown"), "job.json" in inside
    if problem is None and (not isinstance(status, str) or status == "finished"):
        problem = f"{folder}: state.json says {status!r}, but there is no summary.json"
    # A job needs no launcher any more.
    if problem is None and status in ACTIVE and not submitted and _is_deserted(folder):
        status, state = "interrupted", state | {"reason": DESERTED}
    return Run(folder, group, "corrupt" if problem else status, state, problem=problem, submitted=submitted)


def _is_deserted(folder: Path) -> bool:
    from runner.results import deserted  # takes longer to import than most folders to read

    return deserted(folder)


def _read_object(path: Path) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        return {}, f"{path}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return {}, f"{path}: no valid JSON ({error})"
    return (value, None) if isinstance(value, dict) else ({}, f"{path}: not a JSON object")


def _wrong_in(summary: dict[str, Any], path: Path) -> str | None:
    if not isinstance(summary.get("algorithm"), str):
        return f"{path}: not the summary of a run, it names no algorithm"
    if (identity := summary.get("identity") or path.parent.name) != path.parent.name:
        return f"{path}: the summary of run {identity}, in a folder of another name"
    for keys, fits, kind in (
        (_TEXTS, _is_text, "text"),
        (COUNTS, _is_count, "a whole number"),
        (_NUMBERS, _is_number, "a number"),
        (("staleness",), _is_histogram, "counts by age such as 0:120,1:30"),
    ):
        for key in keys:
            value = summary.get(key)
            if value is not None and not fits(value):
                return f"{path}: {key} is {value!r}, not {kind}"
    return None


def _matches(value: Any, wanted: str) -> bool:
    return _equals(value, wanted) or ("," in wanted and any(_equals(value, one) for one in wanted.split(",")))


def _equals(value: Any, wanted: str) -> bool:
    if value is None or isinstance(value, bool):
        return wanted.lower() in (("null", "none", "") if value is None else (str(value).lower(),))
    if isinstance(value, str):
        return value == wanted or (value[:1] in ("{", "[") and value == wanted.replace(" ", ""))
    try:
        return bool(float(wanted) == value)
    except ValueError:
        return False


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_histogram(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"(\d+:\d+(,\d+:\d+)*)?", value) is not None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_evaluation(row: dict[str, Any]) -> bool:
    values = [value for key, value in row.items() if key != "clock" and value is not None]
    return all(map(_is_number, values)) and row.get("epoch") is not None and math.isfinite(row["epoch"])


def _is_number(value: Any) -> bool:
    """Whether it is one, and no integer that is too large for a float."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e308)
