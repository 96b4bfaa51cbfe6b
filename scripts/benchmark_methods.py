"""What each synchronous method itself costs per iteration: all but gradient, communication and torch's optimiser.

    python scripts/benchmark_methods.py [--iterations 16] [--method sgp k_avg ...]

Two gloo processes, ResNet-18 on CIFAR-shaped data (11.2 million parameters), batch 32 each (the default). Printed for
each method: the share of its own work in the time of all iterations (target: 2 %), its range over iterations, and mean
milliseconds. Blocks longer than 8 steps are cut to 8, and all iterations together are whole blocks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from configuring import configure
from gloo_processes import run_in_group

from runner.config import Config, conf_dir
from runner.parts import assemble
from runner.runtimes.driver import Request

SETTINGS = (
    *("nodes=2", "dataset=synthetic", "model=resnet18_cifar", "batch_size=32", "device=cpu", "schedule=constant"),
    *("launcher=local", "dataset.train_samples=6400", "optimizer=sgd"),
)
LONGEST = 8
SETTLE = 2


class Timed(Request[Any]):
    """A handle whose waiting is timed."""

    def __init__(self, handle: Any, clock: list[float]) -> None:
        super().__init__(lambda: timed(handle.wait, clock))
        self.handle = handle

    @property
    def arrived(self) -> bool:
        return bool(self.handle.arrived)


def timed(call: Callable[[], Any], clock: list[float]) -> Any:
    started_s = time.perf_counter()
    value = call()
    clock[0] += time.perf_counter() - started_s
    return value


def own_share(config: Config, iterations: int) -> list[tuple[float, float]]:
    """In a process of a group: (seconds of an iteration, of which the method's own)."""
    parts = assemble(config, torch.device("cpu"))
    worker: Any = parts.worker
    clock = [0.0]
    gradient, exchange, all_reduce, descend = worker.gradient, worker.exchange, worker.all_reduce, worker.descend
    worker.gradient = lambda *a, **k: Timed(gradient(*a, **k), clock)
    worker.exchange = lambda *a, **k: Timed(timed(lambda: exchange(*a, **k), clock), clock)
    worker.all_reduce = lambda *a, **k: Timed(all_reduce(*a, **k), clock)
    worker.descend = lambda *a: timed(lambda: descend(*a), clock)
    rows, steps = [], parts.iterates()
    for _ in range(SETTLE + iterations):
        clock[0], started_s = 0.0, time.perf_counter()
        next(steps)
        seconds = time.perf_counter() - started_s
        rows.append((seconds, seconds - clock[0]))
    worker.close()
    return rows[SETTLE:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=16)
    known = sorted(path.stem for path in conf_dir().glob("algorithm/*.yaml"))
    parser.add_argument("--method", nargs="+", choices=known, default=known)
    arguments = parser.parse_args()
    for method in arguments.method:
        config = configure(f"algorithm={method}", *SETTINGS)
        if config["asynchronous"]:
            continue
        node = config["algorithm"]
        if node.get("period", 0) > LONGEST:
            node["period"] = LONGEST
        [rows, _] = run_in_group(own_share, 2, config, arguments.iterations)
        shares = [own_s / seconds for seconds, own_s in rows]
        seconds, own_s = (statistics.mean(column) for column in zip(*rows, strict=True))
        print(
            f"{method:22} own {100 * own_s / seconds:5.2f} % ({100 * min(shares):.2f} to {100 * max(shares):.2f}), "
            f"{1e3 * own_s:5.1f} ms of {1e3 * seconds:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
