"""A sweep's virtual runs go side by side; each is what it would be alone, and a failing or stopped one is told of."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import SMALL, Done, content, finish, runs, start, type_in, until

SWEEP = ("-m", "launcher=simulated", *SMALL, "algorithm=sgp,allreduce", "nodes=4", "gpus_per_node=1", "seed=0,1")
LONG = ("-m", "launcher=simulated", "model.hidden=[16]", "nodes=2", "gpus_per_node=1", "epochs=100000", "seed=0,1,2,3")

Here = Callable[..., Done]


def told(folder: Path) -> dict[str, bytes]:
    """By run and file, what each run has written about its course."""
    names = ("evaluations.jsonl", "summary.json", "rank-00000.jsonl")
    return {f"{run.name}/{name}": (run / name).read_bytes() for run in folder.glob("runs/*/*") for name in names}


def test_runs_are_the_same_one_at_a_time_and_three(tmp_path: Path, here: Here) -> None:
    found = []
    for at_once in (1, 3):
        done = here(*SWEEP, f"launcher.at_once={at_once}", f"results_dir={at_once}")
        assert (done.status, done.stderr) == (0, "")
        found.append(told(tmp_path / str(at_once)))
        ended = [line.partition(" ")[0] for line in done.lines if " per epoch  " in line]
        assert sorted(ended) == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert found[0] == found[1]
    assert len(found[0]) == 12
    again = here(*SWEEP, "results_dir=1")
    assert sum("already finished, skipped" in line for line in again.lines) == 4


def test_one_that_fails_stops_no_other(tmp_path: Path, here: Here) -> None:
    (tmp_path / "mine.py").write_text(
        "import multiprocessing\n"
        "from torch import nn\n"
        "def linear(shape, classes, fails=False):\n"
        "    if fails and multiprocessing.parent_process():  # not where it is tried first\n"
        "        raise OSError('no such luck')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("_target_: mine.linear\nfails: false\n")
    line = ("launcher=simulated", "nodes=2", "gpus_per_node=1", "epochs=1", "model=mine", "--config-dir", "conf")
    bad = here("-m", *line, "model.fails=true,false", "launcher.at_once=2")
    assert "no such luck" in bad.stdout
    assert bad.status == 1
    assert sum("failed" in line for line in bad.lines) == 1
    assert sum("per epoch" in line for line in bad.lines) == 1


@pytest.mark.parametrize("to_all", [True, False])
def test_stopping_stops_all_and_begins_no_more(to_all: bool, tmp_path: Path) -> None:
    process = start(*LONG, "launcher.at_once=2", cwd=tmp_path)

    def both_train() -> bool:
        files = [run / "rank-00000.jsonl" for run in runs(tmp_path)]
        return len(files) == 2 and all(file.exists() and file.stat().st_size for file in files)

    until(both_train, "two runs train")
    if to_all:
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does, twice
            time.sleep(0.1)
    else:
        process.send_signal(signal.SIGTERM)
    done = finish(process)  # nothing is left behind
    number = signal.SIGINT if to_all else signal.SIGTERM
    assert (done.status, done.stderr) == (128 + number, "")
    assert sum(f"stopped by {number.name}; the same command runs it again" in line for line in done.lines) == 2
    states = [content(run / "state.json") for run in runs(tmp_path)]
    assert [state["status"] for state in states] == ["interrupted"] * 2


def test_killing_the_launcher_ends_all(tmp_path: Path) -> None:
    process = start(*LONG, "launcher.at_once=2", cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("results/runs/*/*/rank-00000.jsonl"))) == 2, "two runs have begun")
    process.kill()
    assert finish(process).status == -signal.SIGKILL  # and nothing is left behind


def test_a_summary_that_cannot_be_read_is_made_again(tmp_path: Path, here: Here) -> None:
    line = (*SMALL, "launcher=simulated", "nodes=2", "gpus_per_node=1")
    here(*line)
    [run] = runs(tmp_path)
    whole = (run / "summary.json").read_bytes()
    (run / "summary.json").write_bytes(whole[:100])
    assert "cannot be read, it is set aside and the run made again" in here(*line).stdout
    assert (run / "summary.json").read_bytes() == whole
    [earlier] = run.parent.glob(".earlier/*")
    assert (earlier / "summary.json").read_bytes() == whole[:100]


def test_several_studies_share_their_runs(tmp_path: Path) -> None:
    done = type_in(
        *(
            "experiment=sgp/scaling,sgp/slow_nodes",
            "algorithm=sgp",
            "nodes=4",
            "problem.train_samples=25600",
            "dry_run=true",
        ),
        cwd=tmp_path,
    )
    headings = [line for line in done.lines if line.startswith("# ")]
    assert len(headings) == len({line.split()[-1] for line in headings}) > 3
    assert len({line.partition(":")[0] for line in headings}) == len(headings)  # each says how it differs
