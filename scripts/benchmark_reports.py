"""How long a report over many runs takes: 10,000 made-up ones, of which some have failed, are unfinished or broken.

    python scripts/benchmark_reports.py > results/reports.txt

Each command is started anew, as a user would; the median of three, and the lines that say what was left out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS = ("allreduce", "dpsgd", "sgp", "gossip_pull", "hier_avg")
NODES = (4, 8, 16, 32, 64)
EPOCHS = 12
COMMANDS = {
    "tabulate": ["table", "--by", "method,nodes", "--values", "top1,epoch_time_s,speedup,scaling_efficiency"],
    "draw": ["plot", "--x", "epoch", "--by", "method,nodes", "--output", "figure.png"],
}


def make(root: Path, runs: int) -> None:
    """Runs of a virtual sweep below root/runs; 1 in 100 failed, 1 in 100 still running, 1 in 100 broken."""
    numbers = random.Random(0)
    for i in range(runs):
        method, nodes = METHODS[i % 5], NODES[i // 5 % 5]
        folder = root / "runs" / f"sweep{i % 10}" / f"{i:012x}"
        folder.mkdir(parents=True)
        kind = i % 100
        status = {0: "failed", 1: "queued"}.get(kind, "finished")
        (folder / "state.json").write_text(json.dumps({"status": status, "reason": None}))
        if kind < 2:
            continue
        final = 0.8 + 0.05 * numbers.random()
        summary: dict[str, Any] = {
            "algorithm": method,
            "dataset": "digits",
            "model": "mlp",
            "clock": "virtual",
            "cluster": "10gbe",
        }
        summary |= {
            "nodes": nodes,
            "gpus_per_node": 1,
            "workers": nodes,
            "batch_size": 8,
            "global_batch_size": 8 * nodes,
        }
        summary |= {"seed": i // 25, "epochs": EPOCHS, "evaluated_model": "mean", "top1_mean_model": final}
        summary |= {"epoch_time_s": 10 / nodes, "iteration_time_s": 0.1 + 0.001 * nodes, "training_time_s": 120 / nodes}
        text = json.dumps(summary)
        (folder / "summary.json").write_text(text[: len(text) // 2] if kind == 2 else text)
        rows = (
            {"epoch": k, "time_s": 10 / nodes * k, "top1_mean_model": final * (1 - 0.5**k)}
            for k in range(1, EPOCHS + 1)
        )
        (folder / "evaluations.jsonl").write_text("\n".join(map(json.dumps, rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        make(Path(place), arguments.runs)
        for name, command in COMMANDS.items():
            seconds, told = [], ""
            for _ in range(3):
                began = time.perf_counter()
                done = subprocess.run(
                    [str(Path(sys.executable).with_name("experiments")), *command, "--results-dir", place],
                    cwd=place, capture_output=True, text=True, check=True,
                )  # fmt: skip
                seconds.append(time.perf_counter() - began)
                told = "\n".join([*done.stdout.splitlines(), *done.stderr.splitlines()])
            spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
            print(f"{name} {arguments.runs} runs: {statistics.median(seconds):.1f} s ({spread})")
            print("\n".join(f"  {line}" for line in told.splitlines() if line.startswith("Left out")))


if __name__ == "__main__":
    main()
