"""A checkpoint holds a method's whole state: what goes on from one is what would have gone on without it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import SMALL, configure, run_processes
from torch import Tensor

from runner.build import locate
from runner.config import Config
from runner.parts import assemble
from runner.prepare import make_algorithm
from runner.simulation import Simulation

OPTIONS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/algorithm").glob("*.yaml"))
SETTINGS = (*SMALL, "epochs=1", "dataset.train_samples=640", "optimizer.weight_decay=0.01")
HELD_AT = 11  # of 20 steps: inside a block of every method's default period
CPU = torch.device("cpu")


def exact(option: str) -> tuple[str, ...]:
    """What makes a method a function of its messages, and not of when they arrive."""
    merges = ("algorithm.merge", "algorithm.base.merge", "algorithm.then.merge")
    keys = configure(f"algorithm={option}", "launcher=simulated", *SETTINGS)["algorithm"]
    flat = {f"algorithm.{k}.{j}" if isinstance(v, dict) else f"algorithm.{k}" for k, v in keys.items()
            for j in (v if isinstance(v, dict) else [""])}  # fmt: skip
    return tuple(f"{key}=exact" for key in merges if key in flat)


def configured(option: str, *overrides: str) -> Config:
    switch = ("algorithm.epoch=0.3",) if option in ("post_local_sgd", "allreduce_then_sgp") else ()
    return configure(f"algorithm={option}", "nodes=4", *SETTINGS, *switch, *exact(option), *overrides)


def passed_on(saved: Any) -> Any:
    """As a file gives it back, to those who trust no pickle."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Watched:
    """A simulation, and (time, worker, iterate) of every step and every update of a server."""

    def __init__(self, config: Config) -> None:
        self.simulation = Simulation(config, CPU)
        self.seen: list[tuple[float, int, Tensor]] = []

    def note(self, member: Any, x: Tensor) -> None:
        self.seen.append((self.simulation.cluster.engine.now, member.rank, x))

    def start(self) -> None:
        self.simulation.start(self.note, served=self.note)

    def last(self) -> dict[int, Tensor]:
        return {rank: x for _, rank, x in self.seen}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("option", OPTIONS)
def test_going_on_from_a_checkpoint_is_going_on(option: str, one_thread: None) -> None:
    stragglers = ("cluster.compute.distribution=lognormal", "cluster.compute.sigma=0.5")
    config = configured(option, "launcher=simulated", "gpus_per_node=1", *stragglers)
    through = Watched(config)
    through.simulation.hold_at = HELD_AT
    through.start()
    through.simulation.go_on()
    saved, so_far = passed_on(through.simulation.save()), len(through.seen)
    through.simulation.release()
    through.simulation.go_on()

    again = Watched(config)
    again.simulation.load(saved)
    again.start()
    again.simulation.go_on()
    rest = through.seen[so_far:]
    assert len(rest) == len(again.seen) >= 4 * (20 - HELD_AT) - 4
    for (time_s, rank, x), (time_again_s, rank_again, x_again) in zip(rest, again.seen, strict=True):
        assert (time_s, rank) == (time_again_s, rank_again)
        assert torch.equal(x, x_again)

    if make_algorithm(config).synchronous:  # then holding it changed nothing either
        plain = Watched(config)
        plain.start()
        plain.simulation.go_on()
        for rank, x in plain.last().items():
            assert torch.equal(x, again.last()[rank])


def continued(configs: dict[str, Config]) -> dict[str, Tensor]:
    """In a process of a group: of each run, the iterates after a checkpoint, and those from the checkpoint on."""
    results = {}
    for name, config in configs.items():
        parts = assemble(config, CPU)
        iterates = parts.iterates()
        for _ in range(HELD_AT):
            next(iterates)
        saved = passed_on(parts.worker.save())
        results[f"{name} through"] = torch.stack([x.clone() for x in iterates])
        parts.worker.close()
        parts = assemble(config, CPU)
        parts.worker.load(saved)
        results[f"{name} rest"] = torch.stack([x.clone() for x in parts.iterates()])
        parts.worker.close()
    return results


def is_synchronous(option: str) -> bool:
    config = configure(f"algorithm={option}", "launcher=simulated", *SETTINGS)
    return bool(locate(config["algorithm"]["_target_"], "algorithm").synchronous)


@pytest.mark.multiproc
def test_on_processes_too() -> None:
    configs = {option: configured(option) for option in OPTIONS if is_synchronous(option)}
    for results in run_processes(continued, 4, configs):
        for option in configs:
            through, rest = results[f"{option} through"], results[f"{option} rest"]
            assert len(rest) >= 20 - HELD_AT
            assert torch.equal(through, rest), option
