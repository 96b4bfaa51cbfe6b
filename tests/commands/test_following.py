"""Following a run of real processes as people do: status, logs, wait, cancel; then running it again from its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from commandline import SMALL, content, finish, rows, start, the_run, type_in, until

pytestmark = pytest.mark.multiproc

LONG = ("algorithm=sgp", "nodes=2", "device=cpu", "model.hidden=[16]", "epochs=100000")


def status(folder: Path) -> dict[str, Any]:
    done = type_in("status", "--json", cwd=folder, command="experiments")
    [row] = json.loads(done.stdout)["rows"]
    assert isinstance(row, dict)
    return row


def test_a_run_is_followed_to_its_end(tmp_path: Path) -> None:
    process = start(*LONG, cwd=tmp_path)
    until(lambda: list(tmp_path.glob("results/runs/sgp/*/evaluations.jsonl")), "it has been evaluated")
    run = the_run(tmp_path)
    row = status(tmp_path)
    assert (row["status"], row["epochs"], row["job"]) == ("running", 100_000, None)
    assert 0 < row["epoch"] < 100_000
    assert row["left_s"] > row["time_s"] > 0
    assert 0 < row["top1"] <= 1

    waited = type_in("wait", "--timeout", "0.5", cwd=tmp_path, command="experiments")
    assert waited.status == 124
    assert "running  epoch " in waited.lines[0]
    cancelled = type_in("cancel", run.name[:6], cwd=tmp_path, command="experiments")
    assert cancelled.status == 1
    assert "press Ctrl-C where it was started" in cancelled.stderr
    assert content(run / "state.json")["status"] == "running"

    followers = [start("logs", run.name[:6], "-f", cwd=tmp_path, command="experiments")]
    followers.append(start("wait", cwd=tmp_path, command="experiments"))
    with (run / "log/rank-00000.log").open("a") as log:
        log.write("hear me\n")
    process.send_signal(signal.SIGINT)
    finish(process)
    logs, waited = map(finish, followers)
    assert (logs.status, logs.lines) == (0, ["hear me"])
    assert logs.stderr.endswith("==> interrupted (stopped by SIGINT) <==\n")
    assert waited.status == 1
    assert waited.lines[-1] == "1 interrupted"
    assert status(tmp_path)["reason"] == "stopped by SIGINT"


def test_a_stopped_run_is_run_again_as_it_was_configured(tmp_path: Path) -> None:
    """From its own folder: neither the command line nor the YAML files count any more."""
    done = type_in(*SMALL, "algorithm=dpsgd", "nodes=2", cwd=tmp_path)
    assert done.status == 0, done.stderr
    run = the_run(tmp_path)
    first = rows(run / "evaluations.jsonl")
    (run / "summary.json").unlink()
    state = {"status": "interrupted", "reason": "stopped by SIGTERM", "updated": "2026-02-03T04:05:06+00:00"}
    (run / "state.json").write_text(json.dumps(state))
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = type_in("resubmit", "--results-dir", "../results", run.name, cwd=elsewhere, command="experiments")
    assert again.status == 0, again.stderr
    assert content(run / "state.json")["status"] == "finished"
    for before, after in zip(first, rows(run / "evaluations.jsonl"), strict=True):
        assert before | {"time_s": 0} == after | {"time_s": 0}
    assert os.listdir(elsewhere) == []  # noqa: PTH208
    refused = type_in("resubmit", run.name, cwd=tmp_path, command="experiments")
    assert refused.status == 1
