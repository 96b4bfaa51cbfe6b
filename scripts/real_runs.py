"""Real runs in the processes of one gloo group, taking turns: what `calibrate.py` and `benchmark_fidelity.py` measure.

Whoever else uses a machine slows it for seconds at a time, by more than what is to be told apart here. So nothing is
measured once and for long: all runs are kept open side by side, and advance by a few iterations each, round after
round. They are made of the parts that a run of `run-experiment` is made of: data, problem, worker, recorder, driver.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from gloo_processes import run_in_group

from algorithms.worker import Algorithm, Vector, Worker
from runner.config import Config, ranks
from runner.data import load
from runner.parts import assemble
from runner.prepare import make_model
from runner.recording import Journal, Recorder
from runner.runtimes.driver import iterates
from runner.runtimes.processes import ProcessWorker

SETTLE = 3
"""Iterations at the start of a turn that do not count: the caches still hold another run's data."""


def vector_length(config: Config) -> int:
    """Numbers in an iterate: the parameters of the network."""
    return sum(each.numel() for each in make_model(config, load(config["dataset"])).parameters())


@dataclass
class Exchanges:
    """A gradient, then a neighbour exchange around a ring: of half a vector of so many numbers, and half its weight."""

    length: int
    topology: ClassVar[Literal["none"]] = "none"

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        x, to, source = torch.zeros(self.length), (worker.rank + 1) % worker.size, (worker.rank - 1) % worker.size
        while True:
            await worker.gradient(worker.initial())
            share = 0.5 * x
            received = await worker.exchange({to: (share, 0.5)}, [source])
            x = share + received[source][0]
            yield x


@dataclass
class Reductions:
    """A gradient, then an all-reduce of a vector of so many numbers."""

    length: int
    topology: ClassVar[Literal["none"]] = "none"

    async def run(self, worker: Worker) -> AsyncGenerator[Vector, None]:
        x = torch.zeros(self.length)
        while True:
            await worker.gradient(worker.initial())
            x = await worker.all_reduce(x, worker.everyone)
            yield x


PROBES: dict[str, type[Exchanges] | type[Reductions]] = {"exchange": Exchanges, "all-reduce": Reductions}


@dataclass
class Turn:
    """What the processes did in a turn, each an array (processes, iterations).

    Args:
        seconds: of each iteration.
        waits: of those, what was spent waiting for others.
        ends: when it ended, on a clock that all share.
    """

    seconds: np.ndarray
    waits: np.ndarray
    ends: np.ndarray

    @property
    def iteration_s(self) -> float:
        return float(self.seconds.mean())

    @property
    def compute(self) -> np.ndarray:
        """(processes, iterations) all but the waits."""
        compute: np.ndarray = self.seconds - self.waits
        return compute

    def operation_s(self, kind: str) -> float:
        """Mean seconds of a probe's exchange, from when both of its ends waited, or all-reduce, from when all did."""
        waited = self.ends - self.waits
        posted: np.ndarray = (
            np.maximum(waited, np.roll(waited, 1, axis=0)) if kind == "exchange" else waited.max(axis=0)
        )
        return float(np.maximum(self.ends - posted, 0.0).mean())


class OpenRun:
    """A run that has begun and advances when told to."""

    def __init__(self, worker: ProcessWorker, algorithm: Algorithm, recorder: Recorder | None = None) -> None:
        self.worker, self.recorder, self.steps = worker, recorder, iterates(algorithm.run(worker))

    def turn(self, iterations: int) -> list[tuple[float, float, float]]:
        """(seconds, of which waiting, when it ended) of each iteration."""
        rows = []
        split = self.worker.split
        dist.barrier()
        for _ in range(SETTLE + iterations):
            waited_s, started_s = split.wait_s, time.perf_counter()
            next(self.steps)
            if self.recorder is not None:
                self.recorder.step()
            ended_s = time.perf_counter()
            rows.append((ended_s - started_s, split.wait_s - waited_s, ended_s))
        return rows[SETTLE:]


Round = dict[tuple[str, str, int], Turn]
"""(name of a run, what it did, a number) -> what was measured."""


def take_turns(
    runs: dict[str, Config],
    probed: dict[str, list[int]],
    *,
    rounds: int,
    turns: int,
    iterations: int,
    hosts: list[str] | None = None,
) -> list[Round]:
    """Start the runs in one group of processes, and let them take turns.

    Args:
        runs: by name; all of equally many processes.
        probed: of some of them, lengths of the vectors that are exchanged and all-reduced after gradients of theirs.
        turns: of each run in a round.
        iterations: in a turn.
        hosts: network namespaces, one for each process; None: this machine's loopback interface.

    Returns:
        By round: (name, "run", number of the turn), (name, "exchange", length) and (name, "all-reduce", length).
    """
    [processes] = {ranks(config) for config in runs.values()}
    measured = run_in_group(_take_turns, processes, runs, probed, rounds, turns, iterations, hosts=hosts)
    together = []
    for each in zip(*measured, strict=True):  # one round, by process
        values = {key: np.array([own[key] for own in each]) for key in each[0]}  # (processes, iterations, 3)
        together.append({key: Turn(*np.moveaxis(value, 2, 0)) for key, value in values.items()})
    return together


Measured = dict[tuple[str, str, int], list[tuple[float, float, float]]]


def _take_turns(
    configs: dict[str, Config], probed: dict[str, list[int]], rounds: int, turns: int, iterations: int
) -> list[Measured]:
    with _opened(configs) as runs:
        measured = []
        for done in range(rounds):
            now: Measured = {}
            for name, lengths in probed.items():
                for kind, probe in PROBES.items():
                    for length in lengths:
                        probing = OpenRun(runs[name].worker, cast("Algorithm", probe(length)))
                        now[name, kind, length] = probing.turn(max(3, iterations // 3))
            for name, run in runs.items():
                for turn in range(turns):
                    now[name, "run", turn] = run.turn(iterations)
            measured.append(now)
            if dist.get_rank() == 0:
                print(f"  round {done + 1} of {rounds}", flush=True)
        return measured


@contextmanager
def _opened(configs: dict[str, Config]) -> Iterator[dict[str, OpenRun]]:
    runs: dict[str, OpenRun] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs.items():
            parts = assemble(config, torch.device("cpu"))
            where = Path(folder, str(len(runs)))
            where.mkdir()
            journal = Journal(where, dist.get_rank(), False)
            recorder = Recorder(journal, config, parts.worker, parts.iterations_per_epoch, "wall")
            parts.clock.restart()
            runs[name] = OpenRun(parts.worker, parts.algorithm, recorder)
        yield runs
        for run in runs.values():
            run.worker.close()
            if run.recorder is not None:
                run.recorder.journal.close()
        dist.barrier()
