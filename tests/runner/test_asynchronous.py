"""Asynchronous runs as a whole: who does how much, what is evaluated and recorded, and the schedule's pace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from harness import SMALL, configure, run_processes

from runner.config import Config, ranks, servers
from runner.data import load
from runner.data.sampling import Claims
from runner.parts import assemble
from runner.prepare import make_optimizer, make_sampler
from runner.runtimes.gradients import Work
from runner.runtimes.simulator import VirtualWorker
from runner.simulation import Simulation, simulate
from runner.training import train

EPOCHS, STEPS = 3, 5
CENTRED = {"easgd": 1, "downpour": 2, "async_sgd": 2}
METHODS = ("gossip_pull", "gossip_push", "adpsgd", *CENTRED)
CPU = torch.device("cpu")


@cache
def of(method: str, nodes: int, budget: str, launcher: str = "local", gpus: int = 1) -> Config:
    """A run of EPOCHS epochs of STEPS steps per worker."""
    shards = (f"server.shards={CENTRED[method]}",) if method in CENTRED else ()
    size = (f"nodes={nodes}", f"gpus_per_node={gpus}", f"dataset.train_samples={8 * nodes * gpus * STEPS}")
    own = ("evaluation.every=1", "schedule=cosine", "warmup_iterations=0")
    kind = () if method == "allreduce" else (f"algorithm.budget={budget}",)
    return configure(
        *(f"algorithm={method}", *kind, *SMALL, *own, f"epochs={EPOCHS}", *size, *shards, f"launcher={launcher}")
    )


def watched(config: Config, seconds: list[float]) -> tuple[Simulation, list[Any], list[Any]]:
    """A simulated run; (rank, slot, draw) of each gradient, and (member, draw, rate) after each step or update."""
    simulation = Simulation(config, CPU)
    asked: list[Any] = []
    steps: list[Any] = []
    begin = simulation.source.begin

    def noting(x: Any, processes: Any, slot: int, draw: int) -> Work:
        asked.append((processes[0] // simulation.lanes, slot, draw))
        return begin(x, processes, slot, draw)

    def yielded(worker: VirtualWorker, x: Any) -> None:
        steps.append((worker.rank, worker.draw, worker.lr))

    simulation.source.begin = noting  # type: ignore[method-assign]
    simulation.cluster.seconds_of = lambda worker, draw: seconds[worker]
    try:
        simulation.run(yielded, served=yielded)
    finally:
        simulation.close()
    return simulation, asked, steps


# Who does how much --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [[1.0, 1.0, 1.0, 1.0], [0.3, 1.0, 4.0, 0.01]], ids=["alike", "different"])
@pytest.mark.parametrize("method", METHODS)
def test_together_the_workers_take_the_mini_batches_of_equal_shares_once_each(
    method: str, seconds: list[float]
) -> None:
    _, shared, _ = watched(of(method, 4, "shared", "simulated"), seconds)
    _, equal, _ = watched(of(method, 4, "equal", "simulated"), seconds)
    every = {(slot, draw): 1 for slot in range(4) for draw in range(EPOCHS * STEPS)}
    assert Counter((slot, draw) for _, slot, draw in shared) == every
    assert Counter((slot, draw) for _, slot, draw in equal) == every
    assert all(rank == slot for rank, slot, _ in equal)


def test_a_worker_four_times_slower_does_four_times_less() -> None:
    _, asked, _ = watched(of("gossip_push", 4, "shared", "simulated"), [1.0, 1.0, 1.0, 4.0])
    done = Counter(rank for rank, *_ in asked)
    assert sum(done.values()) == 4 * EPOCHS * STEPS
    assert abs(done[3] - 60 / 13) <= 1  # of 60, in shares of 4 : 4 : 4 : 1
    assert max(done[rank] for rank in range(3)) - min(done[rank] for rank in range(3)) <= 1


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_claim_has_the_samples_of_the_share_that_it_stands_for(gpus: int) -> None:
    config = of("gossip_push", 2, "shared", gpus=gpus)
    base = make_sampler(config, load(config["dataset"]))
    claims = Claims(base, gpus)
    for claim in range(EPOCHS * STEPS * 2):
        draw, worker = divmod(claim, 2)
        assert claims.epoch_of(claim) == base.epoch_of(draw)
        for lane in range(gpus):
            for whoever in range(2):
                indices = claims.indices(whoever * gpus + lane, claim)
                assert torch.equal(indices, base.indices(worker * gpus + lane, draw))


def claimed(config: Config) -> list[Any]:
    """In a process of a group: the numbers of the mini-batches that it has computed, by claim or by draw."""
    parts = assemble(config, CPU)
    worker, numbers = parts.worker, []
    batches = worker.batches

    def noting(number: int) -> Any:
        numbers.append(number)
        return batches(number)

    worker.batches = noting
    if parts.mesh.lane == 0:
        list(parts.iterates())
        worker.release_followers()
        worker.leave().wait()
    else:
        list(worker.follow())
    worker.close()
    dist.barrier()
    return [worker.rank, parts.mesh.lane, numbers]


@pytest.mark.multiproc
@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("budget", ["shared", "equal"])
def test_processes_take_each_mini_batch_once(budget: str, gpus: int) -> None:
    config = of("gossip_push", 4 // gpus, budget, gpus=gpus)
    told = run_processes(claimed, 4, config)
    for lane in range(gpus):
        numbers = [numbers for _, own, numbers in told if own == lane]
        if budget == "equal":
            assert numbers == [list(range(EPOCHS * STEPS))] * (4 // gpus)
        else:
            assert sorted(chain(*numbers)) == list(range(EPOCHS * STEPS * 4 // gpus))
        assert numbers == [numbers for _, own, numbers in told if own == 0]  # a node's processes go together


# The schedule -------------------------------------------------------------------------------------------------------


def rates(config: Config) -> list[float]:
    """The learning rate of each step of the schedule."""
    optimizer = make_optimizer(config, STEPS, torch.zeros(1), serves=True)
    found = []
    for step in range(EPOCHS * STEPS):
        optimizer.go_to(step)
        found.append(optimizer.lr)
    return found


@pytest.mark.parametrize("method", ["gossip_push", "easgd", "downpour"])
def test_the_rate_follows_the_progress_of_all(method: str) -> None:
    """A slow worker takes few steps, each at the rate where training as a whole has got to; a server likewise."""
    config = of(method, 4, "shared", "simulated")
    expected = rates(config)
    assert len(set(expected)) == len(expected)
    simulation, _, steps = watched(config, [1.0, 1.0, 1.0, 4.0])
    assert {draw for rank, draw, _ in steps if rank == 3} < set(range(1, EPOCHS * STEPS + 1))
    for rank, draw, lr in steps:
        assert lr == (expected[draw - 1] if draw else expected[0]), rank
    for server in simulation.cluster.servers:
        seen = [draw for rank, draw, _ in steps if rank == server.rank]
        assert seen == sorted(seen)
        assert seen[-1] > EPOCHS * STEPS - 4  # EASGD's workers meet it every 4 of their steps


def test_with_equal_shares_a_worker_keeps_its_own_pace() -> None:
    config = of("gossip_push", 4, "equal", "simulated")
    _, _, steps = watched(config, [1.0, 1.0, 1.0, 4.0])
    expected = rates(config)
    slow = {draw: lr for rank, draw, lr in steps if rank == 3}
    assert [slow[draw] for draw in range(1, EPOCHS * STEPS)] == expected[1:]  # of the next step


# What is recorded ---------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_all(configs: list[Config], folders: list[str]) -> None:
    for config, folder in zip(configs, folders, strict=True):
        train(config, Path(folder), CPU)


Told = tuple[list[dict[str, Any]], dict[str, Any], list[list[dict[str, Any]]]]


def told(folder: Path) -> Told:
    """Evaluations, summary, and the rows of each process."""
    ranks = [rows(path) for path in sorted(folder.glob("rank-*.jsonl"))]
    return rows(folder / "evaluations.jsonl"), json.loads((folder / "summary.json").read_text()), ranks


Case = tuple[str, str, int]
CASES: list[Case] = [
    *((method, budget, 1) for method in METHODS for budget in ("shared", "equal")),
    *((method, budget, 2) for method in ("adpsgd", "gossip_push") for budget in ("shared", "equal")),
    ("allreduce", "", 1),
]


def configuration(case: Case, launcher: str) -> Config:
    """Of four processes in all."""
    method, budget, gpus = case
    return of(method, (4 - CENTRED.get(method, 0)) // gpus, budget, launcher, gpus)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Told]:
    """All cases on four processes; those of one shape, whose process groups are alike, one after the other."""
    shapes: dict[tuple[int, int], list[Case]] = {}
    for case in CASES:
        config = configuration(case, "local")
        assert ranks(config) + servers(config) == 4
        shapes.setdefault((servers(config), case[2]), []).append(case)
    found = {}
    for cases in shapes.values():
        folders = {case: tmp_path_factory.mktemp("real") for case in cases}
        configs = [configuration(case, "local") for case in cases]
        run_processes(train_all, 4, configs, [str(folder) for folder in folders.values()])
        found |= {case: told(folder) for case, folder in folders.items()}
    return found


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Told]:
    found = {}
    for case in CASES:
        folder = tmp_path_factory.mktemp("virtual")
        simulate(configuration(case, "simulated"), folder, CPU)
        found[case] = told(folder)
    return found


@pytest.mark.multiproc
@pytest.mark.parametrize("case", CASES[:-1], ids=str)
def test_each_epoch_is_evaluated_as_that_of_a_synchronous_method_is(
    case: Case, real: dict[Case, Told], virtual: dict[Case, Told]
) -> None:
    for runs in (real, virtual):
        evaluations, summary, _ = runs[case]
        synchronous, _, _ = runs[CASES[-1]]
        assert [row["epoch"] for row in evaluations] == [1.0, 2.0, 3.0]
        assert [row["step"] for row in evaluations] == [STEPS, 2 * STEPS, 3 * STEPS]
        assert [list(row) for row in evaluations] == [list(row) for row in synchronous]
        times = [row["time_s"] for row in evaluations]
        assert times == sorted(times)
        for row in evaluations:
            assert (row["top1_centre"] is not None) == (case[0] in CENTRED)
            assert all(value is not None for key, value in row.items() if key != "top1_centre")
        assert list(summary) == list(runs[CASES[-1]][1])
        assert summary["top1_mean_model"] == evaluations[-1]["top1_mean_model"]
        assert summary["evaluated_model"] == ("centre" if case[0] in CENTRED else "mean")
        assert summary["staleness"]
    assert sorted(real[case][0][0]) == sorted(virtual[case][0][0])


@pytest.mark.multiproc
@pytest.mark.parametrize("case", [case for case in CASES[:-1] if case[1] == "equal" and case[0] != "adpsgd"], ids=str)
def test_bytes_sent_are_those_of_the_virtual_cluster(
    case: Case, real: dict[Case, Told], virtual: dict[Case, Told]
) -> None:
    """How many averages AD-PSGD begins depends on how fast they are; all else is settled by the configuration."""
    sent = real[case][1]["bytes_sent"]
    assert sent == virtual[case][1]["bytes_sent"] > 0


@pytest.mark.multiproc
@pytest.mark.parametrize("case", [case for case in CASES[:-1] if case[1] == "shared"], ids=str)
def test_rows_tell_the_rate_where_training_has_got_to(case: Case, real: dict[Case, Told]) -> None:
    expected = rates(configuration(case, "local"))
    _, _, processes = real[case]
    leaders = processes[:: case[2]]
    steps = [row for process in leaders for row in process]
    assert len(steps) >= len(leaders)
    for row in steps:
        assert row["lr"] == pytest.approx(expected[row["step"] - 1])


def test_an_epoch_that_a_slow_worker_never_reaches_is_evaluated_too(tmp_path: Path) -> None:
    """It is still at its first mini-batch when the others have taken all there are."""
    config = of("gossip_push", 4, "shared", "simulated")
    compute = {**config["cluster"]["compute"], "slow": {3: 1000.0}}
    simulate({**config, "cluster": {**config["cluster"], "compute": compute}}, tmp_path, CPU)
    evaluations, _, _ = told(tmp_path)
    assert [row["epoch"] for row in evaluations] == [1.0, 2.0, 3.0]


# Failing ------------------------------------------------------------------------------------------------------------

BREAKS = """
from dataclasses import dataclass
from algorithms.gossip import GossipPush

@dataclass
class Breaks(GossipPush):
    async def collect(self, worker, s):
        async for _, message in worker.messages("push", like=(s.x, 0.0)):
            if worker.rank == 1 and s.k >= 3:
                raise RuntimeError("the inbox is full")
            s.inbox.append(message)
"""


@pytest.mark.multiproc
def test_a_task_beside_that_fails_fails_the_run_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(BREAKS)
    (tmp_path / "conf/algorithm").mkdir(parents=True)
    (tmp_path / "conf/algorithm/breaks.yaml").write_text("_target_: breaks.Breaks\nbudget: equal\n")
    command = [str(Path(sys.executable).parent / "run-experiment"), "algorithm=breaks", "--config-dir", "conf"]
    own = ("device=cpu", "epochs=3", "model.hidden=[16]", "nodes=3", "launcher=local")
    done = subprocess.run([*command, *own], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    [run] = (tmp_path / "results/runs/breaks").glob("*")
    state = json.loads((run / "state.json").read_text())
    assert state["status"] == "failed"
    assert state["reason"].startswith("rank 1: RuntimeError: the inbox is full\nTraceback (most recent call last):")
    assert "breaks.py" in state["reason"]
    assert "in collect" in state["reason"]
    assert not (run / "summary.json").exists()
