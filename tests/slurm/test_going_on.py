"""A job that is warned, requeued, or loses a node goes on from its checkpoint, and comes to the same end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands.commandline import content, runs, the_run, type_in
from continued import fields, last_parts, numbers

from runner import checkpoints

PATIENCE_S = 300
BOX = Path(__file__).parents[2] / "scripts/slurm_box"
RUN = ("nodes=2", "gpus_per_node=1", "device=cpu", "model.hidden=[16]", "batch_size=8", "epochs=12")
RUN = (*RUN, "evaluation.every=4", "optimizer.weight_decay=0.01", "checkpoint_every=20")
ON_SLURM = ("launcher=slurm", "launcher.mem=3G", "launcher.time=20")
SGP = ("algorithm=sgp", "algorithm.overlap=1", "algorithm.merge=exact")
HIER_AVG = ("algorithm=hier_avg", "algorithm.K1=2", "algorithm.K2=4", "algorithm.S=1")


def warn(run: Path) -> None:
    subprocess.run(["scancel", "--signal=USR2", job(run)], check=True)


def requeue(run: Path) -> None:
    subprocess.run(["scontrol", "requeue", job(run)], check=True)


def preempt(run: Path) -> None:
    """A job of a partition that comes first takes its nodes."""
    command = ["sbatch", "--parsable", "--nodes=4", "--exclusive", "--time=5", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(command, check=True, capture_output=True)


def kill_node(run: Path) -> None:
    """The second node of the job goes down, and comes back."""
    node = "n" + str(content(run / "state.json")["nodes"]).rstrip("]")[-1]
    subprocess.run([BOX, "kill", node], check=True)
    time.sleep(1)
    subprocess.run([BOX, "revive", node], check=True)


def job(run: Path) -> str:
    return str(content(run / "job.json")["job"])


def until(true: Callable[[], bool], run: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        state = content(run / "state.json")
        assert state["status"] not in ("failed", "interrupted"), state
        assert time.monotonic() < deadline, state
        time.sleep(0.1)


def disturbed(method: tuple[str, ...], happens: Callable[[Path], None], folder: Path, *more: str) -> Path:
    """The run, finished, to which that has happened after its first checkpoint."""
    done = type_in(*RUN, *ON_SLURM, *method, *more, cwd=folder)
    assert done.status == 0, done.stderr
    run = the_run(folder)
    until(lambda: checkpoints.newest(run) is not None, run)
    happens(run)
    until(lambda: (run / "summary.json").exists(), run)
    assert content(run / "summary.json")["restarts"] >= 1
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """The same run, undisturbed, by the local launcher."""
    known: dict[tuple[str, ...], Path] = {}

    def run(method: tuple[str, ...]) -> Path:
        if method not in known:
            folder = tmp_path_factory.mktemp("whole")
            done = type_in(*RUN, "launcher=local", *method, cwd=folder)
            assert done.status == 0, done.stderr
            known[method] = the_run(folder)
        return known[method]

    return run


def test_a_preempted_job_goes_on(slurm: Path, whole: Callable[[tuple[str, ...]], Path]) -> None:
    run = disturbed(SGP, preempt, slurm, "launcher.partition=preemptible")
    assert numbers(run) == numbers(whole(SGP))


def test_a_job_that_needs_more_than_its_time_goes_on_in_another(slurm: Path) -> None:
    typed = (*RUN, *ON_SLURM, *SGP, "checkpoint_every=null", "epochs=100", "evaluation.every=50")
    done = type_in(*typed, "launcher.time=1", "launcher.signal=USR1", "launcher.signal_delay_s=20", cwd=slurm)
    assert done.status == 0, done.stderr
    run = the_run(slurm)
    until((run / "rank-00000.jsonl").exists, run)
    # A fast machine would be done before it is warned. SLURM lets stopped processes go on when it signals them.
    subprocess.run(["scancel", "--signal=STOP", job(run)], check=True)
    until(lambda: checkpoints.newest(run) is not None, run)
    reason = content(run / "state.json")["reason"]
    until(lambda: (run / "summary.json").exists(), run)
    assert "after SIGUSR1" in reason
    assert content(run / "summary.json")["restarts"] >= 1


# A checkpoint on a signal comes at a step of its own, so where a reducer of gradients begins anew its sums may differ
# in the last bit; none of these methods has one.
@pytest.mark.parametrize("happens", [warn, requeue, kill_node])
@pytest.mark.parametrize("method", [SGP, HIER_AVG], ids=["sgp", "hier_avg"])
def test_it_comes_to_the_same_end(
    method: tuple[str, ...], happens: Callable[[Path], None], slurm: Path, whole: Callable[[tuple[str, ...]], Path]
) -> None:
    run = disturbed(method, happens, slurm)
    assert numbers(run) == numbers(whole(method))
    assert runs(slurm) == [run]


@pytest.mark.parametrize("happens", [warn, kill_node])
def test_no_exchange_is_lost_from_the_centre(happens: Callable[[Path], None], slurm: Path) -> None:
    run = disturbed(("algorithm=easgd", "algorithm.tau=3"), happens, slurm)
    *workers, centre = map(fields, last_parts(run))
    assert centre["k"] == sum(-(-worker["k"] // 3) for worker in workers)


def test_both_sides_of_every_average_are_kept(slurm: Path) -> None:
    run = disturbed(("algorithm=adpsgd",), requeue, slurm)
    active, passive = map(fields, last_parts(run))
    assert passive["averages"] == active["begun"] > 0
