"""The commands as people type them: started as processes of their own, watched from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
PATIENCE_S = 120  # for what takes seconds; a busy machine may need more

SMALL = ("device=cpu", "epochs=2", "model.hidden=[16]")
"""Overrides that make a run short."""


@dataclass
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def environment(**more: str) -> dict[str, str]:
    """The tests' own environment, without what would change how the commands print."""
    plain = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR", "PYTHONPATH")}
    return plain | more


def start(*arguments: str, cwd: Path, command: str = "run-experiment", **more: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, as a terminal would; `more` goes into its environment."""
    return subprocess.Popen(
        [str(BIN / command), *arguments],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a command; none of its processes may be left."""
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        until(lambda: not session(process.pid), "no process is left")
    finally:
        for pid in session(process.pid):
            os.kill(pid, 9)
    return Done(process.returncode, stdout, stderr)


def type_in(*arguments: str, cwd: Path, command: str = "run-experiment", **more: str) -> Done:
    """Type a command and wait for its end."""
    return finish(start(*arguments, cwd=cwd, command=command, **more))


def session(leader: int) -> list[int]:
    """The living processes of a session: all that the process which leads it has started, and their children."""
    living = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            living.append(int(folder.name))
    return living


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something has become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"after {PATIENCE_S} s it is still not so that {what}")
        time.sleep(0.05)


def runs(folder: Path) -> list[Path]:
    """The folders of all runs below a current directory, oldest first."""
    found = [run for run in folder.glob("results/runs/*/*") if not run.name.startswith(".") and run.is_dir()]
    return sorted((run for run in found if not run.parent.name.startswith(".")), key=lambda run: run.stat().st_ctime)


def the_run(folder: Path) -> Path:
    """The folder of the only run below a current directory."""
    [run] = runs(folder)
    return run


def content(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    loaded = json.loads(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
