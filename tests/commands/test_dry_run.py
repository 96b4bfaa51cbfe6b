"""`dry_run=true` shows what would be run, with every launcher, and writes nothing."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import SMALL, Done
from omegaconf import OmegaConf

WAYS = {
    "nodes=2 launcher=local": "# allreduce 2 nodes seed 0: launcher local, 2 processes, new",
    "nodes=2 launcher=simulated": "# allreduce 2 nodes x 8 seed 0: launcher simulated, 1 process, new",
    "nodes=2 launcher=slurm launcher.gpus_per_node=3 algorithm=easgd": (
        "# easgd 2 nodes x 3 seed 0: launcher slurm, 7 processes, new"
    ),
}


@pytest.fixture(autouse=True)
def without_sbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SLURM is installed but down, sbatch takes half a minute to say so."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_written(way: str, here: Callable[..., Done], tmp_path: Path) -> None:
    done = here(*SMALL, *shlex.split(way), "dry_run=true")
    assert (done.status, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
    [heading] = [line for line in done.stdout.splitlines() if line.startswith("# ") and ": launcher " in line]
    assert heading.startswith(WAYS[way])
    shown = done.stdout.partition(f"{heading}\n")[2].partition("\n\n")[0]
    config = OmegaConf.create(shown)
    assert (config.nodes, config.model.hidden, config.epochs) == (2, [16], 2)
    assert ("#!/bin/bash" in done.stdout) == ("slurm" in way)
    assert ("# not checked by SLURM: there is no sbatch here" in done.stdout) == ("slurm" in way)


def test_a_sweep_shows_every_cell_and_one_script_for_each_shape(here: Callable[..., Done], tmp_path: Path) -> None:
    done = here(*SMALL, "-m", "nodes=1,2", "seed=range(3)", "launcher=slurm", "gpus_per_node=1", "dry_run=true")
    assert done.status == 0
    assert done.stdout.count("launcher slurm, ") == 6
    scripts = done.stdout.split("#!/bin/bash")[1:]
    assert [script.count("#SBATCH --array=0-2%3") for script in scripts] == [1, 1]
    assert [f"#SBATCH --nodes={nodes}\n" in script for nodes, script in zip((1, 2), scripts, strict=True)] == [True] * 2
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused_all_the_same(here: Callable[..., Done]) -> None:
    done = here(*SMALL, "nodes=2", "batch_size=800", "dry_run=true")
    assert done.status == 2
    assert "batch_size=718" in done.stderr
