"""Runs on SLURM after the fact: whoever looks at them settles what their own records could not say any more.

A rank that raises writes what happened. One that is killed does not, nor does a job that reaches its time limit, loses
a node or is cancelled: then the records still say queued or running, but the job is no longer in the queue.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from runner import results
from runner.launchers import queue
from runner.launchers.verdict import verdict
from runner.report.runs import ACTIVE

AGAIN = "requeued by SLURM"
HALTED = "stopped at step"  # how the reason of a run begins that a signal has stopped: see `runner.halting`
SLACK_S = 5.0  # by which the clocks of nodes may differ; a requeued job waits for longer


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def of(folder: Path) -> results.Row | None:
    """What the run's job.json says: `job` (its id), `log` (submitit's folder); None for runs of other launchers."""
    found = results.read_json(folder / "job.json")
    return found if found is not None and isinstance(found.get("job"), str) else None


def log_folder(folder: Path, job: results.Row) -> Path:
    """Submitit's folder, where the job's own output is."""
    return (results_dir(folder) or folder.absolute()) / str(job.get("log", ""))


def errors(folder: Path, job: results.Row) -> Path:
    """What srun and the batch script have said."""
    return log_folder(folder, job) / f"{job['job']}_0_log.err"


def settle(folders: Iterable[Path], say: Callable[[str], None] = warn) -> dict[str, queue.Job]:
    """Write the state of runs that say queued or running and whose job is over.

    A run that was interrupted and whose job waits again, SLURM having put it back, is queued. One that was stopped by a
    signal is told who sent it.

    Args:
        folders: of runs; those of other launchers, and all that are finished or have failed, are left alone.
        say: what to do with a warning: a SLURM that does not answer.

    Returns:
        The jobs of the others, which are still there, by id; nothing where there is no SLURM to ask.
    """
    asked = {folder: job for folder in folders if (job := _open(folder)) is not None}
    if not asked or not queue.available():
        return {}
    try:
        known = queue.jobs({job["job"] for job in asked.values()})
    except queue.QueueError as error:
        say(f"{error}; what is shown is what the runs' own records say")
        return {}
    alive = {job_id: job for job_id, job in known.items() if job.alive}
    gone = {job["job"] for job in asked.values()} - known.keys()
    remembered = queue.history(gone) if gone else {}
    for folder, job in asked.items():
        job_id, status = job["job"], results.status(folder)
        if job_id in alive:
            if alive[job_id].waiting and status == "interrupted":
                _settle(folder, job, None, say)
        elif status in ACTIVE or _halted(results.read_json(folder / "state.json")):
            _settle(folder, job, {known[job_id].state} if job_id in known else remembered.get(job_id, set()), say)
    return alive


def _open(folder: Path) -> results.Row | None:
    """The job of a run that may be in a queue."""
    return of(folder) if results.status(folder) in (*ACTIVE, "interrupted") else None


def _settle(folder: Path, job: results.Row, states: set[str] | None, say: Callable[[str], None]) -> None:
    """Write the state of one run whose job is over, in these states as far as SLURM remembers; or (None) waits."""
    try:
        with results.lock(folder) as mine:  # its submitter holds it while it writes
            if mine and _open(folder) == job:
                _write(folder, job, states)
    except OSError as error:
        say(f"{folder}: the state of job {job['job']} cannot be written ({error.strerror})")


def _halted(state: results.Row | None) -> bool:
    """Whether all that is known of a run is the signal that stopped it."""
    return str((state or {}).get("reason")).startswith(HALTED)


def _write(folder: Path, job: results.Row, states: set[str] | None) -> None:
    state = results.read_json(folder / "state.json") or {}
    halted = _halted(state)
    if states is None:
        status, reason = "queued", AGAIN
    else:
        since = 0.0 if halted else _since(state) - SLACK_S
        status, reason = verdict(folder, log_folder(folder, job), job["job"], states, since)
    if halted and states is not None:  # it has left in order, whatever else its output says; who sent the signal?
        known = status == "interrupted"
        said = state["reason"].partition(";")[0]
        status, reason = "interrupted", f"{reason if known else 'its job is over'}; {said}"
    results.rewrite_state(folder, state, status, reason)


def _since(state: results.Row) -> float:
    try:
        return datetime.fromisoformat(str(state.get("updated"))).timestamp()
    except ValueError:
        return 0.0


def results_dir(folder: Path) -> Path | None:
    """The folder that holds runs/, of which a run lies anywhere below; None where there is none."""
    return next((parent.parent for parent in folder.absolute().parents if parent.name == "runs"), None)
