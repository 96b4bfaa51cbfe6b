"""The simulator and real gloo processes compute the same, bit for bit: the property that everything else rests on.

A mean over three or more is summed in rank order by the simulator and in another by gloo's ring, and momentum
amplifies a last bit to 1e-2 within 50 steps of lenet: there the two are held together in float64, and by single steps.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import DOUBLE, SMALL, configure, relative, run, run_processes, simulated, simulated_run, trajectories
from omegaconf import OmegaConf

from runner.build import locate
from runner.config import Config, conf_dir, ranks
from runner.simulation import Simulation, simulate
from runner.training import train

pytestmark = pytest.mark.multiproc

STEPS = 52
LENET = (
    *("dataset=fashion_mnist", "model=lenet", "batch_size=8", "device=cpu", "epochs=2", "schedule=cosine"),
    *("optimizer.momentum=0.9", "optimizer.weight_decay=0.01", "dataset.test_samples=500"),
)


RESNET = ("model=resnet20", "dataset.train_samples=192", "dataset.test_samples=100")


def of(nodes: int, gpus: int = 1) -> tuple[str, ...]:
    """A run of exactly STEPS steps."""
    samples = STEPS // 2 * nodes * gpus * 8
    return (*LENET, f"nodes={nodes}", f"gpus_per_node={gpus}", f"dataset.train_samples={samples}")


METHODS = {
    "dpsgd": ("algorithm=dpsgd", "topology=ring"),
    "dpsgd adapt_then_combine": ("algorithm=dpsgd", "topology=ring", "algorithm.order=adapt_then_combine"),
    "sgp": ("algorithm=sgp", "algorithm.merge=exact"),
    "sgp overlap=1": ("algorithm=sgp", "algorithm.merge=exact", "algorithm.overlap=1"),
    "sgp overlap=2": ("algorithm=sgp", "algorithm.merge=exact", "algorithm.overlap=2"),
}
SIZES = [(2, 1), (3, 1), (4, 1), (2, 2)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("method", METHODS)
def test_messages_give_the_same_bits(method, size):
    overrides = (*METHODS[method], *of(*size))
    real, virtual = run(*overrides), simulated_run(*overrides)
    assert real.shape[1] >= STEPS
    assert torch.equal(real, virtual)


@pytest.mark.parametrize("size", [(2, 1), (1, 2)], ids=["2x1", "1x2"])
def test_a_mean_of_two_gives_the_same_bits(size):
    overrides = ("algorithm=allreduce", *of(*size))
    assert torch.equal(run(*overrides), simulated_run(*overrides))


@pytest.mark.parametrize("size", [(3, 1), (4, 1), (2, 2)], ids=["3x1", "4x1", "2x2"])
def test_a_mean_of_more_agrees_in_float64(size):
    overrides = ("algorithm=allreduce", *DOUBLE, *of(*size))
    real, virtual = run(*overrides), simulated_run(*overrides)
    assert relative(virtual[:, -1], real[:, -1]) <= 1e-9


@pytest.mark.parametrize("size", [(3, 1), (4, 1), (2, 2)], ids=["3x1", "4x1", "2x2"])
def test_a_single_step_of_a_mean_of_more_agrees_in_float32(size):
    overrides = ("algorithm=allreduce", *of(*size))
    assert relative(simulated_run(*overrides, steps=1), run(*overrides, steps=1)) <= 1e-6


def train_in(config: Config, folder: str) -> None:
    train(config, Path(folder), torch.device("cpu"))


def told(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The evaluations and the summary of a run, without its times."""
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    evaluations = [{k: v for k, v in json.loads(line).items() if k not in ("time_s", "clock")} for line in lines]
    summary = json.loads((folder / "summary.json").read_text())
    of_time = {"identity", "launcher", "clock", "cluster", "cost", "failures", "time_as_for", "backend", "settings"}
    return evaluations, {k: v for k, v in summary.items() if k not in of_time and not k.endswith("_s")}


WHOLE_RUNS = {
    "allreduce 2": ("algorithm=allreduce", *of(2)),
    "easgd_sync 2": ("algorithm=easgd_sync", *of(2)),  # whose workers each have a copy of the centre
    "dpsgd 3": (*METHODS["dpsgd"], *of(3)),
    "sgp 3": (*METHODS["sgp overlap=1"], *of(3)),
    "sgp 2x2": (*METHODS["sgp overlap=1"], *of(2, 2)),
    "sgp 3 resnet20": (*METHODS["sgp overlap=1"], *of(3), *RESNET, "evaluation.batch_norm=average"),
    "sgp 2x2 resnet20": (*METHODS["sgp overlap=1"], *of(2, 2), *RESNET, "evaluation.batch_norm=recalibrate"),
}


@pytest.mark.parametrize("run", WHOLE_RUNS)
def test_evaluations_and_bytes_sent_are_the_same(tmp_path, run):
    overrides = WHOLE_RUNS[run]
    real, virtual = tmp_path / "real", tmp_path / "virtual"
    real.mkdir()
    virtual.mkdir()
    config = configure(*overrides)
    run_processes(train_in, ranks(config), config, str(real))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    simulate(configure(*overrides, "launcher=simulated"), virtual, torch.device("cpu"))
    torch.set_num_threads(threads)
    assert told(real) == told(virtual)
    assert (told(real)[1]["top1_centre"] is not None) == (config["evaluated_model"] == "centre")


# Every synchronous method that is found, with its own defaults, on a small network: the means of its gradients or of
# its parameters, its messages, its optimiser, and what happens between blocks and at a switch.

EPOCHS, PER_EPOCH, SWITCH = 9, 6, 4  # epochs, steps, and the epoch from which on a method or a graph is another
SHAPES = {"2x1": (2, 1, "float32"), "4x1": (4, 1, "float64"), "2x2": (2, 2, "float64")}
SYNCHRONOUS = [
    path.stem
    for path in sorted((conf_dir() / "algorithm").glob("*.yaml"))
    if locate(OmegaConf.load(path)["_target_"], "algorithm").synchronous  # type: ignore[index]
]


@cache
def composed(method: str) -> Config:
    config = configure(f"algorithm={method}", *SMALL, "nodes=2", f"epochs={EPOCHS}", "optimizer.weight_decay=0.01")
    algorithm = config["algorithm"]
    for node in (algorithm, *(value for value in algorithm.values() if isinstance(value, dict))):
        if "merge" in node:
            node["merge"] = "exact"  # when a message is due, whatever the clock
    if "epoch" in algorithm:
        algorithm["epoch"] = SWITCH
    for phase in config["topology"].get("phases", ())[1:]:
        phase["epoch"] = SWITCH
    return config


def shaped(method: str, shape: str) -> Config:
    config = deepcopy(composed(method))
    config["nodes"], config["gpus_per_node"], config["problem"]["dtype"] = SHAPES[shape]
    config["dataset"]["train_samples"] = PER_EPOCH * ranks(config) * config["batch_size"]
    return config


@cache
def on_processes(shape: str) -> list[list[dict[str, Any]]]:
    """What each process made of each method, one after the other in one group."""
    configs = [shaped(method, shape) for method in SYNCHRONOUS]
    return run_processes(trajectories, ranks(configs[0]), configs)


@cache
def virtual() -> Config:
    config = configure("launcher=simulated", *SMALL)
    return {key: config[key] for key in ("launcher", "cluster", "cost", "failures", "backend")}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", SYNCHRONOUS)
def test_every_synchronous_method_agrees(method, shape):
    simulation = Simulation(shaped(method, shape) | virtual(), torch.device("cpu"))
    of_how_many = [1]  # the means that it takes
    reduce = simulation.cluster.reduce

    def watched(kind: str, group: Any) -> Any:
        of_how_many.append(len(group.ranks) * (simulation.lanes if kind == "gradient" else 1))
        return reduce(kind, group)

    simulation.cluster.reduce = watched  # type: ignore[method-assign]
    iterates = simulated(simulation)
    workers = [worker[SYNCHRONOUS.index(method)] for worker in on_processes(shape)]
    real = torch.stack([worker["iterates"] for worker in workers])
    assert real.shape == iterates.shape
    assert real.shape[1] >= EPOCHS * PER_EPOCH
    if max(of_how_many) <= 2:
        assert torch.equal(iterates, real)
    else:
        assert relative(iterates, real) <= 1e-9
    sent = [worker.split.bytes_sent for worker in simulation.cluster.workers for _ in range(simulation.lanes)]
    assert sent == [worker["bytes_sent"] for worker in workers]
