"""What SLURM says of jobs, as its version 22.05 has said it, and what that makes of runs whose job is over."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_run

from runner import jobs, results
from runner.commands.options import settled
from runner.launchers import queue
from runner.launchers.failures import LOST_CONNECTION
from runner.launchers.verdict import rank_of, verdict
from runner.report.runs import find_runs

SQUEUE = """\
1_[2-5%2]|PENDING|JobArrayTaskLimit||2:00
1_0|RUNNING|None|n1|1:59
17|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions||3:00:00
29|CANCELLED|None|n[1-2]|1:54
33|COMPLETING|BeginTime|n[1,3-4]|UNLIMITED
"""

BEGINS = "distsgd: job 4 begins\n"
KILLED = """\
srun: error: n2: task 3: Killed
srun: launch/slurm: _step_signal: Terminating StepId=4.0
srun: error: n2: task 2: Terminated
srun: error: n1: tasks 0-1: Killed
srun: Force Terminated StepId=4.0
"""
NOT_ENDED_BY_SRUN = """\
srun: error: n2: task 2: Exited with exit code 1
srun: error: n2: task 3: Segmentation fault
srun: error: n1: tasks 0-1: Exited with exit code 1
"""
LEFT = KILLED.replace("task 3: Killed", "task 3: Exited with exit code 3")
BEFORE_IT_WAS_A_RANK = """\
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
ModuleNotFoundError: No module named 'submitit'
"""
OVER_MEMORY = """\
slurmstepd-n1: error: Exceeded job memory limit
srun: Job step aborted: Waiting up to 12 seconds for job step to finish.
srun: error: n1: tasks 0-1: Killed
srun: launch/slurm: _step_signal: Terminating StepId=4.0
srun: error: n2: tasks 2-3: Killed
"""
BY_NODE = "slurmstepd-n2: error: StepId=4.0 exceeded memory limit (487391232 > 314572800), being killed\n"
CGROUPS = "srun: error: n2: task 3: Out Of Memory\nsrun: launch/slurm: _step_signal: Terminating StepId=4.0\n"
TIME_LIMIT = """\
slurmstepd-n1: error: *** JOB 4 ON n1 CANCELLED AT 2026-11-22T17:04:04 DUE TO TIME LIMIT ***
srun: Job step aborted: Waiting up to 12 seconds for job step to finish.
srun: got SIGCONT
srun: forcing job termination
srun: error: n1: task 0: Terminated
"""
SCANCEL = TIME_LIMIT.replace(" DUE TO TIME LIMIT", "").replace("Terminated", "Killed")
REQUEUE = TIME_LIMIT.replace("TIME LIMIT", "JOB REQUEUE")
PREEMPTION = TIME_LIMIT.replace("TIME LIMIT", "PREEMPTION")
NODE_FAILURE = """\
slurmstepd-n1: error: *** JOB 4 ON n1 CANCELLED AT 2026-11-22T17:05:04 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***
srun: error: Node failure on n3
srun: Job step aborted: Waiting up to 12 seconds for job step to finish.
srun: error: n4: task 3: Terminated
"""
LOST = "RuntimeError: [gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:4242"
FULL = "RuntimeError: the disk is full"


def submitted(results_dir: Path, job: str = "4", status: str = "running", **keys: Any) -> Path:
    """A run of 2 nodes x 2 that was handed to SLURM as this job."""
    keys = {"nodes": 2, "gpus_per_node": 2} | keys
    folder = write_run(results_dir, identity=f"a{job}", status=status, **keys)
    config = json.loads((folder / "config.yaml").read_text())
    config |= {"servers": keys.get("servers", 0), "server": {"placement": "beside_0"}}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "log").mkdir()
    (results_dir / "runs/.slurm/x").mkdir(parents=True, exist_ok=True)
    results.write_json(folder / "job.json", {"job": job, "log": "runs/.slurm/x"})
    return folder


def say(results_dir: Path, text: str, task: int = 0, job: str = "4") -> None:
    """What srun and the batch script have said."""
    with (results_dir / f"runs/.slurm/x/{job}_{task}_log.err").open("a") as file:
        file.write(text)


def report(folder: Path, rank: int, error: str, when: float | None = None) -> None:
    """A rank's report of an exception."""
    row = {"rank": rank, "time": when or time.time(), "error": error, "traceback": f"Traceback\n{error}"}
    results.write_json(folder / f"log/rank-{rank:05d}.error.json", row)


def judge(folder: Path, *states: str, since: float = 0.0) -> tuple[str, str]:
    status, reason = verdict(folder, folder.parents[2] / "runs/.slurm/x", "4", set(states), since)
    return status, reason.splitlines()[0]


def test_squeue_is_parsed_with_its_waiting_arrays() -> None:
    found = queue.parse(SQUEUE)
    assert list(found) == ["1_2", "1_3", "1_4", "1_5", "1_0", "17", "29", "33"]
    assert found["1_4"] == queue.Job("1_4", "PENDING", "JobArrayTaskLimit", "", "2:00")
    assert found["1_0"] == queue.Job("1_0", "RUNNING", "", "n1", "1:59")
    assert found["17"].reason.startswith("Nodes required for job are DOWN")
    assert found["33"].nodes == "n[1,3-4]"
    assert [job.id for job in found.values() if not job.alive] == ["29"]
    assert [job.id for job in found.values() if job.waiting] == ["1_2", "1_3", "1_4", "1_5", "17"]
    assert queue.parse("slurm is being upgraded\n") == {}


def test_sacct_is_asked_once_and_need_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "7_1|FAILED",
        "7_1.batch|FAILED",
        "7_1.0|OUT_OF_MEMORY",
        "8|CANCELLED by 1000",
        "6|FAILED",
        "6.0|CANCELLED",
    ]
    command = tmp_path / "sacct"
    command.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = {"7_1": {"FAILED", "OUT_OF_MEMORY"}, "8": {"CANCELLED"}, "6": {"FAILED"}}
    assert queue.history(["7_1", "8", "6"]) == found
    command.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    assert queue.history(["7_1"]) == {}


@pytest.mark.parametrize(
    ("text", "states", "status", "reason"),
    [
        (KILLED, ["FAILED"], "failed", "rank 3 was killed by SIGKILL, on node n2"),
        (KILLED, [], "failed", "rank 3 was killed by SIGKILL, on node n2"),
        (NOT_ENDED_BY_SRUN, [], "failed", "rank 3 died of a segmentation fault (SIGSEGV), on node n2"),
        (LEFT, ["FAILED"], "failed", "rank 3 ended with exit code 3, without an exception"),
        (CGROUPS, [], "failed", "rank 3 ran out of memory, on node n2"),
        (OVER_MEMORY, ["CANCELLED"], "failed", "the job ran out of memory; ask for more with launcher.mem"),
        ("", ["OUT_OF_MEMORY"], "failed", "the job ran out of memory; ask for more with launcher.mem"),
        (TIME_LIMIT, [], "interrupted", "time limit: job 4 ran out of the time that it was given"),
        ("", ["TIMEOUT"], "interrupted", "time limit: job 4 ran out of the time that it was given"),
        (SCANCEL, [], "interrupted", "job 4 was cancelled"),
        ("", ["CANCELLED"], "interrupted", "job 4 was cancelled"),
        (PREEMPTION, [], "interrupted", "preempted: job 4 had to make room for another"),
        (NODE_FAILURE, [], "interrupted", "node failure: n3 of job 4 went down"),
        ("", ["NODE_FAIL"], "interrupted", "node failure: a node of job 4 went down"),
        ("", ["COMPLETED"], "failed", "all processes ended, but none wrote summary.json"),
        ("", [], "failed", "job 4 is gone and has not said why (experiments logs --submission)"),
    ],
)
def test_what_became_of_a_job(tmp_path: Path, text: str, states: list[str], status: str, reason: str) -> None:
    folder = submitted(tmp_path)
    say(tmp_path, BEGINS + text)
    assert judge(folder, *states) == (status, reason)


def test_who_was_out_of_memory_is_told_as_far_as_slurm_knows(tmp_path: Path) -> None:
    folder = submitted(tmp_path)
    say(tmp_path, OVER_MEMORY)
    say(tmp_path, BY_NODE, task=2)  # slurmstepd writes to the node's first task
    told = "one of the ranks 2 to 3 ran out of memory: 487 MB used, 315 MB allowed"
    assert judge(folder, "CANCELLED") == ("failed", told)


def test_a_task_that_was_never_a_rank_says_why_itself(tmp_path: Path) -> None:
    folder = submitted(tmp_path)
    say(tmp_path, LEFT)
    say(tmp_path, BEFORE_IT_WAS_A_RANK, task=3)
    told = "rank 3 ended with exit code 3: ModuleNotFoundError: No module named 'submitit'"
    assert judge(folder) == ("failed", told)


def test_the_first_exception_counts_and_no_lost_connection(tmp_path: Path) -> None:
    assert LOST_CONNECTION.search(LOST)
    folder = submitted(tmp_path)
    say(tmp_path, NOT_ENDED_BY_SRUN.replace("Segmentation fault", "Exited with exit code 7"))
    report(folder, 2, LOST, when=50.0)
    report(folder, 0, LOST, when=51.0)
    assert judge(folder) == ("failed", "rank 3 ended with exit code 7, without an exception")
    report(folder, 3, FULL, when=52.0)
    assert judge(folder) == ("failed", f"rank 3: {FULL}")
    assert judge(folder, since=60.0)[1] != f"rank 3: {FULL}"  # of an earlier life


def test_only_the_last_life_of_a_requeued_job_counts(tmp_path: Path) -> None:
    folder = submitted(tmp_path)
    say(tmp_path, BEGINS + NODE_FAILURE + BEGINS + REQUEUE + BEGINS + KILLED)
    assert judge(folder) == ("failed", "rank 3 was killed by SIGKILL, on node n2")
    step = NODE_FAILURE.splitlines(keepends=True)[0].replace("JOB 4", "STEP 4.0")
    say(tmp_path, BY_NODE + step, task=2)  # which has no such marks, but times
    assert judge(folder)[1] == "node failure: a node of job 4 went down"
    assert judge(folder, since=2e10) == ("failed", "rank 3 was killed by SIGKILL, on node n2")


def test_tasks_are_no_ranks_where_there_are_servers() -> None:
    config: dict[str, Any] = {"nodes": 2, "gpus_per_node": 2, "servers": 1, "server": {"placement": "beside_0"}}
    assert [rank_of(task, config) for task in range(6)] == [0, 1, 4, 2, 3, None]
    config["server"]["placement"] = "own"
    assert [rank_of(task, config) for task in range(6)] == [0, 1, 2, 3, 4, None]


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> dict[str, queue.Job]:
    """A queue that holds what a test puts there; no SLURM is asked."""
    there: dict[str, queue.Job] = {}
    monkeypatch.setattr(queue, "available", lambda: True)
    monkeypatch.setattr(queue, "jobs", lambda ids: {job: there[job] for job in ids if job in there})
    monkeypatch.setattr(queue, "history", lambda ids: {})
    return there


def test_settling_writes_the_state_of_what_is_over_only(tmp_path: Path, slurm: dict[str, queue.Job]) -> None:
    for job in ("4", "5", "6", "7", "8"):
        submitted(tmp_path, job, status={"7": "finished", "8": "interrupted"}.get(job, "running"))
    say(tmp_path, KILLED)
    slurm |= {"5": queue.Job("5", "RUNNING", nodes="n1"), "6": queue.Job("6", "TIMEOUT")}
    slurm |= {"8": queue.Job("8", "PENDING", "BeginTime")}
    write_run(tmp_path, identity="local", status="failed")
    runs, alive = settled(find_runs(tmp_path))
    assert alive.keys() == {"5", "8"}
    assert {run.identity: run.status for run in runs} == {
        "a4": "failed",
        "a5": "running",
        "a6": "interrupted",
        "a7": "finished",
        "a8": "queued",
        "local": "failed",
    }
    state = json.loads((tmp_path / "runs/sgp/a4/state.json").read_text())
    assert state["reason"].startswith("rank 3 was killed")
    assert state["pid"] == 1  # what else stood there stays


def test_who_sent_the_signal_is_found_out_once(tmp_path: Path, slurm: dict[str, queue.Job]) -> None:
    folder = submitted(tmp_path)
    say(tmp_path, BEGINS + TIME_LIMIT)
    results.write_state(folder, "queued", "stopped at step 7, after SIGTERM; goes on when SLURM begins it again")
    for _ in range(2):
        jobs.settle([folder])
        state = results.read_json(folder / "state.json")
        assert state is not None
        told = "time limit: job 4 ran out of the time that it was given; stopped at step 7, after SIGTERM"
        assert (state["status"], state["reason"]) == ("interrupted", told)


def test_a_run_that_is_being_submitted_is_left_alone(tmp_path: Path, slurm: dict[str, queue.Job]) -> None:
    folder = submitted(tmp_path)
    with results.lock(folder) as mine:
        assert mine
        jobs.settle([folder])
    assert results.status(folder) == "running"
    jobs.settle([folder])
    assert results.status(folder) == "failed"


def test_a_slurm_that_does_not_answer_is_a_warning(
    tmp_path: Path, slurm: dict[str, queue.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = submitted(tmp_path), list[str]()
    monkeypatch.setattr(queue, "_ask", lambda command: (_ for _ in ()).throw(queue.QueueError("squeue: no route")))
    monkeypatch.setattr(queue, "jobs", lambda ids: queue._ask([]))  # type: ignore[arg-type]
    assert jobs.settle([folder], said.append) == {}
    assert said == ["squeue: no route; what is shown is what the runs' own records say"]
    assert results.status(folder) == "running"


def test_a_command_that_hangs_or_is_missing_is_a_queue_error() -> None:
    with pytest.raises(queue.QueueError, match=r"sleep has not answered within 0\.1 s"):
        queue._ask(["sleep", "10"], 0.1)
    with pytest.raises(queue.QueueError, match="no-such-command cannot be started"):
        queue._ask(["no-such-command"])
    with pytest.raises(queue.QueueError, match="ls: cannot access"):
        queue._ask(["ls", "/no/such/folder"])


def test_a_submitted_run_needs_no_launcher(tmp_path: Path) -> None:
    folder = submitted(tmp_path)
    (folder.parent / f".{folder.name}.lock").touch()  # as a launcher that was killed leaves it
    assert [run.status for run in find_runs(tmp_path)] == ["running"]
    (folder / "job.json").unlink()
    assert [run.status for run in find_runs(tmp_path)] == ["interrupted"]
