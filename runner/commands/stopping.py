"""Cancelling jobs, and submitting again what has failed or was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from runner.commands.options import say
from runner.report.runs import ACTIVE, Run, shorten

if TYPE_CHECKING:
    from runner.launchers.queue import Job

BY_THE_USER = "cancelled by the user"


def to_cancel(runs: Sequence[Run], queue: Mapping[str, Job]) -> dict[Path, str]:
    """Of these runs, those with a job in SLURM's queue: folder -> job. Why others are left alone is said."""
    from runner import jobs

    found: dict[Path, str] = {}
    elsewhere: list[Path] = []
    unknown: list[Path] = []
    for run in runs:
        if run.status not in ACTIVE:
            continue
        job = (jobs.of(run.folder) or {}).get("job")
        if job in queue:
            found[run.folder] = str(job)
        else:
            (elsewhere if job is None else unknown).append(run.folder)
    if elsewhere:
        say(f"no job of SLURM, left alone (press Ctrl-C where it was started): {shorten(elsewhere, 3)}")
    if unknown:
        say(f"SLURM's queue cannot be asked here, left alone: {shorten(unknown, 3)}")
    return found


def cancel(chosen: Mapping[Path, str]) -> list[str]:
    """Cancel the jobs of these runs and mark them interrupted; a line for each.

    Raises:
        QueueError: SLURM refuses; the runs are as they were.
    """
    from runner import results
    from runner.launchers import queue

    before: dict[Path, results.Row] = {}
    lines = []
    with ExitStack() as held:
        for folder, job in chosen.items():
            state = results.read_json(folder / "state.json") or {}
            if not held.enter_context(results.lock(folder)):
                lines.append(f"{folder}: is being submitted just now, left alone; try again")
            elif results.status(folder) in ACTIVE:
                # First this, then scancel: a task that is told to stop sees that it must not requeue itself.
                results.rewrite_state(folder, state, "interrupted", BY_THE_USER)
                before[folder] = state
                lines.append(f"{folder}: job {job} cancelled")
        try:
            queue.cancel([chosen[folder] for folder in before])
        except queue.QueueError:
            for folder, state in before.items():
                results.write_json(folder / "state.json", state)
            raise
    return lines


def resubmit(runs: Sequence[Run], results_dir: Path) -> int:
    """Run again, or go on with, the failed and interrupted ones among these, as they were configured then.

    Returns:
        The exit status, as of `run-experiment`.
    """
    from rich.console import Console

    from runner import config as configs
    from runner import results
    from runner.launch import run_all

    cells = []
    for run in runs:
        config = configs.load(run.folder)
        config["results_dir"] = str(_results_dir(run.folder, results_dir))
        config["rerun"] = False  # or what it has reached would be set aside once more
        if results.run_folder(config).resolve() != run.folder.resolve():
            say(f"{run.folder}: is not where its configuration belongs ({results.run_folder(config)}); left alone")
            continue
        cells.append((config, (run.folder / "overrides.txt").read_text().splitlines()))
    return run_all(cells, Console(highlight=False)) if cells else 1


def _results_dir(folder: Path, asked: Path) -> Path:
    """That of the run: the one asked for, unless the run was named by its folder elsewhere."""
    if (asked / "runs").resolve() in folder.resolve().parents:
        return asked
    from runner import jobs

    return jobs.results_dir(folder) or asked
