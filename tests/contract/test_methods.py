"""The contract of every method on the virtual cluster. What is in conf/algorithm is asked, by being there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import configure
from methods import CPU, OPTIONS, VIRTUAL, changed, convex, digits, evaluated, exact, gap, optimizers, simulated

from algorithms.stepwise import LocalSteps, State
from algorithms.worker import Worker
from runner.config import Config, shares_work, workers
from runner.simulation import Simulation, simulate

GAP = 0.025
"""In nats, of the 0.5 at the start: what 144 noisy steps leave of it."""

TOP1 = 0.93
COMBINED = [(option, name) for option in OPTIONS for name in optimizers(option)]

# Settings that no file of conf/algorithm has.
VARIANTS = {
    "dpsgd, adapt then combine": ("dpsgd", "algorithm.order=adapt_then_combine"),
    "dpsgd, ring": ("dpsgd", "topology=ring"),
    "sgp, exactly 2 late": ("sgp", "algorithm.overlap=2", "algorithm.merge=exact"),
    "sgp, arrived, up to 3 late": ("sgp", "algorithm.overlap=3"),
    "sgp, random peers": ("sgp", "topology=random_peer"),
    "gossip_pull, rounds": ("gossip_pull", "algorithm.rounds=3", "algorithm.comm_interval=2"),
    "downpour, shards": ("downpour", "algorithm.n_push=2", "algorithm.n_fetch=3", "server.shards=2"),
    "downpour, rare fetches": ("downpour", "algorithm.n_push=1", "algorithm.n_fetch=4"),
    "easgd, shards": ("easgd", "server.shards=2", "server.placement=own"),
    "hier_avg, groups": ("hier_avg", "algorithm.S=2", "algorithm.K1=3"),
    "hier_sasgd, groups": ("hier_sasgd", "algorithm.S=2"),
    "lsgd, groups": ("lsgd", "algorithm.S=2"),
    "bmuf, Nesterov": ("bmuf", "algorithm.nesterov=true"),
    "post_local_sgd, average": ("post_local_sgd", "algorithm.average=true"),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_conduct(config: Config, told: list[dict[str, Any]]) -> None:
    """What holds for each worker and server of any run: it mutates nothing, takes its share, and then stops."""
    for each in told[: workers(config)]:
        assert each["left"] >= 2 * each["gradients"]  # a slow one may have had no share at all
        assert each["idle_gradients"] == 0
        assert each["last_yields"] <= 1
    for each in told:
        assert each["changed"] == 0
    gradients = [each["gradients"] for each in told[: workers(config)]]
    draws = config["epochs"] * 96 // (workers(config) * config["batch_size"])
    assert sum(gradients) == draws * workers(config)
    if not shares_work(config):
        assert set(gradients) == {draws}


def check_end(simulation: Simulation) -> None:
    """Nothing is under way, waited for, or left lying."""
    cluster = simulation.cluster
    assert not cluster.engine.tasks
    assert not cluster.engine._events
    assert not cluster.collectives
    assert cluster.farewells.under_way == 0
    for member in (*cluster.workers, *cluster.servers):
        assert not member.expected
        assert not member.mailbox
        assert not any(member.letters.come.values())
        assert not any(member.letters.receiving.values())


@pytest.mark.parametrize(("option", "optimizer"), COMBINED)
def test_reaches_the_optimum_of_a_convex_problem(option, optimizer):
    config = convex(option, optimizer)
    simulation, told = simulated(config)
    assert gap(config, told) <= GAP
    check_conduct(config, told)
    check_end(simulation)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_reaches_it_too(variant):
    option, *settings = VARIANTS[variant]
    config = convex(option, "momentum, decay", *settings)
    simulation, told = simulated(config)
    assert gap(config, told) <= GAP
    check_conduct(config, told)
    check_end(simulation)


@pytest.mark.parametrize("option", OPTIONS)
def test_trains_digits_with_its_own_defaults(option, tmp_path):
    simulate(digits(option), tmp_path, CPU)
    assert top1(tmp_path) >= TOP1


def top1(folder: Path) -> float:
    """Of the model that the run evaluates."""
    summary = json.loads((folder / "summary.json").read_text())
    return float(summary["top1_centre" if summary["evaluated_model"] == "centre" else "top1_mean_model"])


@pytest.mark.parametrize("option", OPTIONS)
def test_same_seed_same_bytes(option):
    # On machines that are not alike, for a method that goes by what has arrived.
    uneven = {"cluster__compute__distribution": "lognormal", "cluster__compute__sigma": 0.3, "epochs": 10}
    config = convex(option, list(optimizers(option))[-1])
    first, again, other = (simulated(changed(config, **uneven, seed=seed))[1] for seed in (0, 0, 1))
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a["x"], b["x"]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("option", OPTIONS)
def test_ends_cleanly_where_a_worker_is_four_times_slower(option):
    config = changed(convex(option, list(optimizers(option))[-1]), epochs=10, cluster__compute__slow={3: 4.0})
    budgets = ("shared", "equal") if "budget" in config["algorithm"] else (None,)
    for budget in budgets:
        if budget is not None:
            config = changed(config, algorithm__budget=budget)
        simulation, told = simulated(config)
        check_conduct(config, told)
        check_end(simulation)
        assert torch.isfinite(evaluated(config, told)).all()
        if budget == "shared":
            assert 2 * told[3]["gradients"] < min(each["gradients"] for each in told[:3])


def test_to_merge_exactly_is_found_at_any_depth():
    config = exact(configure("algorithm=slowmo_osgp", *VIRTUAL))
    assert config["algorithm"]["base"]["merge"] == "exact"
    assert exact(configure("algorithm=osgp", *VIRTUAL))["algorithm"]["merge"] == "exact"


@dataclass
class Careless(LocalSteps):
    async def step(self, worker: Worker, s: State) -> None:
        s.x.add_(0.0)  # it has been yielded
        await super().step(worker, s)


def test_a_change_in_place_is_noticed():
    careless = {"_target_": f"{Careless.__module__}.Careless", "worker": "gpu"}
    _, told = simulated(changed(convex("allreduce", "plain"), algorithm=careless, epochs=2))
    assert all(each["changed"] > 0 for each in told)
