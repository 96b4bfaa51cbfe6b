"""Asynchronous methods on both runtimes: not the same bits, but the same statistics, over five seeds.

The virtual cluster replays the compute times of the real runs, over links of this kind of machine. On real processes
the operating system decides who comes when, so the tolerances are wide: the final loss within three standard errors of
the difference and 0.02 nats more, the mean staleness within a factor of two or half a step.
"""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import SMALL, configure, run_processes

from runner.config import Config
from runner.simulation import simulate
from runner.training import train

pytestmark = [pytest.mark.multiproc, pytest.mark.slow]

SEEDS = range(5)
METHODS = ("adpsgd", "easgd", "async_sgd", "gossip_pull", "gossip_push")
RUN = (
    *SMALL,
    "model.hidden=[512,512]",
    "batch_size=256",  # a step of some 10 ms: with shorter ones, what counts is how soon processes are woken
    "epochs=60",
    "evaluation.every=60",
    "dataset.train_samples=1024",
    "dataset.test_samples=300",
)
SHAPE = ("launcher=simulated", "cluster=laptop")


def train_all(configs: dict[str, Config], folder: str) -> None:
    """In a process of a group: one run after the other."""
    for name, config in configs.items():
        (Path(folder) / name).mkdir(exist_ok=True)
        train(config, Path(folder) / name, torch.device("cpu"))


def told(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


@pytest.fixture(scope="module", params=METHODS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """The summaries of five real runs, and of five virtual ones."""
    real, virtual = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("virtual")
    method = (f"algorithm={request.param}", "nodes=2", *RUN)
    configs = {str(seed): configure(*method, f"seed={seed}") for seed in SEEDS}
    run_processes(train_all, 2 + configs["0"]["servers"], configs, str(real))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in SEEDS:
        (virtual / str(seed)).mkdir()
        replayed = f"cluster.compute.trace={real / str(seed)}"
        simulate(configure(*method, *SHAPE, replayed, f"seed={seed}"), virtual / str(seed), torch.device("cpu"))
    torch.set_num_threads(threads)
    return [told(real / str(seed)) for seed in SEEDS], [told(virtual / str(seed)) for seed in SEEDS]


def test_the_final_loss_agrees(both: tuple[list[Any], list[Any]]) -> None:
    real, virtual = ([run["loss_mean_model"] for run in runs] for runs in both)
    error = math.sqrt((statistics.variance(real) + statistics.variance(virtual)) / len(SEEDS))
    assert abs(statistics.mean(real) - statistics.mean(virtual)) <= 3 * error + 0.02


def test_the_staleness_agrees(both: tuple[list[Any], list[Any]]) -> None:
    real, virtual = (statistics.mean(run["staleness_mean"] for run in runs) for runs in both)
    assert abs(real - virtual) <= max(0.5, 0.5 * max(real, virtual))
