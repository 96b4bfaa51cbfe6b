"""scripts/slurm_box: four nodes on which jobs run, and which can die and return."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BOX = Path(__file__).parents[2] / "scripts" / "slurm_box"
CONF = Path("/etc/slurm/slurm.conf")

pytestmark = pytest.mark.skipif(
    not (CONF.is_file() and "scripts/slurm_box" in CONF.read_text().partition("\n")[0]),
    reason="the SLURM of this machine was not started by scripts/slurm_box",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def box(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BOX, *arguments], check=False, capture_output=True, text=True)


def submit(folder: Path, *arguments: str) -> str:
    """Submit a job that writes into `folder`; its id."""
    command = ["sbatch", "--parsable", f"--output={folder}/out", "--open-mode=append", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_for(output: Path, text: str) -> None:
    end = time.monotonic() + 300
    while not (output.exists() and output.read_text() == text):
        assert time.monotonic() < end, output.read_text() if output.exists() else f"no {output}"
        time.sleep(0.1)


def test_status_shows_four_nodes() -> None:
    shown = box("status")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:5]] == ["n1", "n2", "n3", "n4"]


def test_a_job_runs_on_two_nodes_with_gpus_of_its_own(slurm: Path) -> None:
    command = "srun sh -c 'echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES'"
    submit(slurm, "--wait", "--nodelist=n2,n3", "--ntasks-per-node=2", "--gpus-per-node=2", f"--wrap={command}")
    tasks = [line.split() for line in (slurm / "out").read_text().splitlines()]
    assert sorted(tasks) == [["n2", "0", "0,1"], ["n2", "1", "0,1"], ["n3", "2", "0,1"], ["n3", "3", "0,1"]]


@as_root
def test_start_again_changes_nothing() -> None:
    daemons = {path: path.read_text() for path in CONF.resolve().parent.glob("*.pid")}
    assert len(daemons) == 6
    assert box("start").returncode == 0
    assert daemons == {path: path.read_text() for path in CONF.resolve().parent.glob("*.pid")}


@as_root
def test_a_job_of_a_node_that_dies_is_requeued_and_runs_when_the_node_is_back(slurm: Path) -> None:
    submit(slurm, "--nodelist=n4", '--wrap=echo life $SLURM_RESTART_COUNT; [ -n "$SLURM_RESTART_COUNT" ] || sleep 600')
    wait_for(slurm / "out", "life\n")
    try:
        assert box("kill", "n4").returncode == 0
        dead = box("status")
        assert dead.returncode == 1
        assert dead.stderr == "Not up: n4 (down). Try `scripts/slurm_box revive n4`.\n"
    finally:
        assert box("revive", "n4").returncode == 0
    assert box("status").returncode == 0
    wait_for(slurm / "out", "life\nlife 1\n")
