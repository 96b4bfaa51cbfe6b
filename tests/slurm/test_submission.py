"""What `run-experiment` hands to a real SLURM, what SLURM makes of it, and what is refused before anything is made."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands.commandline import Done, content, finish, runs, start, the_run, type_in
from omegaconf import OmegaConf

from runner.launchers import sbatch
from runner.main import main

PATIENCE_S = 300  # others may use the same nodes
ON_SLURM = ("launcher=slurm", "launcher.mem=3G", "launcher.time=10", "device=cpu", "epochs=1", "model.hidden=[8]")
ALONE = ("nodes=1", "gpus_per_node=1")
HELD = "launcher.additional_parameters={hold: true}"
HOSTILE = 'it\'s a "b"; $(touch c) `touch d` #e &f |g* é [h]'

Here = Callable[..., Done]


@pytest.fixture
def here(slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs `run-experiment` in this process, which has torch loaded, below the folder of the test."""
    monkeypatch.chdir(slurm)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def here(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["run-experiment", *ON_SLURM, *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, *capsys.readouterr())

    return here


def status(run: Path) -> str:
    return str(content(run / "state.json")["status"])


def job(run: Path) -> str:
    return str(content(run / "job.json")["job"])


def finished(folder: Path, count: int = 1) -> list[Path]:
    """The runs below a folder, once all of them have finished."""
    deadline = time.monotonic() + PATIENCE_S
    while not (len(runs(folder)) == count and all((run / "summary.json").exists() for run in runs(folder))):
        states = {run.name: content(run / "state.json") for run in runs(folder)}
        assert "failed" not in {state["status"] for state in states.values()}, states
        raised = [path.read_text() for run in runs(folder) for path in run.glob("log/*.error.json")]
        assert not raised, raised  # its state says so only once somebody looks
        assert time.monotonic() < deadline, states
        time.sleep(0.2)
    return runs(folder)


def release(run: Path) -> None:
    subprocess.run(["scontrol", "release", job(run)], check=True)


def test_submitted_and_returned(slurm: Path) -> None:
    typed = (*ON_SLURM[1:], "algorithm=sgp", "nodes=2", "gpus_per_node=2")
    done = type_in(*typed, HELD, cwd=slurm, DISTSGD_LAUNCHER="")  # launcher=auto, and there is a SLURM
    assert (done.status, done.stderr) == (0, "")
    run = the_run(slurm)
    number = job(run)
    assert number.isdecimal()
    place = run.relative_to(slurm)
    assert f"sgp 2 nodes x 2 seed 0: submitted as job {number}  {place}" in done.lines
    assert done.lines[-1] == f"follow: experiments status, experiments logs {run.name}"
    assert status(run) == "queued"
    record = content(run / "job.json")
    results = slurm / "results"
    [submission] = (results / "runs/.slurm").iterdir()
    assert results / record["log"] == submission
    script = (results / record["script"]).read_text()
    assert "#SBATCH --nodes=2\n" in script

    shown = type_in(*typed, HELD, "launcher=slurm", "dry_run=true", cwd=slurm).stdout
    planned = shown[shown.index("#!/bin/bash") : shown.index("\n# sbatch --test-only")].splitlines()
    name = next(line for line in planned if "--output" in line).split("/")[-2]
    assert [line.replace(name, submission.name) for line in planned if line] == [*filter(None, script.splitlines())]

    again = type_in(*typed, "launcher=slurm", cwd=slurm)
    assert f"sgp 2 nodes x 2 seed 0: is queued as job {number}, skipped  {place}" in again.lines
    release(run)
    assert finished(slurm) == [run]
    assert content(run / "summary.json")["workers"] == 2
    again = type_in(*typed, "launcher=slurm", cwd=slurm)
    assert f"sgp 2 nodes x 2 seed 0: already finished, skipped (rerun=true runs it again)  {place}" in again.lines
    assert len(list((results / "runs/.slurm").iterdir())) == 1


def test_what_waits_is_not_reached_by_edits(slurm: Path) -> None:
    """Neither of the YAML, nor, with a snapshot, of the code: a user's own algorithm from the current directory."""
    code = "from dataclasses import dataclass\nfrom algorithms.local_sgd import LocalSGD\nimport helper\n\n\n"
    code += "@dataclass\nclass Mine(LocalSGD):\n    period: int = helper.PERIOD\n"
    (slurm / "mine.py").write_text(code)
    (slurm / "helper.py").write_text("PERIOD = 8\n")
    option = slurm / "conf/algorithm/mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: mine.Mine\nworker: gpu\nperiod: 5\n")
    own = ("algorithm=mine", "--config-dir", "conf", "launcher.snapshot=true", *ALONE)
    done = type_in(*ON_SLURM, *own, HELD, cwd=slurm)
    assert done.status == 0, done.stderr
    option.write_text("_target_: mine.Mine\nworker: gpu\nperiod: 7\n")
    (slurm / "mine.py").write_text("raise RuntimeError('edited')\n")
    (slurm / "helper.py").write_text("raise RuntimeError('edited')\n")
    release(the_run(slurm))
    [run] = finished(slurm)
    assert OmegaConf.load(run / "config.yaml").algorithm.period == 5


def test_without_a_snapshot_the_tasks_find_the_users_own_algorithm_too(slurm: Path) -> None:
    (slurm / "mine.py").write_text("from algorithms.allreduce import AllReduce as Mine\n")
    (slurm / "random.py").write_text("raise RuntimeError('not the one of the standard library')\n")
    option = slurm / "conf/algorithm/mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: mine.Mine\n")
    done = type_in(*ON_SLURM, *ALONE, "algorithm=mine", "--config-dir", "conf", cwd=slurm)
    assert done.status == 0, done.stderr
    finished(slurm)


@pytest.mark.slow
def test_a_sweep_and_what_is_missing_of_it(slurm: Path) -> None:
    sweep = ("-m", *ON_SLURM, *ALONE, "algorithm=allreduce,sgp", "seed=range(6)", "launcher.array_parallelism=3")
    done = type_in(*sweep, cwd=slurm)
    assert done.status == 0, done.stderr
    first = {job(run) for run in runs(slurm)}
    assert len(first) == 12
    [array] = {number.partition("_")[0] for number in first}
    assert first == {f"{array}_{cell}" for cell in range(12)}
    [script] = (slurm / "results/runs/.slurm").glob("*/*_submission.sh")
    assert "#SBATCH --array=0-11%3\n" in script.read_text()
    cells = finished(slurm, 12)

    deleted, failed = cells[2:4], cells[7]
    for run in deleted:
        shutil.rmtree(run)
    (failed / "summary.json").unlink()
    (failed / "state.json").write_text(json.dumps({"status": "failed", "reason": "so says the test"}))
    done = type_in(*sweep, HELD, cwd=slurm)
    assert done.status == 0, done.stderr
    assert sum("already finished, skipped" in line for line in done.lines) == 9
    submitted = {Path(line.split()[-1]).name for line in done.lines if ": submitted as job " in line}
    assert submitted == {run.name for run in (*deleted, failed)}
    [again] = {job(slurm / run.relative_to(slurm)).partition("_")[0] for run in (*deleted, failed)}
    queued = subprocess.run(["squeue", "-h", "-r", "-o", "%i", "-j", again], check=True, capture_output=True, text=True)
    assert sorted(queued.stdout.split()) == [f"{again}_{cell}" for cell in range(3)]


def test_servers_on_a_node_of_their_own(slurm: Path) -> None:
    servers = ("algorithm=easgd", "server.shards=2", "server.placement=own", "nodes=2", "gpus_per_node=1")
    done = type_in(*ON_SLURM, *servers, cwd=slurm)
    assert done.status == 0, done.stderr
    [run] = finished(slurm)
    script = (slurm / "results" / content(run / "job.json")["script"]).read_text()
    assert "#SBATCH --nodes=3\n" in script
    assert "#SBATCH --ntasks-per-node=2\n" in script
    assert sorted(path.name for path in run.glob("log/rank-*.log")) == [f"rank-0000{rank}.log" for rank in range(4)]


def test_hostile_names(slurm: Path) -> None:
    here = slurm / HOSTILE / "x"
    here.mkdir(parents=True)
    done = type_in(*ON_SLURM, *ALONE, "results_dir=../r/../s", "launcher.snapshot=true", cwd=here)
    assert done.status == 0, done.stderr
    place = slurm / HOSTILE / "s"
    [run] = place.glob("runs/allreduce/*")
    deadline = time.monotonic() + PATIENCE_S
    while not (run / "summary.json").exists():
        assert status(run) != "failed", content(run / "state.json")
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {path.name for path in slurm.iterdir()} == {HOSTILE}  # nothing was touched
    assert {path.name for path in here.iterdir()} == set()
    [submission] = (place / "runs/.slurm").iterdir()
    assert (submission / f"{job(run)}_0_log.err").exists()


REFUSED = {
    "launcher.partition=nope": ["launcher.partition=nope", "sbatch says: invalid partition specified: nope", "sinfo"],
    "nodes=100": ["nodes: the job needs 100", "partition", "use fewer"],
    "launcher.time=1h": ["launcher.time=1h", "HH:MM:SS"],
    "launcher.time=9999-0": ["launcher.time=14398560 minutes", "allows 60"],
    "launcher.mem=900T": ["mem=900T", "Requested node configuration is not available", "use fewer nodes"],
    "launcher.constraint=nowhere": ["launcher.constraint=nowhere", "Invalid feature specification"],
    "launcher.additional_parameters={bogus: 1}": ["launcher.additional_parameters", "--bogus"],
}


def all_nodes_up() -> list[str]:
    """The names of all nodes, once none of them is down, as they are for a while after tests that end them."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %t"], check=True, capture_output=True, text=True)
        states = dict(line.split() for line in done.stdout.splitlines())
        if set(states.values()) <= sbatch.UP:
            return list(states)
        assert time.monotonic() < deadline, states
        time.sleep(0.5)


@pytest.mark.parametrize("typed", REFUSED)
def test_refused_before_anything_is_made(typed: str, here: Here, slurm: Path) -> None:
    all_nodes_up()
    done = here(*ALONE, typed)
    assert done.status == 2
    assert "submitted" not in done.stdout
    assert done.stderr.startswith("run-experiment: ")
    assert len(done.stderr.splitlines()) == 1
    for fragment in REFUSED[typed]:
        assert fragment in done.stderr
    assert not [path for path in slurm.rglob("*") if path.is_file()]


def test_nodes_that_are_down_for_now_are_waited_for(here: Here, slurm: Path) -> None:
    """`sbatch --test-only` refuses such a job, sbatch does not."""
    nodes = all_nodes_up()
    drain = ["scontrol", "update", f"nodename={nodes[-1]}", "state=drain", "reason=test"]
    if subprocess.run(drain, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to drain a node")
    try:
        done = here("gpus_per_node=1", f"nodes={len(nodes)}", HELD)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={nodes[-1]}", "state=resume"], check=True)
    assert done.status == 0, done.stderr
    assert "submitted as job" in done.stdout


def test_of_a_sweep_all_or_none_is_submitted(here: Here, slurm: Path) -> None:
    done = here("-m", "gpus_per_node=1", "nodes=1,2,100", HELD)
    assert done.status == 2
    assert "nodes: the job needs 100" in done.stderr
    assert not [path for path in slurm.rglob("*") if path.is_file()]


def test_refused_after_all(here: Here, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that only sbatch itself knows of: the run has failed, with its words; typed again, it is submitted."""
    with monkeypatch.context() as unchecked:
        unchecked.setattr(sbatch, "check", lambda *_: "")
        done = here(*ALONE, "launcher.partition=nope", HELD)
    assert done.status == 1
    assert "not submitted" in done.stdout
    assert "launcher.partition=nope: sbatch says: " in done.stdout
    run = the_run(slurm)
    assert status(run) == "failed"
    assert "invalid partition specified: nope" in content(run / "state.json")["reason"]
    assert not (run / "job.json").exists()
    assert "submitted as job" in here(*ALONE, HELD).stdout
    assert status(run) == "queued"


def test_two_submitters_submit_once(slurm: Path) -> None:
    typed = ("-m", *ON_SLURM, *ALONE, "seed=range(3)", HELD)
    both = [finish(process) for process in [start(*typed, cwd=slurm) for _ in range(2)]]
    assert [done.status for done in both] == [0, 0]
    submitted = [line for done in both for line in done.lines if ": submitted as job " in line]
    skipped = [line for done in both for line in done.lines if line.partition("  ")[0].endswith(", skipped")]
    assert (len(submitted), len(skipped)) == (3, 3)
    assert len({job(run) for run in runs(slurm)}) == 3


def test_a_submission_that_was_killed_is_made_again(here: Here, slurm: Path) -> None:
    """After the folder is made and before job.json: it says queued, nobody holds it, and there is no job."""
    assert here(*ALONE, HELD).status == 0
    run = the_run(slurm)
    subprocess.run(["scancel", job(run)], check=True)
    (run / "job.json").unlink()
    assert "submitted as job" in here(*ALONE, HELD).stdout


def test_a_job_that_was_cancelled_while_it_waited_is_submitted_again(here: Here, slurm: Path) -> None:
    assert here(*ALONE, HELD).status == 0
    number = job(the_run(slurm))
    subprocess.run(["scancel", number], check=True)
    again = here(*ALONE, HELD)
    assert "submitted as job" in again.stdout
    assert job(the_run(slurm)) != number


def test_what_is_typed_arrives(here: Here, slurm: Path) -> None:
    setup = """launcher.setup=["export OF_THE_TEST='a  b'", 'printf %s "$OF_THE_TEST" > of_the_test']"""
    done = here(*ALONE, setup, 'launcher.srun_args=["--job-name=x  y"]', "launcher.comment=\"c  'd'\"")
    assert done.status == 0, done.stderr
    run = the_run(slurm)
    shown = subprocess.run(["scontrol", "show", "job", job(run)], check=True, capture_output=True, text=True).stdout
    assert "Comment=c  'd'" in shown
    finished(slurm)
    assert (slurm / "of_the_test").read_text() == "a  b"
    script = (slurm / "results" / content(run / "job.json")["script"]).read_text()
    [command] = [shlex.split(line) for line in script.splitlines() if line.startswith("srun ")]
    assert "--job-name=x  y" in command
