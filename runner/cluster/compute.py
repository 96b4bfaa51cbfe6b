"""How long one gradient takes: constant, spread or replayed, on machines that are equal or not.

The time of draw k on a GPU is a pure function of (seed, rank, k): the same whatever order the workers ask in.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runner.build import ConfigError
from runner.randomness import stream_seed
from runner.results import read_rows

BLOCK = 256
"""Draws whose randomness is made together."""


@dataclass
class Compute:
    """Seconds per gradient (forward and backward pass of one mini-batch on one GPU).

    Args:
        seconds: the mean. None: that of the trace.
        distribution: `constant`, or `lognormal` with the same mean.
        sigma: of the logarithm, for lognormal.
        trace: a run's folder or one of its rank-*.jsonl: GPU r takes the compute times of recorded rank r (mod their
            number), over and over, scaled to the mean `seconds` where that is given.
        trace_sha256: of what the trace holds, filled in when a configuration is resolved.
        slow: GPU rank -> factor, for machines that are always slower.
        transient_probability: of a gradient being slowed down for once.
        transient_factor: by how much.
        sleep_ranks: GPUs that sleep after each gradient, Uniform[sleep_low_s, sleep_high_s] (Jin et al. 2016: chosen
            ranks, 0 to 0.3 s).
        sleep_low_s: as above.
        sleep_high_s: as above.

    Raises:
        ConfigError: a value out of range, or a trace that cannot be read.
    """

    seconds: float | None = None
    distribution: Literal["constant", "lognormal"] = "constant"
    sigma: float = 0.1
    trace: str | None = None
    trace_sha256: str | None = None
    slow: dict[Any, Any] | None = None
    transient_probability: float = 0.0
    transient_factor: float = 1.0
    sleep_ranks: list[Any] = field(default_factory=list)
    sleep_low_s: float = 0.0
    sleep_high_s: float = 0.3

    def __post_init__(self) -> None:
        key = "cluster.compute"
        if self.seconds is None and self.trace is None:
            raise ConfigError(f"{key}.seconds=null: seconds per gradient are needed, or a trace, or a cost group")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise ConfigError(f"{key}.seconds={self.seconds}: must be 0 or more")
        if not 0 <= self.sigma < math.inf:
            raise ConfigError(f"{key}.sigma={self.sigma}: must be 0 or more")
        if not 0 <= self.transient_probability <= 1:
            raise ConfigError(f"{key}.transient_probability={self.transient_probability}: must be between 0 and 1")
        if not 1 <= self.transient_factor < math.inf:
            raise ConfigError(f"{key}.transient_factor={self.transient_factor}: must be 1 or more")
        if (self.transient_probability > 0) != (self.transient_factor > 1):
            raise ConfigError(
                f"{key}.transient_probability={self.transient_probability} transient_factor={self.transient_factor}: "
                "have an effect together; set a probability above 0 and a factor above 1, or leave both out"
            )
        if not 0 <= self.sleep_low_s <= self.sleep_high_s < math.inf:
            raise ConfigError(
                f"{key}.sleep_low_s={self.sleep_low_s} sleep_high_s={self.sleep_high_s}: must be 0 <= low <= high"
            )
        slow = {} if self.slow is None else self.slow
        if not (isinstance(slow, dict) and all(_is_rank(r) and _is_factor(f) for r, f in slow.items())):
            raise ConfigError(f"{key}.slow={self.slow}: must map GPU ranks to positive factors, e.g. {{3: 2.0}}")
        if not (isinstance(self.sleep_ranks, list) and all(map(_is_rank, self.sleep_ranks))):
            raise ConfigError(f"{key}.sleep_ranks={self.sleep_ranks}: must be GPU ranks, e.g. [0, 5]")

    def check_ranks(self, ranks: int) -> None:
        """Refuse GPUs that do not exist.

        Raises:
            ConfigError: `slow` or `sleep_ranks` names one.
        """
        for name, named in (("slow", self.slow or {}), ("sleep_ranks", self.sleep_ranks)):
            for rank in named:
                if rank >= ranks:
                    raise ConfigError(
                        f"cluster.compute.{name}: there is no GPU {rank}; nodes x gpus_per_node = {ranks}, "
                        f"they are 0 to {ranks - 1}"
                    )


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def make_clock(compute: Compute, seed: int, workers: int, lanes: int) -> Callable[[int, int], float]:
    """(worker, draw) -> seconds of its gradient: that of the slowest of the worker's `lanes` GPUs."""
    plain = compute.distribution == "constant" and compute.trace is None
    if plain and not compute.slow and not compute.sleep_ranks and compute.transient_probability == 0:
        seconds = float(compute.seconds or 0.0)
        return lambda worker, draw: seconds
    recorded = None if compute.trace is None else _recorded(compute.trace, compute.seconds, compute.trace_sha256)
    blocks: dict[int, tuple[int, list[float]]] = {}  # the block of draws that each worker is in

    def seconds_of(worker: int, draw: int) -> float:
        block, place = divmod(draw, BLOCK)
        held = blocks.get(worker)
        if held is None or held[0] != block:
            held = blocks[worker] = block, _block(compute, recorded, seed, worker, lanes, block)
        return held[1][place]

    return seconds_of


def _block(
    compute: Compute, recorded: Sequence[Sequence[float]] | None, seed: int, worker: int, lanes: int, block: int
) -> list[float]:
    import numpy as np

    slowest = np.zeros(BLOCK)
    for rank in range(worker * lanes, (worker + 1) * lanes):
        stream = np.random.default_rng(stream_seed(seed, "compute times", rank, block))
        normal, transient, sleep = stream.standard_normal(BLOCK), stream.random(BLOCK), stream.random(BLOCK)
        if recorded is None:
            times = np.full(BLOCK, float(compute.seconds or 0.0))
        else:
            row = recorded[rank % len(recorded)]
            times = np.array([row[draw % len(row)] for draw in range(block * BLOCK, (block + 1) * BLOCK)])
        if compute.distribution == "lognormal":
            times = times * np.exp(compute.sigma * normal - compute.sigma**2 / 2)
        times = times * float((compute.slow or {}).get(rank, 1.0))
        times = np.where(transient < compute.transient_probability, times * compute.transient_factor, times)
        if rank in compute.sleep_ranks:
            times = times + compute.sleep_low_s + (compute.sleep_high_s - compute.sleep_low_s) * sleep
        slowest = np.maximum(slowest, times)
    values: list[float] = slowest.tolist()
    return values


def _recorded(trace: str, mean_s: float | None, sha256: str | None) -> list[list[float]]:
    """Compute times by recorded rank, scaled to the mean `mean_s` where that is given."""
    times = read_trace(trace)
    if sha256 not in (None, digest(times)):
        raise ConfigError(f"cluster.compute.trace={trace}: is not what it was when this run was configured; start anew")
    mean = sum(map(sum, times)) / sum(map(len, times))
    if not 0 < mean < math.inf:
        raise ConfigError(f"cluster.compute.trace={trace}: its mean compute time is {mean} s; record another run")
    scale = 1.0 if mean_s is None else mean_s / mean
    return [[scale * time for time in row] for row in times]


def digest(times: list[list[float]]) -> str:
    """What a trace holds, in 16 hexadecimal digits: a run is told by that, not by where the trace lies."""
    return hashlib.sha256(json.dumps(times).encode()).hexdigest()[:16]


def read_trace(trace: str) -> list[list[float]]:
    """Compute times per gradient, in seconds, of each recorded worker in order.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    where = Path(trace).expanduser()
    files = sorted(where.glob("rank-*.jsonl")) if where.is_dir() else [where]
    recorded: dict[tuple[str, int], list[float]] = {}  # of each worker in each file
    for file in files:
        steps: dict[int, int] = {}
        try:
            for row in read_rows(file):
                worker, step, seconds = row["worker"], row["step"], float(row["compute_s"])
                count = step - steps.get(worker, 0)
                if count > 0:  # a row may cover many steps, and the last one none
                    recorded.setdefault((file.name, worker), []).append(max(seconds / count, 0.0))
                    steps[worker] = step
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"cluster.compute.trace={trace}: {file.name} cannot be read ({type(error).__name__}: {error}); "
                "name a run's folder or one of its rank-*.jsonl"
            ) from error
    times = [recorded[key] for key in sorted(recorded)]
    if not times:
        raise ConfigError(f"cluster.compute.trace={trace}: holds no recorded iterations; name the folder of a run")
    return times
