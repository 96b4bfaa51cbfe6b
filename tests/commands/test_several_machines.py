"""One run on several machines without a scheduler: the same command on each (here: two launchers on this machine)."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commandline import SMALL, Done, content, finish, rows, start, the_run, type_in, until

pytestmark = pytest.mark.multiproc

RUN = (*SMALL, "algorithm=sgp", "nodes=2", "gpus_per_node=2", "launcher=local")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_node(rank: int, rendezvous: str) -> tuple[str, str]:
    return f"launcher.rendezvous={rendezvous}", f"launcher.node_rank={rank}"


def scores(run: Path) -> list[dict[str, Any]]:
    """What was evaluated, without the times."""
    return [{key: value for key, value in row.items() if key != "time_s"} for row in rows(run / "evaluations.jsonl")]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Done]]:
    """The run of two launchers; node 1's began first."""
    folder, rendezvous = tmp_path_factory.mktemp("both"), f"127.0.0.1:{free_port()}"
    launchers = [start(*RUN, *on_node(rank, rendezvous), cwd=folder) for rank in (1, 0)]
    return folder, [finish(launcher) for launcher in reversed(launchers)]


def test_they_make_one_run(both: tuple[Path, list[Done]]) -> None:
    folder, [node_0, node_1] = both
    assert (node_0.status, node_0.stderr) == (0, "")
    assert (node_1.status, node_1.stderr) == (0, "")
    run = the_run(folder)
    assert content(run / "state.json")["status"] == "finished"
    assert len(list(run.glob("rank-*.jsonl"))) == 4
    assert content(run / "summary.json")["workers"] == 2
    assert "(mean model)" in node_0.lines[-1]
    assert f"node 1 has done its part  {run.relative_to(folder)}" in node_1.lines[-1]


def test_it_is_the_run_of_one_launcher(both: tuple[Path, list[Done]], tmp_path: Path) -> None:
    assert type_in(*RUN, cwd=tmp_path).status == 0
    one, two = the_run(tmp_path), the_run(both[0])
    assert one.name == two.name  # the same identity
    assert scores(one) == scores(two)  # to the last bit


def test_a_node_that_nobody_joins_can_be_interrupted_and_gives_up(tmp_path: Path, here: Callable[..., Done]) -> None:
    rendezvous = f"127.0.0.1:{free_port()}"
    alone = start(*RUN, *on_node(0, rendezvous), cwd=tmp_path)
    until(lambda: list(tmp_path.glob("results/runs/*/*/state.json")), "node 0 waits")
    until(lambda: content(the_run(tmp_path) / "state.json")["status"] == "queued", "node 0 says so")
    alone.send_signal(signal.SIGINT)
    assert finish(alone).status == 130
    assert content(the_run(tmp_path) / "state.json")["status"] == "interrupted"

    impatient = here(*RUN, *on_node(1, rendezvous), "launcher.timeout_s=1")
    assert impatient.status == 1
    assert "node 0 has not come within launcher.timeout_s=1" in impatient.stdout
    assert content(the_run(tmp_path) / "state.json")["status"] == "interrupted"  # it is node 0's to write
