"""The contract of every method on real gloo processes: the same conduct, the same optimum, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import run_processes
from methods import CPU, OPTIONS, changed, convex, digits, exact, gap, on_processes, optimizers
from test_methods import GAP, TOP1, check_conduct, top1

from runner.config import Config, ranks, servers
from runner.prepare import make_algorithm
from runner.training import train

pytestmark = pytest.mark.multiproc


def real(config: Config, **values: Any) -> Config:
    """A virtual run's configuration for processes."""
    return changed(config, launcher={"kind": "local"}, backend="gloo", **values)


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize("option", OPTIONS)
def test_conduct_optimum_and_bytes(option, nodes):
    # The optimum with equal shares: of a shared budget it is for the machine to say how far each worker comes.
    own = [convex(option, optimizer) for optimizer in optimizers(option)]
    equal = {"algorithm__budget": "equal"} if "budget" in own[0]["algorithm"] else {}
    # Four times the steps where models come late: how late, and so how far they hold back, is the machine's affair.
    epochs = (12 if make_algorithm(own[0]).synchronous else 48) * nodes
    configs = [real(config, nodes=nodes, epochs=epochs, **equal) for config in own]
    again = [exact(real(own[-1], nodes=nodes, epochs=4, seed=seed)) for seed in (0, 0, 1)]
    by_process = run_processes(on_processes, nodes + servers(configs[0]), [*configs, *again])
    runs = [[told[run] for told in by_process] for run in range(len(configs) + len(again))]
    for config, told in zip([*configs, *again], runs, strict=True):
        check_conduct(config, told)
        assert all(each["threads"] == [] and each["unread"] == 0 for each in told)
    for config, told in zip(configs, runs, strict=False):
        assert gap(config, told) <= GAP
    first, same, other = ([each["x"] for each in told] for told in runs[-3:])
    if make_algorithm(configs[0]).synchronous:
        assert all(map(torch.equal, first, same))
    assert not any(map(torch.equal, first, other))


def train_in(config: Config, folder: str) -> None:
    train(config, Path(folder), CPU)


@pytest.mark.parametrize("option", OPTIONS)
def test_trains_digits_with_its_own_defaults(option, tmp_path):
    config = real(digits(option))
    run_processes(train_in, ranks(config) + servers(config), config, str(tmp_path))
    assert top1(tmp_path) >= TOP1
