"""A run that is killed, or stopped by a signal, goes on from its last checkpoint, and comes to the same end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commandline import content, finish, rows, runs, session, start, the_run, type_in, until
from continued import fields, last_parts, numbers

from runner import checkpoints

pytestmark = pytest.mark.multiproc

EPOCHS, EVERY = 12, 3  # 22 steps an epoch with 2 processes
RUN = ("launcher=local", "nodes=2", "device=cpu", "model.hidden=[16]", "batch_size=32", f"epochs={EPOCHS}")
WITHOUT_CHECKPOINTS = (*RUN, "evaluation.every=4", "optimizer.weight_decay=0.01")
RUN = (*WITHOUT_CHECKPOINTS, f"checkpoint_every={EVERY}")
SGP = ("algorithm=sgp", "algorithm.overlap=1", "algorithm.merge=exact")


def reached(folder: Path) -> int:
    """The step of the newest complete checkpoint of the only run."""
    found = [checkpoints.newest(run) for run in runs(folder)]
    return found[0]["step"] if found and found[0] else 0


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL for every process that the command has started, and itself."""
    while living := session(process.pid):
        for pid in living:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
    process.communicate()


def pid_of(rank: int, process: subprocess.Popen[str], run: Path) -> int:
    """The process that writes this rank's log."""
    log = run / f"log/rank-{rank:05d}.log"
    [pid] = [pid for pid in session(process.pid) if Path(f"/proc/{pid}/fd/1").resolve() == log]
    return pid


def kill_again_and_again(typed: tuple[str, ...], folder: Path, kills: int) -> None:
    """Start it, and kill all of it at some moment after another checkpoint or two; at last let it end."""
    chance = random.Random(len(typed))
    for _ in range(kills):
        process, mark = start(*typed, cwd=folder), reached(folder)
        further = chance.randrange(0, EPOCHS * 22 // (2 * kills))
        until(lambda mark=mark, more=further: reached(folder) >= mark + more, "it gets further")  # type: ignore[misc]
        kill_all(process)
    done = type_in(*typed, cwd=folder)
    assert done.status == 0, done.stderr + done.stdout
    assert "goes on from step" in done.stdout


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_it_comes_to_the_same_end_however_often_it_is_killed(kills: int, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert type_in(*RUN, *SGP, cwd=whole).status == 0
    kill_again_and_again((*RUN, *SGP), killed, kills)
    assert numbers(the_run(killed)) == numbers(the_run(whole))
    for mine, theirs in zip(last_parts(the_run(killed)), last_parts(the_run(whole)), strict=True):
        assert torch.equal(mine["x"], theirs["x"])
    summary = content(the_run(killed) / "summary.json")
    assert summary["restarts"] >= 1
    assert content(the_run(whole) / "summary.json")["restarts"] == 0
    assert len(list((the_run(killed) / "checkpoints").iterdir())) == checkpoints.KEPT


def test_no_exchange_is_lost_from_the_centre(tmp_path: Path) -> None:
    kill_again_and_again((*RUN, "algorithm=easgd", "algorithm.tau=3"), tmp_path, 2)
    *workers, centre = map(fields, last_parts(the_run(tmp_path)))
    assert centre["k"] == sum(-(-worker["k"] // 3) for worker in workers)
    evaluated = rows(the_run(tmp_path) / "evaluations.jsonl")
    assert [row["epoch"] for row in evaluated] == [4, 8, 12]
    assert evaluated[-1]["top1_centre"] > 0.8


def test_both_sides_of_every_average_are_kept(tmp_path: Path) -> None:
    kill_again_and_again((*RUN, "algorithm=adpsgd"), tmp_path, 2)
    active, passive = map(fields, last_parts(the_run(tmp_path)))
    assert passive["averages"] == active["begun"] > 0
    assert rows(the_run(tmp_path) / "evaluations.jsonl")[-1]["top1_mean_model"] > 0.8


@pytest.mark.parametrize("method", [SGP, ("algorithm=downpour", "server.shards=2"), ("algorithm=hier_avg",)], ids=str)
def test_a_signal_to_one_process_stops_all_of_them_at_a_checkpoint(method: tuple[str, ...], tmp_path: Path) -> None:
    typed = (*WITHOUT_CHECKPOINTS, *method)
    process = start(*typed, cwd=tmp_path)
    until(lambda: runs(tmp_path) and (runs(tmp_path)[0] / "rank-00000.jsonl").exists(), "rank 0 trains")
    os.kill(content(runs(tmp_path)[0] / "attempts.json")["pid"], signal.SIGUSR2)
    done = finish(process)
    run = the_run(tmp_path)
    step = reached(tmp_path)
    assert step > 0
    assert content(run / "state.json")["status"] == "interrupted", done.stdout
    assert f"stopped at step {step}, after SIGUSR2" in content(run / "state.json")["reason"]
    again = type_in(*typed, cwd=tmp_path)
    assert again.status == 0, again.stdout
    assert f"goes on from step {step}" in again.stdout
    if "algorithm=downpour" not in typed:
        whole = tmp_path / "whole"
        whole.mkdir()
        type_in(*typed, cwd=whole)
        assert numbers(run) == numbers(the_run(whole))


def test_a_lone_worker_has_checkpoints_too(tmp_path: Path) -> None:
    done = type_in(*RUN, "nodes=1", "algorithm=gossip_pull", cwd=tmp_path)
    assert done.status == 0, done.stdout
    assert reached(tmp_path) > 0


def test_a_signal_stops_it_also_when_worker_0_waits_for_the_others_to_finish(tmp_path: Path) -> None:
    typed = (*WITHOUT_CHECKPOINTS, "algorithm=easgd", "algorithm.tau=3", "algorithm.budget=equal")
    process = start(*typed, cwd=tmp_path)
    until(lambda: list(tmp_path.glob("results/runs/*/*/rank-00001.jsonl")), "worker 1 begins")
    run = the_run(tmp_path)
    frozen = pid_of(1, process, run)
    os.kill(frozen, signal.SIGSTOP)
    time.sleep(3)  # worker 0 comes to its end; were the machine too busy for that, the rest would hold all the same
    os.kill(pid_of(0, process, run), signal.SIGUSR2)
    os.kill(frozen, signal.SIGCONT)
    finish(process)
    assert content(run / "state.json")["status"] == "interrupted"
    assert "after SIGUSR2" in content(run / "state.json")["reason"]
    again = type_in(*typed, cwd=tmp_path)
    assert again.status == 0, again.stdout
    *workers, centre = map(fields, last_parts(run))
    assert centre["k"] == sum(-(-worker["k"] // 3) for worker in workers)
