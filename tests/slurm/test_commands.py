"""`experiments status | logs | cancel | wait | resubmit` for runs on a real SLURM, whatever becomes of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands.commandline import BIN, SMALL, Done, content, finish, runs, start, the_run, type_in, until
from omegaconf import OmegaConf

BREAKS = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from algorithms.allreduce import AllReduce

@dataclass
class Breaks(AllReduce):
    how: str = "never"
    when: str = ""  # this file is there

    async def run(self, worker):
        async for x in super().run(worker):
            yield x
            time.sleep(0.02)
            if worker.rank == 1 and self.how != "dawdles" and Path(self.when).exists():
                print("last words", flush=True)
                if self.how == "raises":
                    raise RuntimeError("the disk is full")
                if self.how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.how == "eats":
                    food = [b"x" * 3_000_000_000]
                    time.sleep(60)
"""
HOW = ["raises", "killed", "eats", "dawdles"]
PAIR = ("nodes=2", "gpus_per_node=1", "device=cpu", "model.hidden=[16]", "launcher=slurm")
LONG = (*PAIR, "algorithm=sgp", "epochs=100000", "evaluation.every=10")


def experiments(*arguments: str, cwd: Path) -> Done:
    return type_in(*arguments, cwd=cwd, command="experiments")


def status(folder: Path, *which: str) -> dict[str, dict[str, Any]]:
    """By identity."""
    rows = json.loads(experiments("status", "--json", *which, cwd=folder).stdout)["rows"]
    return {row["identity"]: row for row in rows}


def queued(*jobs: str) -> list[str]:
    """Those of these jobs that squeue lists."""
    command = ["squeue", "--noheader", "--array", "--format=%i"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted(set(done.stdout.split()) & set(jobs))


def job_of(run: Path) -> str:
    return str(content(run / "job.json")["job"])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Done, Done]]:
    """An array over the ways in which rank 1 may end, what submitting it printed and what waiting for its end did.

    Nothing breaks before the command that waits has told of all runs: else it might find them broken.
    """
    folder = tmp_path_factory.mktemp("broken")
    (folder / "breaks.py").write_text(BREAKS)
    (folder / "conf/algorithm").mkdir(parents=True)
    told_of_all = folder / "told_of_all"
    (folder / "conf/algorithm/breaks.yaml").write_text(f"_target_: breaks.Breaks\nhow: never\nwhen: {told_of_all}\n")
    limits = ("launcher.mem=3G", "launcher.time=1", "launcher.signal_delay_s=0", "launcher.requeue=false")
    sweep = ("-m", "algorithm=breaks", f"algorithm.how={','.join(HOW)}", "epochs=100000", "--config-dir", "conf")
    submitted = type_in(*sweep, *PAIR, *limits, cwd=folder)
    jobs = [job_of(run) for run in runs(folder)]
    try:
        waiting = start("wait", cwd=folder, command="experiments")
        assert waiting.stdout is not None
        told = ""
        for line in waiting.stdout:
            told += line
            if all(run.name in told for run in runs(folder)):
                told_of_all.touch()
        waited = replace(finish(waiting), stdout=told)
        yield folder, submitted, waited
    finally:
        subprocess.run(["scancel", "--quiet", *jobs], check=False)


def by_how(folder: Path) -> dict[str, Path]:
    return {str(OmegaConf.load(run / "config.yaml").algorithm.how): run for run in runs(folder)}


def test_waiting_tells_each_change_and_that_not_all_is_well(broken: tuple[Path, Done, Done]) -> None:
    folder, submitted, waited = broken
    assert submitted.status == 0, submitted.stderr
    assert waited.status == 1
    assert waited.lines[-1] == "3 failed, 1 interrupted"
    for run in runs(folder):
        told = [line.partition(": ")[2] for line in waited.lines if run.name in line]
        assert told[0].startswith(("queued as job", "running"))
        assert told[-1].startswith(("failed: ", "interrupted: "))


def test_each_failure_is_shown_as_what_it_was(broken: tuple[Path, Done, Done]) -> None:
    folder, _, _ = broken
    run = by_how(folder)
    jobs = [job_of(each) for each in run.values()]
    until(lambda: not queued(*jobs), "no job is left in the queue")  # one has said itself that it was stopped
    rows = status(folder)
    told = {how: (rows[run[how].name]["status"], rows[run[how].name]["reason"]) for how in HOW}
    assert told["raises"] == ("failed", "rank 1: RuntimeError: the disk is full")
    assert told["killed"][0] == "failed"
    assert re.fullmatch(r"rank 1 was killed by SIGKILL, on node n\d", told["killed"][1])
    assert told["eats"][0] == "failed"
    assert re.fullmatch(r"rank 1 ran out of memory: [\d,]+ MB used, 3,221 MB allowed", told["eats"][1])
    assert told["dawdles"][0] == "interrupted"
    assert told["dawdles"][1].startswith("time limit: job ")
    for how in HOW[:3]:
        assert rows[run[how].name]["log"] == str((run[how] / "log/rank-00001.log").relative_to(folder))
    people = experiments("status", cwd=folder)
    assert people.status == 1
    assert f"{run['killed'].name} failed: {told['killed'][1]}" in people.lines
    assert people.lines[-1] == "3 failed, 1 interrupted"


def test_the_logs_of_a_failure(broken: tuple[Path, Done, Done]) -> None:
    folder, _, _ = broken
    run = by_how(folder)
    raised = experiments("logs", run["raises"].name[:8], cwd=folder)
    assert raised.lines[0] == "last words"
    # Torch's C++ threads have been seen to add this one line, while a rank that has raised comes to its end.
    last = -2 if raised.lines[-1] == "terminate called without an active exception" else -1
    assert raised.lines[last].endswith("RuntimeError: the disk is full")
    assert raised.stdout.count("RuntimeError: the disk is full") == 1
    assert "rank-00001.log" in raised.stderr
    killed = experiments("logs", str(run["killed"].relative_to(folder)), "--submission", cwd=folder)
    assert any(re.fullmatch(r"srun: error: n\d: task 1: Killed", line) for line in killed.lines)
    assert experiments("logs", run["killed"].name, "--rank", "0", cwd=folder).status == 0


def test_other_readers_see_the_settled_states(broken: tuple[Path, Done, Done]) -> None:
    folder, _, _ = broken
    table = experiments("table", cwd=folder)
    assert table.status == 1
    assert "none of the runs has finished" in table.stderr
    listed = json.loads(experiments("list", "--format", "json", cwd=folder).stdout)["rows"]
    assert sorted(row["status"] for row in listed) == ["failed"] * 3 + ["interrupted"]


def test_waiting_cells_are_cancelled_resubmitted_and_run(slurm: Path) -> None:
    folder = slurm.parent
    held = "launcher.additional_parameters={hold: true}"
    typed = (*PAIR, *SMALL, "-m", "algorithm=dpsgd", "seed=0,1,2", held)
    assert type_in(*typed, cwd=folder).status == 0
    first = {run.name: job_of(run) for run in runs(folder)}
    assert {row["where"] for row in status(folder).values()} == {"JobHeldUser"}
    one, *others = sorted(first)

    done = experiments("cancel", one[:8], cwd=folder)
    assert done.lines == [f"results/runs/dpsgd/{one}: job {first[one]} cancelled"]
    assert queued(*first.values()) == sorted(first[other] for other in others)
    rows = status(folder)
    assert (rows[one]["status"], rows[one]["reason"]) == ("interrupted", "cancelled by the user")
    assert {rows[other]["status"] for other in others} == {"queued"}

    refused = experiments("cancel", "dpsgd", cwd=folder)
    assert (refused.status, "add --yes" in refused.stderr) == (2, True)
    experiments("cancel", *others, "--yes", cwd=folder)
    assert queued(*first.values()) == []
    assert experiments("wait", cwd=folder).status == 1
    assert experiments("cancel", "--all", "--yes", cwd=folder).status == 1  # nothing is left to cancel

    again = experiments("resubmit", one, others[0], cwd=folder)
    assert again.status == 0, again.stderr
    second = {run.name: job_of(run) for run in runs(folder)}
    assert second[others[1]] == first[others[1]]
    assert queued(*second.values()) == sorted({second[one], second[others[0]]} - set(first.values()))
    for job in queued(*second.values()):
        subprocess.run(["scontrol", "release", job], check=True)
    waited = experiments("wait", one, others[0], cwd=folder)
    assert (waited.status, waited.lines[-1]) == (0, "2 finished")


def test_a_running_job_is_followed_requeued_and_cancelled_for_good(slurm: Path) -> None:
    folder = slurm.parent
    assert type_in(*LONG, cwd=folder).status == 0
    run = the_run(folder)
    until(lambda: (run / "rank-00000.jsonl").exists() and (run / "rank-00000.jsonl").stat().st_size, "it trains")
    row = status(folder)[run.name]
    assert (row["status"], row["job"], row["restarts"], row["log"]) == ("running", job_of(run), 0, None)
    assert row["epoch"] > 0
    assert row["left_s"] > 0
    assert re.fullmatch(r"n\[?\d.*", row["where"])
    assert re.fullmatch(r"\d+:\d\d", row["job_left"])
    followers = [start(*words, cwd=folder, command="experiments") for words in (("logs", run.name, "-f"), ("wait",))]

    subprocess.run(["scontrol", "requeue", job_of(run)], check=True)
    until(lambda: status(folder)[run.name]["status"] == "queued", "it waits again")
    until(lambda: status(folder)[run.name]["status"] == "running", "it runs again")
    until(lambda: status(folder)[run.name]["restarts"] == 1, "it knows that it has begun again")
    assert experiments("cancel", run.name, cwd=folder).status == 0
    until(lambda: not queued(job_of(run)), "the job is gone")
    logs, waited = map(finish, followers)
    assert logs.status == 0
    assert (waited.status, waited.lines[-1]) == (1, "1 interrupted")
    state = content(run / "state.json")
    assert state["status"] == "interrupted"
    assert "cancelled" in state["reason"]


def test_a_slurm_that_is_not_there_leaves_the_records_standing(broken: tuple[Path, Done, Done], tmp_path: Path) -> None:
    folder, _, _ = broken
    run = by_how(folder)["killed"]
    before = content(run / "state.json")
    state = before | {"status": "running", "reason": None}
    (run / "state.json").write_text(json.dumps(state))
    try:
        done = type_in("status", run.name, cwd=folder, command="experiments", SLURM_CONF=str(tmp_path / "none"))
        assert done.status == 0
        assert re.search(r"warning: squeue.*; what is shown is what the runs' own records say", done.stderr)
        assert done.lines[2].startswith("running")
        away = type_in("status", run.name, cwd=folder, command="experiments", PATH=str(BIN))
        assert (away.status, away.stderr) == (0, "")
    finally:
        (run / "state.json").write_text(json.dumps(before))
