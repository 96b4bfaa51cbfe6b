"""Which settings of its own does a method train the default problem best with? Prints a table; changes nothing.

    python scripts/tune_defaults.py                 # all methods that have something to tune
    python scripts/tune_defaults.py bmuf eamsgd     # these

Every combination has the same budget: 10 epochs of digits with mlp on 4 virtual workers that are not equally fast, with
each of three seeds. Where a paper's values train about as well as the best, the defaults in conf/algorithm are those.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from configuring import configure

from runner.simulation import simulate

SEEDS = (0, 1, 2)
COMMON = (
    *("launcher=simulated", "cluster=laptop", "cluster.compute.distribution=lognormal", "cluster.compute.sigma=0.3"),
    *("nodes=4", "device=cpu", "evaluation.every=10"),
)
GRIDS: dict[str, dict[str, list[object]]] = {
    "allreduce": {},  # what the others are held against
    "bmuf": {
        "algorithm.period": [4, 8],
        "algorithm.momentum": ["keep", "reset"],
        "algorithm.block_momentum": ["null", 0.5],
    },
    "diloco": {
        "algorithm.period": [4, 8],
        "algorithm.outer_momentum": [0.5, 0.9],
        "optimizer": ["adamw", "inner_adamw"],
    },
    "noloco": {
        "algorithm.period": [4, 8],
        "algorithm.outer_momentum": [0.3, 0.5],
        "optimizer": ["adamw", "inner_adamw"],
    },
    "downpour": {
        "optimizer": ["sgd", "plain_sgd", "adagrad"],
        "algorithm.n_push": [1, 4],
        "algorithm.n_fetch": [1, 4],
    },
    "eamsgd": {"algorithm.tau": [4, 10], "algorithm.delta": [0.9, 0.95, 0.99], "optimizer.reference_lr": [0.5, 1.0]},
    "easgd": {"algorithm.tau": [1, 4, 10], "algorithm.beta": [0.8, 0.9]},
    "gossip_pull": {"algorithm.comm_interval": [1, 4], "algorithm.rounds": [1, 2]},
    "gossip_push": {"algorithm.comm_interval": [1, 4]},
    "lsgd": {"algorithm.tau": [1, 4], "algorithm.local_pull": [0.1, 0.3], "algorithm.global_pull": [0.1, 0.3]},
    "sasgd": {"algorithm.T": [2, 8, 50], "optimizer.reference_lr": [0.5, 1.0, 2.0]},
    "slowmo": {"algorithm.period": [4, 12], "algorithm.slow_momentum": [0.5, 0.7]},
}


def top1(*overrides: str) -> float:
    """Of the model that the run evaluates, after its last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(configure(*COMMON, *overrides), Path(folder), torch.device("cpu"))
        summary = json.loads(Path(folder, "summary.json").read_text())
    return float(summary["top1_centre" if summary["evaluated_model"] == "centre" else "top1_mean_model"])


def main() -> None:
    methods = sys.argv[1:] or list(GRIDS)
    unknown = sorted(set(methods) - set(GRIDS))
    if unknown:
        sys.exit(f"tune_defaults: nothing is known to tune of {', '.join(unknown)}; known: {', '.join(GRIDS)}")
    torch.set_num_threads(1)
    print("top-1 (%), mean and least of three seeds")
    for method in methods:
        rows = []
        for values in itertools.product(*GRIDS[method].values()):
            settings = [f"{key}={value}" for key, value in zip(GRIDS[method], values, strict=True)]
            scores = [100 * top1(f"algorithm={method}", *settings, f"seed={seed}") for seed in SEEDS]
            rows.append((statistics.mean(scores), min(scores), " ".join(settings) or "as it is"))
        for mean, least, what in sorted(rows, reverse=True):
            print(f"  {mean:5.2f}  {least:5.2f}  {method}  {what}", flush=True)


if __name__ == "__main__":
    main()
