"""How long a login node is busy: submitting one run, a sweep of 100, and looking at 1,000 runs.

    scripts/slurm_box start
    python scripts/benchmark_slurm.py [--times 5]

Each command alternates with `python -c 'import torch, torchvision'`, which is most of what checking a configuration
for real takes, and the submissions with a bare `sbatch`. Jobs are held and cancelled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELD = ("launcher=slurm", "nodes=2", "gpus_per_node=1", "device=cpu", "launcher.additional_parameters={hold: true}")
TORCH = (sys.executable, "-c", "import torch, torchvision")
SBATCH = ("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true")
RUNS = 1000


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def submit(*arguments: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        passed_s = seconds("run-experiment", *HELD, f"results_dir={folder}", *arguments)
        jobs = {
            json.loads(file.read_text())["job"].partition("_")[0] for file in Path(folder).glob("runs/*/*/job.json")
        }
        subprocess.run(["scancel", *jobs], check=True)
    return passed_s


def bare_sbatch() -> float:
    start = time.perf_counter()
    job = subprocess.run(SBATCH, check=True, capture_output=True, text=True).stdout.strip()
    passed_s = time.perf_counter() - start
    subprocess.run(["scancel", job], check=True)
    return passed_s


def a_thousand_runs(folder: Path) -> None:
    """One real run, finished, and copies of it with other seeds, every tenth of them without its end."""
    subprocess.run(
        ["run-experiment", "launcher=local", "nodes=2", "device=cpu", "epochs=2", f"results_dir={folder}"],
        check=True,
        capture_output=True,
    )
    [run] = folder.glob("runs/*/*")
    config = (run / "config.yaml").read_text()
    for seed in range(1, RUNS):
        copy = run.with_name(f"{seed:012x}")
        shutil.copytree(run, copy)
        (copy / "config.yaml").write_text(config.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
        if seed % 10 == 0:
            (copy / "summary.json").unlink()
            (copy / "state.json").write_text('{"status": "interrupted", "reason": "stopped by SIGINT"}')


def told(values: list[float]) -> str:
    return f"{statistics.median(values):5.2f} s ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    sweep = ("-m", "algorithm=sgp,allreduce", "seed=range(50)")
    with tempfile.TemporaryDirectory() as folder:
        a_thousand_runs(Path(folder))
        status = ("experiments", "status", "--results-dir", folder)
        commands = {
            "one run submitted": lambda: submit("algorithm=sgp"),
            "100 cells submitted": lambda: submit(*sweep),
            f"experiments status of {RUNS:,} runs": lambda: seconds(*status),
            "import torch, torchvision": lambda: seconds(*TORCH),
            "a bare sbatch": bare_sbatch,
        }
        for command in commands.values():
            command()  # once, uncounted: byte code and the page cache
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(times):
            for name, command in commands.items():
                found[name].append(command())
    print(f"Wall time, median of {times} (range), alternating:\n")
    for name, values in found.items():
        print(f"  {name:34}{told(values)}")


if __name__ == "__main__":
    main()
