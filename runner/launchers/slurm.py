"""Cells of a command line handed to SLURM: each in a folder of its own, one job array per shape of resources.

Nobody waits for them here. What is queued or running is skipped, like what is finished; what failed, was interrupted
or is missing is submitted.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import signal
import sys
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from runner import jobs, results
from runner.build import ConfigError
from runner.cells import headings, open_folder, say, title
from runner.config import Cell, Config
from runner.launchers import sbatch, snapshot
from runner.launchers.slurm_settings import parameters
from runner.launchers.slurm_task import SlurmTask
from runner.report.runs import ACTIVE

MOST_CELLS = 500
"""Of one array: SLURM's own limit (MaxArraySize) is 1,001 by default, and each cell's lock is an open file."""


@dataclass
class Placed:
    """A cell, and the folder that it goes to."""

    config: Config
    overrides: list[str]
    heading: str
    folder: Path

    @property
    def results_dir(self) -> Path:
        return Path(self.config["results_dir"]).expanduser().absolute()

    @property
    def shape(self) -> str:
        """Equal for cells that can share an array."""
        return json.dumps([parameters(self.config), self.config["launcher"], str(self.results_dir)], sort_keys=True)


def submit(cells: list[Cell], console: Console) -> int:
    """Submit what is not finished, queued or running, and say how to follow it.

    Returns:
        The exit status: 0, or 1 where SLURM did not take a job although it had said that it would.

    Raises:
        ConfigError: SLURM would not take one of the jobs; none is submitted.
    """
    every = _placed(cells)
    ending = jobs.settle(cell.folder for cell in every)
    arrays = _arrays([cell for cell in every if not _skipped(cell, console, ending)])
    for array in arrays:
        sbatch.check(*_request(array, _place(array)))
    failures = sum(not _submit(array, console) for array in arrays)
    if len(arrays) > failures:
        last = arrays[-1][-1]
        where = (
            ""
            if last.results_dir == Path("results").absolute()
            else f" --results-dir {shlex.quote(str(last.results_dir))}"
        )
        say(console, f"follow: experiments status{where}, experiments logs {last.folder.name}{where}")
    return 1 if failures else 0


def dry_run(cells: list[Cell], console: Console) -> int:
    """Print the script of each array, and what `sbatch --test-only` says of it where there is one.

    Returns:
        The exit status: 0, or 1 where SLURM would not take one of them.
    """
    status = 0
    for array in _arrays(_placed(cells)):
        text, resources = _request(array, _place(array))
        say(console, f"\n# sbatch script of {', '.join(cell.heading for cell in array)}\n{text}")
        if not sbatch.available():
            say(console, "# not checked by SLURM: there is no sbatch here")
            continue
        try:
            say(console, f"# sbatch --test-only: {sbatch.check(text, resources)}")
        except sbatch.UnreachableError as error:
            say(console, f"# not checked by SLURM: {error}")
        except ConfigError as error:
            say(console, f"# {error}", style="red")
            status = 1
    return status


def _placed(cells: list[Cell]) -> list[Placed]:
    return [
        Placed(config, overrides, heading, results.run_folder(config))
        for (config, overrides), heading in zip(cells, headings(cells), strict=True)
    ]


def _arrays(cells: list[Placed]) -> list[list[Placed]]:
    """The cells by shape of resources, in the order in which they were typed."""
    shapes: dict[str, list[Placed]] = {}
    for cell in cells:
        shapes.setdefault(cell.shape, []).append(cell)
    return [
        alike[first : first + MOST_CELLS] for alike in shapes.values() for first in range(0, len(alike), MOST_CELLS)
    ]


def _skipped(cell: Placed, console: Console, ending: Container[str] = ()) -> bool:
    """Whether a cell need not be submitted, or not yet, which is then said.

    Args:
        ending: jobs that SLURM still has; one that was cancelled may be saving its state just now.
    """
    status, job = results.status(cell.folder), jobs.of(cell.folder)
    if status == "finished" and not cell.config["rerun"]:
        why = "already finished, skipped (rerun=true runs it again)"
    elif status in ACTIVE and job is not None:
        why = f"is {status} as job {job['job']}, skipped"
    elif job is not None and job["job"] in ending:
        why = f"job {job['job']} is still ending, skipped; type it again in a minute"
    else:
        return False
    say(console, f"{cell.heading}: {why}  {cell.folder}")
    return True


def _place(array: list[Placed]) -> Path:
    """The folder of a submission: submitit's files, what SLURM and srun print, the snapshot."""
    name = f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    return array[0].results_dir / "runs" / ".slurm" / name


def _request(array: list[Placed], place: Path) -> tuple[str, dict[str, Any]]:
    """The script of an array, and the parameters that made it."""
    resources = _resources(array, place)
    return sbatch.script(place, len(array), resources, array[0].config["launcher"]["python"]), resources


def _resources(array: list[Placed], place: Path) -> dict[str, Any]:
    config = array[0].config
    resources = parameters(config)
    code = place / "code" if config["launcher"]["snapshot"] else snapshot.HOME
    setup = ['echo "distsgd: job ${SLURM_JOB_ID} begins" >&2', *resources["setup"], "export PYTHONSAFEPATH=1"]
    if config["launcher"]["snapshot"] or (code / "pyproject.toml").exists():  # else it is where Python looks anyway
        setup.append(f'export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+":$PYTHONPATH"}}')
    name = title(config) if len(array) == 1 else f"{array[0].folder.parent.name} {len(array)} cells"
    return {**resources, "setup": setup, "job_name": re.sub(r"[^\w.=+-]+", "-", name, flags=re.ASCII).strip("-")[:100]}


def _submit(array: list[Placed], console: Console) -> bool:
    """Make the folders and hand the array to sbatch. False where SLURM refuses; the runs have failed then."""
    with ExitStack() as held:
        mine = [cell for cell in array if _is_mine(cell, held, console)]
        if not mine:
            return True
        place = _place(mine)
        resources, launcher = _resources(mine, place), mine[0].config["launcher"]
        if launcher["snapshot"]:
            snapshot.take(place)
        steps = []
        for cell in mine:
            # queued from now on: once the job is there, a rank may say that it is running
            last = open_folder(cell.folder, cell.config, cell.overrides, "queued", "submitted to SLURM")
            steps.append(f", goes on from step {last['step']}" if last else "")
            (cell.folder / "job.json").unlink(missing_ok=True)  # of an earlier attempt
        tasks = [SlurmTask(str(cell.folder.absolute()), sys.path) for cell in mine]
        with _uninterrupted():  # a job that SLURM has and we do not know of would run twice
            try:
                ids = sbatch.submit(place, tasks, resources, launcher["python"])
            except sbatch.SubmissionError as error:
                for cell in mine:
                    results.write_state(cell.folder, "failed", f"not submitted: {error}")
                    say(console, f"{cell.heading}: not submitted  {cell.folder}", style="red")
                say(console, str(error))
                return False
            for cell, job in zip(mine, ids, strict=True):
                _remember(cell, job, place)
        for cell, job, step in zip(mine, ids, steps, strict=True):
            say(console, f"{cell.heading}: submitted as job {job}{step}  {cell.folder}")
    return True


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C has no effect meanwhile; it takes a second."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _is_mine(cell: Placed, held: ExitStack, console: Console) -> bool:
    """Whether nobody else is submitting this cell, or has done so just now; its lock is then held."""
    if not held.enter_context(results.lock(cell.folder)):
        say(console, f"{cell.heading}: is being submitted by another process, skipped  {cell.folder}")
        return False
    return not _skipped(cell, console)


def _remember(cell: Placed, job: str, place: Path) -> None:
    """Write job.json; its paths are relative to results_dir."""
    log = place.relative_to(cell.results_dir)
    record = {
        "job": job,
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "log": str(log),
        "script": str(log / f"{job.partition('_')[0]}_submission.sh"),
    }
    results.write_json(cell.folder / "job.json", record)
