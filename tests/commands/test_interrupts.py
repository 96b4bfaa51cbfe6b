"""Ctrl-C and other signals end everything and leave the run marked; two launchers do not run the same run at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import content, finish, rows, session, start, the_run, type_in, until

pytestmark = pytest.mark.multiproc

LONG = ("algorithm=sgp", "nodes=2", "device=cpu", "model.hidden=[16]", "epochs=100000", "evaluation.every=100000")
SLOW_TO_PREPARE = """
import pathlib, time
import models

def slow(shape, classes):
    pathlib.Path("preparing").touch()
    time.sleep(600)
"""

Signal = Callable[[subprocess.Popen[str]], None]


def to_the_group(process: subprocess.Popen[str]) -> None:
    """Ctrl-C on a terminal."""
    os.killpg(process.pid, signal.SIGINT)


def to_the_launcher(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def impatiently(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and again."""
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


def under_way(folder: Path) -> bool:
    """Whether both processes of the run have written rows."""
    return len([file for file in folder.glob("results/runs/*/*/rank-*.jsonl") if rows(file)]) == 2


@pytest.mark.parametrize(
    ("send", "name"),
    [(to_the_group, "SIGINT"), (to_the_launcher, "SIGINT"), (impatiently, "SIGINT"), (terminate, "SIGTERM")],
    ids=["ctrl-c", "launcher-alone", "twice", "sigterm"],
)
def test_a_signal_stops_everything(tmp_path: Path, send: Signal, name: str) -> None:
    process = start("-m", *LONG, "seed=0,1", cwd=tmp_path)
    until(lambda: under_way(tmp_path), "the run is under way")
    send(process)
    done = finish(process)
    assert done.status == 130
    assert done.stderr == ""
    assert f"stopped by {name}; the same command runs it again" in done.lines[-1]
    run = the_run(tmp_path)  # and the second cell has not begun
    state = content(run / "state.json")
    assert (state["status"], state["reason"]) == ("interrupted", f"stopped by {name}")
    assert not (run / "summary.json").exists()


def test_two_launchers_of_one_run(tmp_path: Path) -> None:
    process = start(*LONG, cwd=tmp_path)
    until(lambda: under_way(tmp_path), "the run is under way")
    second = type_in(*LONG, cwd=tmp_path)
    assert second.status == 0
    assert "is running in another process, skipped" in second.lines[-1]
    assert second.lines[-1].endswith(str(the_run(tmp_path).relative_to(tmp_path)))
    assert content(the_run(tmp_path) / "state.json")["status"] == "running"
    assert len(session(process.pid)) > 2  # undisturbed

    process.kill()  # kill -9 of a launcher leaves no worker behind, and its run can run again
    assert finish(process).status == -signal.SIGKILL
    again = start(*LONG, cwd=tmp_path)
    until(lambda: list(tmp_path.glob("results/runs/sgp/.earlier/*")), "the earlier attempt is set aside")
    until(lambda: under_way(tmp_path), "the run is under way")
    to_the_group(again)
    assert finish(again).status == 130


def test_ctrl_c_before_the_run_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "slow_model.py").write_text(SLOW_TO_PREPARE)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/slow.yaml").write_text("_target_: slow_model.slow\n")
    process = start("model=slow", "--config-dir", "conf", cwd=tmp_path)
    until((tmp_path / "preparing").exists, "the configuration is being checked")
    to_the_group(process)
    done = finish(process)
    assert (done.status, done.stdout, done.stderr) == (130, "", "")
    assert not (tmp_path / "results").exists()
