"""Several machines begin one run without a scheduler: the same command typed on each, meeting in the run's folder.

The machine with node_rank 0 owns the folder. The run is queued until every other one has answered this attempt in
`log/`; only then does torch's rendezvous begin, which Ctrl-C cannot interrupt while someone is missing.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from runner.config import Config
from runner.launchers import RunFailedError
from runner.results import read_json, write_json, write_state

POLL_S = 0.1


def meet(folder: Path, config: Config) -> None:
    """Come back when all machines of the run are there.

    Raises:
        RunFailedError: one is still missing after `launcher.timeout_s`.
    """
    node = config["launcher"]["node_rank"]
    if node == 0:
        _gather(folder, config)
    else:
        _join(folder, config, node)


def _gather(folder: Path, config: Config) -> None:
    attempt = uuid.uuid4().hex
    missing = list(range(1, config["nodes"]))
    write_state(folder, "queued", "waiting for the other nodes", attempt=attempt)
    for waiting in _polls(config):
        missing = [node for node in missing if not _has_answered(folder, node, attempt)]
        if not missing:
            break
        if not waiting:
            raise _absent(missing[0], config)
    write_state(folder, "running", attempt=attempt)


def _join(folder: Path, config: Config, node: int) -> None:
    answered = None  # an attempt of this life: what an earlier one has left in the folder is no invitation
    for waiting in _polls(config):
        state = read_json(folder / "state.json") or {}
        if state.get("status") == "running" and answered is not None and state.get("attempt") == answered:
            break
        if state.get("status") == "queued" and state.get("attempt") and state["attempt"] != answered:
            answered = state["attempt"]
            write_json(_mark(folder, node), {"attempt": answered, "host": platform.node()})
        if not waiting:
            raise _absent(0, config)


def _has_answered(folder: Path, node: int, attempt: str) -> bool:
    return (read_json(_mark(folder, node)) or {}).get("attempt") == attempt


def _polls(config: Config) -> Iterator[bool]:
    """True until launcher.timeout_s have passed, then False."""
    deadline = time.monotonic() + config["launcher"]["timeout_s"]
    while time.monotonic() < deadline:
        yield True
        time.sleep(POLL_S)
    yield False


def _mark(folder: Path, node: int) -> Path:
    return folder / "log" / f"node-{node:05d}.json"


def _absent(node: int, config: Config) -> RunFailedError:
    return RunFailedError(
        f"node {node} has not come within launcher.timeout_s={config['launcher']['timeout_s']}; type the same command "
        f"on its machine, with launcher.node_rank={node} and the same results_dir"
    )
