"""Handing jobs to SLURM through submitit, and asking beforehand whether the cluster would take them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runner.build import ConfigError
from runner.launchers.slurm_settings import minutes

PATIENCE_S = 60.0
UNREACHABLE = r"unable to contact|connect failure|connection|configuration source|timed out"
CAUSES = (  # what sbatch's words are about, the parameter that they blame, and what to do
    (r"violates|limit reached|quota", "", "ask for less (nodes, launcher.time), or wait until other jobs are done"),
    (r"account", "account", "sacctmgr show associations user=$USER lists yours"),
    (r"partition", "partition", "sinfo lists the partitions"),
    (r"\bqos\b", "qos", "sacctmgr show qos lists them"),
    (r"wckey", "wckey", "leave launcher.wckey null, or name one of yours"),
    (r"mail", "mail_type", "launcher.mail_type takes BEGIN, END, FAIL, REQUEUE, ALL, ..."),
    (r"--time|time limit", "time", "ask for less; sinfo shows each partition's limit"),
    (r"--mem|memory", "mem", "write 64G or 4000M, no more than a node has (sinfo -o '%N %m' shows it)"),
    (r"feature", "constraint", "sinfo -o '%N %f' shows the features of nodes"),
    (r"node name|number of nodes", "nodelist", "mend launcher.nodelist or launcher.exclude; sinfo -N lists the nodes"),
    (r"generic resource|gres|gpu", "gres", "change gpus_per_node or launcher.gres, or use device=cpu"),
    (r"depend", "dependency", "write afterok:<job>, with a job that there is"),
    (r"array", "", "submit the sweep in parts"),
    (r"node configuration|node count", "nodes", "use fewer nodes or gpus_per_node, or ask for less of each node"),
    (r"option|argument|specification", "", "mend launcher.additional_parameters"),
    (UNREACHABLE, "", "sinfo shows whether SLURM is up"),
)
OF_NODES = ("nodes", "ntasks_per_node", "cpus_per_task", "mem", "gpus_per_node", "gres", "constraint", "nodelist")
FOR_NOW = re.compile("configuration is not available|busy|DOWN|DRAINED|reserved", re.IGNORECASE)
"""What `sbatch --test-only` also says of nodes that are down, for which the job itself would wait."""
UP = {"idle", "mix", "alloc", "comp"}


class SubmissionError(Exception):
    """SLURM did not take a job; the message holds what sbatch said, and what to change."""


class UnreachableError(ConfigError):
    """SLURM does not answer, so that it cannot be asked."""


class Partition(NamedTuple):
    limit: str  # 1-00:00:00, infinite
    nodes: int
    all_up: bool


def available() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def script(folder: Path, jobs: int, parameters: dict[str, Any], python: str | None) -> str:
    """The script that `submit` hands to sbatch for so many jobs: an array where there are several."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{python or shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    text: str = _make_sbatch_string(command, folder, map_count=jobs if jobs > 1 else None, **parameters)
    return text


def submit(
    folder: Path, tasks: Sequence[Callable[[], None]], parameters: dict[str, Any], python: str | None
) -> list[str]:
    """One job per task, in an array where there are several; submitit's files and the output go to `folder`.

    Returns:
        Their ids: 123, or 123_0, 123_1, ...

    Raises:
        SubmissionError: sbatch refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(folder, python=python)
    executor.update_parameters(**parameters)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it also raises
            return [str(job.job_id) for job in executor.submit_array(list(tasks))]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise SubmissionError(explain(str(error), parameters)) from error


def test(text: str, parameters: dict[str, Any]) -> str:
    """What `sbatch --test-only` says of a script: when the job would start, and where.

    Raises:
        SubmissionError: it would not be taken now.
    """
    try:
        done = subprocess.run(["sbatch", "--test-only"], input=text, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SubmissionError(explain(str(error), parameters)) from error
    if done.returncode != 0:
        raise SubmissionError(explain(done.stderr, parameters))
    return "; ".join(_words(done.stderr))


def check(text: str, parameters: dict[str, Any]) -> str:
    """Ask the cluster about a script before anything is made.

    Returns:
        What `sbatch --test-only` says of it.

    Raises:
        UnreachableError: it does not answer.
        ConfigError: it would not take the job, or never start it.
    """
    partitions = _partitions(parameters["partition"])
    where = f"partition {', '.join(partitions)} of this cluster"
    most = max((partition.nodes for partition in partitions.values()), default=None)
    if most is not None and parameters["nodes"] > most:
        raise ConfigError(
            f"nodes: the job needs {parameters['nodes']}, {where} has {most}; use fewer, or change launcher.partition"
        )
    limits = [minutes(partition.limit) for partition in partitions.values() if partition.limit[:1].isdigit()]
    longest = max(filter(None, limits), default=0) if len(limits) == len(partitions) else 0
    if longest and (parameters["time"] or 0) > longest and not parameters["qos"]:  # which may allow more
        raise ConfigError(
            f"launcher.time={parameters['time']} minutes: {where} allows {longest}; use less, or another partition"
        )
    try:
        return test(text, parameters)
    except SubmissionError as error:
        if FOR_NOW.search(str(error)) and not all(partition.all_up for partition in partitions.values()):
            return str(error)
        kind = UnreachableError if re.search(UNREACHABLE, str(error), re.IGNORECASE) else ConfigError
        raise kind(str(error)) from error


def explain(said: str, parameters: dict[str, Any]) -> str:
    """One paragraph for what sbatch wrote: the setting it is about, its words, what to do."""
    words = "; ".join(_words(said)) or "nothing"
    key, advice = next(((k, a) for cause, k, a in CAUSES if re.search(cause, words, re.IGNORECASE)), ("", ""))
    setting = "launcher=slurm"
    if key == "nodes":
        setting = ", ".join(f"{each}={parameters[each]}" for each in OF_NODES if parameters.get(each) is not None)
    elif parameters.get(key) is not None:
        setting = f"launcher.{key}={parameters[key]}"
    if not advice and setting == "launcher=slurm":
        advice = "launcher=local and launcher=simulated do without SLURM"
    return f"{setting}: sbatch says: {words}{f'; {advice}' if advice else ''}"


def _words(said: str) -> list[str]:
    lines = (re.sub(r"^(sbatch: |error: |allocation failure: |Batch job submission failed: )+", "", line.strip())
             for line in said.splitlines())  # fmt: skip
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("Try ")))


def _partitions(names: str | None) -> dict[str, Partition]:
    """The partitions of that name, or the default one; nothing where sinfo does not say."""
    names = os.environ.get("SBATCH_PARTITION") or names
    command = ["sinfo", "--noheader", "--format=%P|%l|%D|%t", *([f"--partition={names}"] if names else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, Partition] = {}
    for line in done.stdout.splitlines():  # one for each state that nodes of a partition are in
        name, limit, nodes, state = (line.strip().split("|") + [""] * 4)[:4]
        if nodes.isdigit() and (names or name.endswith("*")):
            before = found.get(name.rstrip("*"), Partition(limit, 0, True))
            found[name.rstrip("*")] = Partition(limit, before.nodes + int(nodes), before.all_up and state in UP)
    return found
