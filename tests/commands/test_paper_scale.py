"""The papers' own settings: they compose for SLURM, and first iterations run, on made-up data of the real shapes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import Done, content, type_in

IMAGENET = ["dataset=synthetic", "dataset.shape=[3,224,224]", "dataset.classes=1000"]
CIFAR = ["dataset=synthetic", "dataset.shape=[3,32,32]", "dataset.classes=10"]
STUDIES = {
    "sgp/accuracy": [*IMAGENET, "algorithm=sgp"],
    "gossip/error_against_time": [*IMAGENET, "algorithm=gossip_pull"],
    "hier_avg/K2": [*CIFAR, "algorithm=hier_avg"],
    "sasgd/accuracy": [*CIFAR, "algorithm=sasgd"],
    "slowmo/accuracy": [*CIFAR, "algorithm=slowmo"],
}
"""One method of each paper."""
SHORT = {
    "sgp/accuracy": ["schedule.warmup_epochs=0", "schedule.milestones=[1]", "nodes=2", "gpus_per_node=1"],
    "gossip/error_against_time": ["schedule.milestones=[1]", "nodes=2"],
    "hier_avg/K2": [
        "schedule.milestones=[1]",
        "nodes=1",
        "gpus_per_node=2",
        "algorithm.S=2",
        "algorithm.K2=8",
        "model=resnet18_cifar",
    ],
    "sasgd/accuracy": ["nodes=2", "algorithm.T=2"],
    "slowmo/accuracy": [
        *("schedule.warmup_epochs=0", "schedule.milestones=[1]", "nodes=2", "gpus_per_node=1", "algorithm.period=2"),
        "model=resnet18_cifar",
    ],
}
"""What makes it short, beside a small mini-batch and a few images."""


@pytest.mark.parametrize("study", STUDIES)
def test_it_composes_for_slurm(study: str, here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # see test_dry_run
    done = here(f"experiment={study}", "scale=paper", "launcher=slurm", "dry_run=true", *STUDIES[study], "seed=0")
    assert done.status == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if ": launcher slurm, " in line]
    assert shown
    assert done.stdout.count("#!/bin/bash") >= 1
    assert re.search(r"dataset synthetic [^()]*\(scale=paper: (imagenet|cifar10)\)", done.stdout)


@pytest.mark.multiproc
@pytest.mark.parametrize("study", STUDIES)
def test_its_first_iterations_run(study: str, tmp_path: Path) -> None:
    few = ["dataset.train_samples=8", "dataset.test_samples=4", "batch_size=2", "epochs=1", "seed=0"]
    where = ["launcher=local", "device=cpu", *SHORT[study]]
    asked = [f"experiment={study}", "scale=paper", *STUDIES[study], *few, *where]
    done = type_in(*asked, cwd=tmp_path)
    assert done.status == 0, done.stdout + done.stderr
    summaries = list(tmp_path.rglob("summary.json"))
    assert len(summaries) >= 1
    for summary in summaries:
        assert content(summary)["iterations"] >= 2
        assert content(summary.with_name("state.json"))["status"] == "finished"
    assert "top-1" in done.stdout
