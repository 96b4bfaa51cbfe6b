"""Ctrl-C and other signals end everything and leave the run marked; two launchers do not run the same run at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import Done, content, finish, runs, session, start, the_run, type_in, until

pytestmark = pytest.mark.multiproc

LONG = ("algorithm=sgp", "nodes=2", "device=cpu", "model.hidden=[16]", "epochs=100000", "evaluation.every=100000")
SWEEP = ("-m", *LONG, "seed=0,1")
SLOW_TO_PREPARE = """
import pathlib, time

def slow(shape, classes):
    pathlib.Path("preparing").touch()
    time.sleep(600)
"""


def start_training(folder: Path) -> subprocess.Popen[str]:
    """Start the sweep; come back when both processes of its first run train."""
    process = start(*SWEEP, cwd=folder)

    def training() -> bool:
        files = [run / f"rank-{rank:05d}.jsonl" for run in runs(folder) for rank in (0, 1)]
        return bool(files) and all(file.exists() and file.stat().st_size > 0 for file in files)

    until(training, "both processes train")
    return process


def check_interrupted(done: Done, folder: Path, name: str) -> None:
    """Everything has ended (`finish` has seen to that), in silence, and the run says why."""
    assert done.status == 128 + signal.Signals[name]
    assert done.stderr == ""
    assert done.lines[-1].endswith(f"stopped by {name}; the same command runs it again")
    run = the_run(folder)  # the second of the sweep has not begun
    state = content(run / "state.json")
    assert (state["status"], state["reason"]) == ("interrupted", f"stopped by {name}")
    assert not (run / "summary.json").exists()


def listed(folder: Path) -> list[tuple[str, str]]:
    """What `experiments list` says of each run: its status, and the reason up to the first semicolon."""
    done = type_in("list", "--format", "json", cwd=folder, command="experiments")
    assert done.status == 0
    return [(row["status"], row.get("reason", "").partition(";")[0]) for row in json.loads(done.stdout)["rows"]]


def test_ctrl_c_typed_twice(tmp_path: Path) -> None:
    process = start_training(tmp_path)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
        time.sleep(0.1)
    check_interrupted(finish(process), tmp_path, "SIGINT")


def test_two_launchers_then_sigint_to_one_alone(tmp_path: Path, here: Callable[..., Done]) -> None:
    process = start_training(tmp_path)
    second = here(*LONG)
    assert second.status == 0
    assert "is running in another process, skipped" in second.lines[-1]
    assert second.lines[-1].endswith(str(the_run(tmp_path).relative_to(tmp_path)))
    assert content(the_run(tmp_path) / "state.json")["status"] == "running"
    assert len(session(process.pid)) > 2  # undisturbed
    process.send_signal(signal.SIGINT)
    check_interrupted(finish(process), tmp_path, "SIGINT")


def test_killed_then_typed_again_then_terminated(tmp_path: Path) -> None:
    process = start_training(tmp_path)
    process.kill()
    assert finish(process).status == -signal.SIGKILL  # and no worker is left behind
    assert content(the_run(tmp_path) / "state.json")["status"] == "running"  # it had no time to say otherwise
    assert listed(tmp_path) == [("interrupted", "its launcher was killed, or its machine went down")]

    again = start(*SWEEP, cwd=tmp_path)
    until(lambda: list(tmp_path.glob("results/runs/sgp/.earlier/*")), "the earlier attempt is set aside")
    until(lambda: list(tmp_path.glob("results/runs/sgp/[!.]*/rank-00001.jsonl")), "the run runs again")
    assert listed(tmp_path) == [("running", "")]
    again.terminate()
    check_interrupted(finish(again), tmp_path, "SIGTERM")


def test_ctrl_c_before_the_run_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "slow_model.py").write_text(SLOW_TO_PREPARE)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/slow.yaml").write_text("_target_: slow_model.slow\n")
    process = start("model=slow", "--config-dir", "conf", cwd=tmp_path)
    until((tmp_path / "preparing").exists, "the configuration is being checked")
    os.killpg(process.pid, signal.SIGINT)
    done = finish(process)
    assert (done.status, done.stdout, done.stderr) == (130, "", "")
    assert not (tmp_path / "results").exists()
