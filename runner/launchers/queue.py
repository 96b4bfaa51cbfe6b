"""SLURM's own commands, asked as people would: squeue, sacct, scancel.

Arguments are handed over as lists, never through a shell. Where SLURM does not answer in time, or says that it cannot,
`QueueError` tells what it said: for whoever follows runs that is a warning, their records still stand.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

PATIENCE_S = 10.0
OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
"""States that a job does not leave. A requeued one is pending, even while its last life is being cleared away."""
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
_FIELDS = "%i|%T|%r|%N|%L"  # squeue cuts nothing off where no width is given; none of these holds a |
_AT_ONCE = 500  # ids in one command line


class QueueError(Exception):
    """SLURM did not answer; the message is what it said instead."""


@dataclass(frozen=True)
class Job:
    """One line of squeue."""

    id: str  # 123, or 123_4 for a cell of an array
    state: str  # PENDING, RUNNING, COMPLETING, ...; a job that is over stays in squeue for some minutes
    reason: str = ""  # why it waits: Priority, Resources, JobArrayTaskLimit; or why it has ended
    nodes: str = ""  # n[1-4]
    left: str = ""  # of its time limit: 1-02:03:04, UNLIMITED

    @property
    def alive(self) -> bool:
        return self.state not in OVER

    @property
    def waiting(self) -> bool:
        return self.state in WAITING


def available() -> bool:
    """Whether there is a SLURM to ask."""
    return shutil.which("squeue") is not None


def jobs(ids: Collection[str] | None = None) -> dict[str, Job]:
    """What squeue knows of these jobs, by id; of all jobs where none are named. Cells of a waiting array one by one.

    Raises:
        QueueError: it does not answer.
    """
    found: dict[str, Job] = {}
    for named in _batches(ids):
        only = [f"--jobs={','.join(named)}"] if named else []
        command = ["squeue", "--noheader", "--array", "--states=all", f"--format={_FIELDS}", *only]
        try:
            text = _ask(command)
        except QueueError as error:
            if named and "Invalid job id" in str(error):  # the only one asked for is long over
                continue
            raise
        found |= parse(text)
    return found if ids is None else {job_id: job for job_id, job in found.items() if job_id in ids}


def parse(text: str) -> dict[str, Job]:
    """The jobs in squeue's output, a line each in the fields that `jobs` asks for."""
    lines = (line.strip().split("|") for line in text.splitlines())
    found = {}
    for job_id, state, reason, nodes, left in (fields for fields in lines if len(fields) == 5):
        for one in _expanded(job_id):
            found[one] = Job(one, state, "" if reason == "None" else reason, nodes, left)
    return found


def _expanded(job_id: str) -> list[str]:
    """`7_[1-2,5%3]` as 7_1, 7_2, 7_5: how a waiting array is written where --array is not heeded."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job_id)
    if match is None:
        return [job_id]
    array, cells = match.groups()
    ranges = [tuple(map(int, part.split("-"))) for part in cells.split(",")]
    return [f"{array}_{cell}" for part in ranges for cell in range(part[0], part[-1] + 1)]


def history(ids: Iterable[str]) -> dict[str, set[str]]:
    """The states in which sacct remembers these jobs; nothing where there is no accounting."""
    remembered: dict[str, set[str]] = {}
    try:
        for named in _batches(list(ids)):
            command = ["sacct", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(named)}"]
            for line in _ask(command, PATIENCE_S / 2).splitlines():
                job_id, _, said = line.partition("|")
                state = said.partition(" ")[0]  # `CANCELLED by 1000`
                job_id, _, step = job_id.partition(".")
                if state and (not step or state == "OUT_OF_MEMORY"):  # srun cancels the steps of what fails
                    remembered.setdefault(job_id, set()).add(state)
    except QueueError:
        return {}
    return remembered


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs of this user; those that are over already are no error.

    Raises:
        QueueError: scancel does not do it.
    """
    for named in _batches(ids):
        _ask(["scancel", "--quiet", *named])


def _batches(ids: Collection[str] | None) -> list[list[str]]:
    if ids is None:
        return [[]]
    named = sorted(ids)
    return [named[at : at + _AT_ONCE] for at in range(0, len(named), _AT_ONCE)]


def _ask(command: list[str], patience_s: float = PATIENCE_S) -> str:
    name = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience_s, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise QueueError(f"{name} has not answered within {patience_s:g} s") from error
    except OSError as error:
        raise QueueError(f"{name} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise QueueError(f"{name}: {said[0].removeprefix(f'{name}: ').removeprefix('error: ')}")
    return done.stdout
