"""What became of a SLURM job that is no longer there: whose fault it was, from what it and its ranks have left.

srun, slurmstepd and sbatch write into the .err files of submitit's folder, `<job>_<task>_log.err`: which task was
killed and by what, when a limit was reached, which node went down. All lives of a requeued job are in the same files.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from runner.config import Config
from runner.launchers import failures
from runner.launchers.slurm_settings import shape
from runner.launchers.slurm_task import place
from runner.report import configured
from runner.results import Row

BEGINS = re.compile(r"^distsgd: job \S+ begins$", re.MULTILINE)
"""What the batch script says when a life of its job begins."""
ENDED = re.compile(r"CANCELLED AT (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d).*")
AFTERMATH = re.compile(r"Terminating StepId|Job step aborted|forcing job termination|Force Terminated")
"""What comes after this line is srun's doing: it ends the other tasks of a step that has failed."""
TASKS = re.compile(r"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
EXIT_CODE = re.compile(r"Exited with exit code (\d+)")
SIGNALS = {"Killed": "was killed by SIGKILL", "Segmentation fault": "died of a segmentation fault (SIGSEGV)"}
OUT_OF_MEMORY = re.compile(r"oom[-_ ]kill|OOM Killed|[Ee]xceeded (job )?memory limit|Out Of Memory")
HOW_MUCH = re.compile(r"exceeded memory limit \((\d+) > (\d+)\)")
NODE_FAILURE = re.compile(r"DUE TO NODE FAILURE|Node failure on (\S+)")
CANCELLED = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*")
OTHERS = re.compile("srun: |slurmstepd|submitit |distsgd: ")
"""Lines of a task's .err file that are not its own."""
LAST_LINES = 5


def verdict(folder: Path, log: Path, job: str, states: set[str], since: float) -> tuple[str, str]:
    """The status of a run and the reason, of which the first line says all that matters.

    Args:
        folder: the run's.
        log: submitit's folder.
        job: its id, e.g. 123_4.
        states: in which SLURM remembers it, e.g. {"TIMEOUT"}; it may remember nothing.
        since: seconds since 1970, when its last life began or was asked for.
    """
    texts = _last_lives(log, job, since)
    text = "\n".join(texts[task] for task in sorted(texts))
    reports = failures.reports(folder / "log", since)
    if "NODE_FAIL" in states or NODE_FAILURE.search(text):
        named = sorted({match[1].rstrip(",.") for match in NODE_FAILURE.finditer(text) if match[1]})
        return "interrupted", f"node failure: {', '.join(named) or 'a node'} of job {job} went down"
    if "PREEMPTED" in states or "DUE TO PREEMPTION" in text:
        return "interrupted", f"preempted: job {job} had to make room for another"
    if found := failures.causes(reports):
        return "failed", failures.told(found[0])
    if "TIMEOUT" in states or "DUE TO TIME LIMIT" in text:
        return "interrupted", f"time limit: job {job} ran out of the time that it was given"
    if "OUT_OF_MEMORY" in states or OUT_OF_MEMORY.search(text):
        return "failed", _out_of_memory(folder, texts, text)
    if "CANCELLED" in states or CANCELLED.search(text):
        return "interrupted", f"job {job} was cancelled"
    if (first := _first_task(folder, texts, reports)) is not None:
        return "failed", first
    if reports:
        return "failed", failures.told(reports[0])
    if "COMPLETED" in states:
        return "failed", "all processes ended, but none wrote summary.json"
    words = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
    return "failed", "\n".join([f"job {job} is gone and has not said why (experiments logs --submission)", *words])


def _last_lives(log: Path, job: str, since: float) -> dict[int, str]:
    """By task, what its .err file says of the job's last life; the batch script writes into that of task 0."""
    found = {}
    for path in log.glob(f"{job}_*_log.err"):
        task = path.name.removeprefix(f"{job}_").removesuffix("_log.err")
        if task.isdigit():
            text = path.read_text(errors="replace")
            begun = max((match.end() for match in BEGINS.finditer(text)), default=0)
            ended = max((match.end() for match in ENDED.finditer(text) if _time(match[1]) < since), default=0)
            found[int(task)] = text[max(begun, ended) :]
    return found


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()  # the local time of the cluster, which is ours


def _config(folder: Path) -> Config | None:
    """The run's configuration; None where it cannot be read."""
    try:
        return configured.whole(folder / "config.yaml")
    except ValueError:
        return None


def rank_of(task: int, config: Config | None) -> int | None:
    """The rank of a task of srun, counted node by node; None where it has no part to play, or nobody knows."""
    if config is None:
        return None
    _, tasks = shape(config)
    return place(config, *divmod(task, tasks)).rank


def _beside(task: int, config: Config | None) -> list[int]:
    """The ranks on the node of a task."""
    if config is None:
        return []
    _, tasks = shape(config)
    first = task - task % tasks
    ranks = [rank_of(each, config) for each in range(first, first + tasks)]
    return [rank for rank in ranks if rank is not None]


def _numbers(text: str) -> list[int]:
    """`0-2,5` as [0, 1, 2, 5]."""
    ranges = [tuple(map(int, part.split("-"))) for part in text.split(",") if part]
    return [number for part in ranges for number in range(part[0], part[-1] + 1)]


def _first_task(folder: Path, texts: dict[int, str], reports: list[Row]) -> str | None:
    """The task that srun says was killed or has left first, in the order of likelihood; None where it names none.

    One that reports a lost connection was not the first. A signal that nobody sent for is a cause, an exit code often
    a consequence; what srun says after it has begun to end the step is one in any case.
    """
    batch = texts.get(0, "")
    aftermath = AFTERMATH.search(batch)
    before = TASKS.findall(batch[: aftermath.start()] if aftermath else batch)
    named = [line for line in before or TASKS.findall(batch) if not line[2].startswith("Terminated")]
    lost, config = {report["rank"] for report in reports}, _config(folder)
    for node, tasks, how in sorted(named, key=lambda line: bool(EXIT_CODE.match(line[2]))):
        for task in _numbers(tasks):
            rank = rank_of(task, config)
            if rank in lost and rank is not None:
                continue
            who = f"rank {rank}" if rank is not None else f"task {task}"
            if exit_code := EXIT_CODE.match(how):  # before it was a rank: what it said then is not in the rank's log
                words = [line for line in texts.get(task, "").splitlines() if line.strip() and not OTHERS.match(line)]
                said = f": {words[-1].strip()}" if words else ", without an exception"
                told = f"{who} ended with exit code {exit_code[1]}{said}"
                return "\n".join([told, *words[-failures.LAST_LINES :]])
            said = next((words for name, words in SIGNALS.items() if how.startswith(name)), f"died: {how}")
            said = f"{said}, on node {node}"
            return f"{who} {said}" if rank is None else failures.killed(folder / "log", rank, said)
    return None


def _out_of_memory(folder: Path, texts: dict[int, str], text: str) -> str:
    """Which rank was out of memory, or which ones may have been, and by how much."""
    config = _config(folder)
    for node, tasks, how in TASKS.findall(text):
        if how.startswith("Out Of Memory") and (rank := rank_of(_numbers(tasks)[0], config)) is not None:
            return failures.killed(folder / "log", rank, f"ran out of memory, on node {node}")
    much = HOW_MUCH.search(text)
    used = f": {int(much[1]) / 1e6:,.0f} MB used, {int(much[2]) / 1e6:,.0f} MB allowed" if much else ""
    for task, own in sorted(texts.items()):
        # slurmstepd, one for each node, writes to the file of the node's first task.
        if re.search("exceeded memory limit|oom[-_ ]kill|OOM Killed", own) and (who := _beside(task, config)):
            ranks = f"rank {who[0]}" if len(who) == 1 else f"one of the ranks {who[0]} to {who[-1]}"
            return f"{ranks} ran out of memory{used}"
    return f"the job ran out of memory{used}; ask for more with launcher.mem"
