"""Time per iteration of our methods against a plain hand-written DDP loop: same model, data and number of processes.

    python scripts/benchmark_overhead.py [--pairs 7] [--case lenet resnet18]

Whole runs of `run-experiment` and of scripts/plain_ddp.py alternate on 2 gloo processes; each gives its median time
per iteration (the first 10 left out), each pair a ratio. Printed: median ratio with its range. Also what recorder and
coroutine driver cost per step, measured apart. Absolute times are this machine's; quote ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
WARM_UP = 10
CASES = {  # name: (overrides, iterations per run)
    "lenet": (["dataset=fashion_mnist", "model=lenet", "batch_size=32", "dataset.train_samples=38400"], 600),
    "resnet18": (["dataset=synthetic", "model=resnet18_cifar", "batch_size=16", "dataset.train_samples=640"], 20),
}


def ours(algorithm: str, overrides: list[str], folder: Path) -> tuple[float, Path]:
    """Median seconds per iteration of one run of ours, and the run's folder."""
    command = [
        *("run-experiment", f"algorithm={algorithm}", "nodes=2", "epochs=1", "device=cpu", "rerun=true"),
        *("schedule=constant", f"results_dir={folder}", *overrides),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = (folder / "runs" / algorithm).glob("[0-9a-f]*")
    rows = [json.loads(line) for line in (run / "rank-00000.jsonl").read_text().splitlines()]
    times = [row["time_s"] for row in rows]
    steps: list[float] = [b - a for a, b in itertools.pairwise(times[WARM_UP:])]
    return statistics.median(steps), run


def plain(run: Path, iterations: int) -> float:
    """Median seconds per iteration of the plain loop with the configuration of a run of ours."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        command = [sys.executable, str(HERE / "plain_ddp.py"), str(run), str(iterations), str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds: list[float] = json.loads(out.read_text())
        return statistics.median(seconds[WARM_UP:])


def compare(case: str, algorithm: str, pairs: int) -> None:
    overrides, iterations = CASES[case]
    ratios, ours_s, plain_s = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, run = ours(algorithm, overrides, folder)  # uncounted; its configuration is what the plain loop reads
        for pair in range(pairs):
            if pair % 2:  # so that neither is always the second
                b = plain(run, iterations)
                a, run = ours(algorithm, overrides, folder)
            else:
                a, run = ours(algorithm, overrides, folder)
                b = plain(run, iterations)
            ratios.append(a / b)
            ours_s.append(a)
            plain_s.append(b)
            print(f"  pair {pair + 1}: ours {1e3 * a:.2f} ms, plain {1e3 * b:.2f} ms, ratio {a / b:.3f}", flush=True)
    print(
        f"{case:9} {algorithm:10} / plain DDP: median ratio {statistics.median(ratios):.3f} "
        f"(range {min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs; medians {1e3 * statistics.median(ours_s):.2f} "
        f"and {1e3 * statistics.median(plain_s):.2f} ms)",
        flush=True,
    )


def bookkeeping() -> None:
    """Seconds that one step costs in the coroutine driver and in the recorder, each alone in a loop."""
    from runner.clock import Split, TrainingClock
    from runner.recording import Journal, Recorder
    from runner.runtimes.driver import Request, iterates

    async def steps(count: int) -> AsyncGenerator[int, None]:
        for step in range(count):
            await Request(lambda: True)
            await Request(lambda: None)
            yield step

    count = 5000
    start = time.perf_counter()
    for _ in iterates(steps(count)):
        pass
    driver_s = (time.perf_counter() - start) / count
    worker: Any = SimpleNamespace(rank=0, draw=0, loss=torch.tensor(0.5), split=Split(), clock=TrainingClock(), lr=0.05)
    settings = {"record_every": 1, "warmup_iterations": WARM_UP, "batch_size": 16, "nodes": 2, "gpus_per_node": 1}
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name), 0, tensorboard=False)
        recorder = Recorder(journal, settings, worker, 100, "wall")
        start = time.perf_counter()
        for _ in range(count):
            worker.draw += 1
            recorder.step()
        recorder_s = (time.perf_counter() - start) / count
        recorder.close()
        journal.close()
    print(f"per step: coroutine driver {1e6 * driver_s:.1f} us, recorder {1e6 * recorder_s:.1f} us", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--case", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--algorithm", nargs="+", default=["allreduce", "sgp"])
    arguments = parser.parse_args()
    bookkeeping()
    for case in arguments.case:
        for algorithm in arguments.algorithm:
            compare(case, algorithm, arguments.pairs)


if __name__ == "__main__":
    main()
