"""What the simulator costs, relative to a bare loop that does the same work; alternating, in one call.

    python scripts/benchmark_simulator.py [--pairs 5] [--case lenet mlp timing]

lenet   32 virtual workers, batch 32, against a one-thread loop of as many gradients and optimiser steps; beside what
        two such loops of half the length take, as two processes: the best that two cores can do at that moment
mlp     256 virtual workers of the default MLP (digits, 4,810 parameters), gradients batched (problem.batched=true)
mlp_784 256 virtual workers of an MLP of 50,890 parameters, likewise: its vectors no longer fit the caches together
timing  no gradients: ResNet-50 on 32 nodes for 90 epochs, and on 1,024 nodes for 1,000 iterations; beside `import
        torch`

Times are wall seconds of `Simulation.run`, without starting Python, loading data and evaluating. Quote the ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from configuring import configure

from runner.cluster.make import iterations_per_epoch
from runner.config import Config
from runner.data import load as load_dataset
from runner.prepare import make_model, make_sampler
from runner.simulation import Simulation

VIRTUAL = ("launcher=simulated", "gpus_per_node=1", "device=cpu", "schedule=constant")
CASES = {
    "lenet": (
        "nodes=32",
        "dataset=fashion_mnist",
        "model=lenet",
        "batch_size=32",
        "dataset.train_samples=20480",
        "epochs=1",
    ),
    "mlp": ("nodes=256", "dataset=digits", "model=mlp", "batch_size=5", "epochs=20", "problem.batched=true"),
    "mlp_784": (
        *("nodes=256", "dataset=fashion_mnist", "model=mlp", "model.hidden=[64]", "batch_size=10"),
        *("dataset.train_samples=51200", "epochs=1", "problem.batched=true"),
    ),
}
TIMING = ("problem=none", "cost=resnet50_v100", "launcher=simulated")
LARGE = {
    "32 nodes, 14,040 iterations": ("nodes=32", "epochs=90"),
    "1,024 nodes, 1,000 iterations": ("nodes=1024", "epochs=1", f"problem.train_samples={1000 * 1024 * 8 * 32}"),
}


def simulated_s(config: Config) -> float:
    """Seconds of a simulated run."""
    simulation = Simulation(config, torch.device("cpu"))
    start = time.perf_counter()
    simulation.run(lambda worker, x: None)
    seconds = time.perf_counter() - start
    simulation.close()
    return seconds


def bare_s(config: Config, gradients: int) -> float:
    """Seconds of a plain loop, one thread, one network: as many gradients and optimiser steps, one by one."""
    dataset = load_dataset(config["dataset"])
    batches = dataset.batches(make_sampler(config, dataset), 0, config["seed"])
    model = make_model(config, dataset)
    settings = {k: v for k, v in config["optimizer"].items() if k not in ("_target_", "reference_lr")}
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    start = time.perf_counter()
    for iteration in range(gradients):
        images, labels = batches(iteration)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - start


def _bare_in_child(config: Config, gradients: int, seconds: Any) -> None:
    torch.set_num_threads(1)
    seconds.put(bare_s(config, gradients))


def two_bare_s(config: Config, gradients: int) -> float:
    """Seconds of two bare loops side by side, each with half of the work."""
    context = multiprocessing.get_context("spawn")
    seconds = context.Queue()
    loops = [context.Process(target=_bare_in_child, args=(config, gradients // 2, seconds)) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return max(float(seconds.get()) for _ in loops)


def compare(case: str, algorithm: str, pairs: int) -> None:
    config = configure(f"algorithm={algorithm}", *VIRTUAL, *CASES[case])
    steps = Simulation(config, torch.device("cpu")).per_epoch * config["epochs"]
    gradients = steps * config["nodes"]
    ratios, ideal = [], []
    for pair in range(pairs):
        order: list[Callable[[], float]] = [lambda: simulated_s(config), lambda: bare_s(config, gradients)]
        a, b = (order[0](), order[1]()) if pair % 2 == 0 else reversed((order[1](), order[0]()))
        ratios.append(a / b)
        ideal.append(two_bare_s(config, gradients) / b)
        print(
            f"  pair {pair + 1}: simulator {a:.2f} s, bare loop {b:.2f} s, ratio {a / b:.3f}; two processes "
            f"{ideal[-1]:.3f}",
            flush=True,
        )
    print(
        f"{case:6} {algorithm:9} {config['nodes']} workers x {steps} steps / bare loop: median ratio "
        f"{statistics.median(ratios):.3f} (range {min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs); two processes "
        f"{statistics.median(ideal):.3f} ({min(ideal):.3f} to {max(ideal):.3f})",
        flush=True,
    )


def timing(pairs: int) -> None:
    for name, overrides in LARGE.items():
        for algorithm in ("sgp", "allreduce"):
            config = configure(f"algorithm={algorithm}", *TIMING, *overrides)
            steps = config["nodes"] * config["epochs"] * iterations_per_epoch(config)
            seconds, imports = [], []
            for _ in range(pairs):
                seconds.append(simulated_s(config))
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", "import torch"], check=True)
                imports.append(time.perf_counter() - start)
            print(
                f"timing {algorithm:9} {name}: median {statistics.median(seconds):.1f} s (range {min(seconds):.1f} to "
                f"{max(seconds):.1f}), {1e6 * statistics.median(seconds) / steps:.1f} us per worker-step, "
                f"{statistics.median(seconds) / statistics.median(imports):.1f} x `import torch` "
                f"({statistics.median(imports):.1f} s)",
                flush=True,
            )


def memory() -> None:
    """1,024 workers of the MLP."""
    config: Any = configure(
        *("algorithm=sgp", *VIRTUAL, "nodes=1024", "dataset=fashion_mnist", "model=mlp", "model.hidden=[64]"),
        *("batch_size=4", "epochs=1", "problem.batched=true", "dataset.train_samples=40960"),
    )
    simulated_s(config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"memory sgp 1,024 workers of the MLP, 10 steps: peak {peak:.1f} GiB of this process", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--case", nargs="+", choices=[*CASES, "timing", "memory"], default=[*CASES, "timing", "memory"])
    parser.add_argument("--algorithm", nargs="+", default=["sgp"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in arguments.case:
        if case in CASES:
            for algorithm in arguments.algorithm:
                compare(case, algorithm, arguments.pairs)
        elif case == "timing":
            timing(arguments.pairs)
        else:
            memory()


if __name__ == "__main__":
    main()
