"""How long until something happens: ratios of whole commands, alternating.

    python scripts/benchmark_startup.py [--pairs 7]

1. `run-experiment --help` against a bare Hydra app's `--help`.
2. From `run-experiment nodes=4` to the first recorded training step, against `python -c 'import torch, torchvision'`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BARE = """
import hydra
@hydra.main(config_path=None, version_base="1.3")
def main(config): pass
main()
"""


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def until_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = ["run-experiment", "nodes=4", "device=cpu", "launcher=local", f"results_dir={folder}"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not any(path.stat().st_size for path in Path(folder).glob("runs/*/*/rank-00000.jsonl")):
            assert process.poll() is None, "the run ended before its first step"
            time.sleep(0.005)
        passed_s = time.perf_counter() - start
        process.wait()
        return passed_s


def compare(title: str, ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> None:
    ours()  # once, uncounted: byte code and the page cache
    theirs()
    a, b = zip(*((ours(), theirs()) for _ in range(pairs)), strict=True)
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    print(
        f"{title}: median ratio {statistics.median(ratios):.2f} (range {min(ratios):.2f} to {max(ratios):.2f}, "
        f"{pairs} pairs; medians {statistics.median(a):.2f} s and {statistics.median(b):.2f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        compare(
            "run-experiment --help / bare Hydra --help",
            lambda: seconds("run-experiment", "--help"),
            lambda: seconds(sys.executable, str(bare), "--help"),
            pairs,
        )
    compare(
        "run-experiment nodes=4 to its first step / import torch, torchvision",
        until_first_step,
        lambda: seconds(sys.executable, "-c", "import torch, torchvision"),
        pairs,
    )


if __name__ == "__main__":
    main()
