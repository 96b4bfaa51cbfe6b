"""All processes stop at one step, which none of them has passed, wherever each is when the signal comes."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest
import torch.distributed as dist

from runner.halting import Halt, Signals

STEPS = 10_000


class Lockstep:
    """Processes, as threads, of which none gets further ahead of the slowest than so many steps."""

    def __init__(self, size: int, lead: int) -> None:
        self.draws, self.lead = [0] * size, lead
        self.changed = threading.Condition()

    def begin(self, rank: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.draws[rank] - min(self.draws) < self.lead)
            self.draws[rank] += 1
            self.changed.notify_all()


@pytest.mark.parametrize(("size", "lead", "warned"), [(1, 1, 1), (2, 1, 2), (4, 3, 1), (6, 2, 6)])
def test_all_stop_at_one_step(size: int, lead: int, warned: int) -> None:
    store, steps, stopped = dist.HashStore(), Lockstep(size, lead), [0] * size
    signals = [Signals() for _ in range(size)]
    halts = [Halt(store, rank, size, lambda rank=rank: steps.draws[rank], signals[rank]) for rank in range(size)]  # type: ignore[misc]

    def train(rank: int) -> None:
        chance = random.Random(rank)
        for step in range(1, STEPS):
            steps.begin(rank)
            time.sleep(chance.random() / 500)
            if halts[rank].is_at(step):
                stopped[rank] = step
                return

    threads = [threading.Thread(target=train, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    for each in random.Random(size).sample(signals, warned):
        each.number = signal.SIGUSR2
        each._heard.set()
    for thread in threads:
        thread.join()
    assert 0 < stopped[0] < STEPS - 1
    assert set(stopped) == {stopped[0]}
    assert {halt.number for halt in halts} == {signal.SIGUSR2}
    for halt in halts:
        halt.close()


def test_without_a_signal_nobody_stops() -> None:
    store = dist.HashStore()
    halts = [Halt(store, rank, 2, lambda: 5, Signals()) for rank in (0, 1)]
    assert not any(halt.is_at(5) for halt in halts)
    for halt in halts:
        halt.close()
