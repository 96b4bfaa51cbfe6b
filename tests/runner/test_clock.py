"""The training clock and the split of its time, on a clock of the test's own and on real processes."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from harness import SMALL, configure, run_processes

from runner.clock import Mark, TrainingClock
from runner.config import Config
from runner.parts import assemble


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


def test_the_clock_stands_still_while_paused(fake: FakeTime) -> None:
    clock = TrainingClock()
    fake.now += 3
    with clock.paused():
        fake.now += 50
    assert clock.now() == 3
    fake.now += 2
    assert clock.now() == 5
    clock.restart()
    assert clock.now() == 0


def test_the_device_is_waited_for_before_the_clock_is_read(fake: FakeTime) -> None:
    def synchronize() -> None:
        fake.now += 1  # what the device still had to do

    clock = TrainingClock(synchronize)
    assert clock.now() == 1


def test_a_mark_tells_once_how_long_ago_it_was_set(fake: FakeTime) -> None:
    mark = Mark(torch.device("cpu"))
    assert mark.elapsed_s() == 0
    mark.set()
    fake.now += 4
    assert mark.elapsed_s() == 4
    assert mark.elapsed_s() == 0


NAP_S = 0.2


def with_a_sleeper(config: Config, steps: int, where: str) -> dict[str, Any]:
    """Worker 1 sleeps at each step, in its gradient or while it waits for data."""
    parts = assemble(config, torch.device("cpu"))
    worker = parts.worker
    if worker.rank == 1:
        owner, name = (worker.problem, "gradient") if where == "gradient" else (worker, "batches")
        original = getattr(owner, name)

        def slow(*arguments: Any) -> Any:
            time.sleep(NAP_S)
            return original(*arguments)

        setattr(owner, name, slow)
    ages = []
    is_due = getattr(parts.algorithm, "is_due", None)
    if is_due is not None:

        def noted(age: int, message: Any) -> bool:
            due: bool = is_due(age, message)
            if due:
                ages.append(age)
            return due

        parts.algorithm.is_due = noted  # type: ignore[attr-defined]
    iterates = parts.iterates()
    for _ in range(steps):
        next(iterates)
    worker.close()
    return {"wait_s": worker.split.wait_s, "data_s": worker.split.data_s, "ages": ages}


@pytest.mark.multiproc
@pytest.mark.parametrize("method", ["allreduce", "sgp"])
def test_waiting_for_a_slow_peer_is_communication(method: str) -> None:
    config = configure(f"algorithm={method}", "nodes=2", *SMALL)
    fast, slow = run_processes(with_a_sleeper, 2, config, 5, "gradient")
    assert fast["wait_s"] > 3 * NAP_S
    assert slow["wait_s"] < fast["wait_s"]


@pytest.mark.multiproc
def test_waiting_for_data_is_neither_compute_nor_communication() -> None:
    config = configure("algorithm=sgp", "nodes=2", *SMALL)
    fast, slow = run_processes(with_a_sleeper, 2, config, 5, "data")
    assert slow["data_s"] >= 5 * NAP_S
    assert fast["data_s"] < slow["data_s"]


@pytest.mark.multiproc
def test_arrived_messages_are_merged_early_and_none_later_than_tau() -> None:
    method = ("algorithm=sgp", "algorithm.overlap=3", "algorithm.merge=arrived", "nodes=2")
    fast, slow = run_processes(with_a_sleeper, 2, configure(*method, *SMALL), 12, "gradient")
    assert max(fast["ages"]) == 3  # the fast worker runs ahead until tau stops it
    assert max(slow["ages"]) <= 3
    assert min(slow["ages"]) < 3  # the slow one finds its messages there
