"""Is the virtual clock right in the world? Predicted against measured time per iteration.

    python scripts/benchmark_fidelity.py [--rounds 5] [--output results/fidelity.md]

Local: 2 and then 4 real gloo processes on this machine; allreduce, sgp and sgp with overlap=1; a small and a large
message. Emulated: 4 and 8 hosts with links of 1 Gbit/s and 500 Mbit/s (network namespaces, shaped by tc), with a sleep
as compute; skipped, with the reason, where the kernel or the user's rights do not allow it. The processes are the
runner's own (data, gradients, torch's DDP, optimiser, recorder); so is the sleeping network's training.

All methods take turns, round after round. In each round each has two: from one, its compute time is calibrated as
scripts/calibrate.py says (iterations less their waits); the other is what is compared. The virtual
clock predicts the waits: messages, all-reduces, what the backward pass or the overlap hides, the slowest worker.
Locally the links are those that calibrate.py measures; on emulated hosts they have the rate that tc was told, and the
latency of a message of one number. Nothing is fitted to the turns that
are compared, but the compute time is of the same method: where nothing waits (sgp overlap=1) the clock has little left
to predict, and allreduce and sgp test it more. Times are medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import calibrate
import numpy as np
import torch
from configuring import configure
from emulated_hosts import emulated_hosts, why_not
from real_runs import Round, take_turns, vector_length

from runner.config import Config
from runner.results import read_json
from runner.simulation import simulate

METHODS = {
    "allreduce": ["algorithm=allreduce"],
    "sgp": ["algorithm=sgp"],
    "sgp overlap=1": ["algorithm=sgp", "algorithm.overlap=1"],
}
MODELS = {
    "lenet, batch 32": ["model=lenet", "batch_size=32"],
    "mlp of 2048, batch 128": ["model=mlp", "model.hidden=[2048]", "batch_size=128"],
}
LOCAL_WORKERS, EMULATED_WORKERS, RATES = (2, 4), (4, 8), (1e9, 5e8)
LOCAL_ITERATIONS, EMULATED_ITERATIONS = 25, 4
EMULATED_ROUNDS = 3
SLEEP_S, SLEEPER_LENGTH = 0.2, 2_000_000
VIRTUAL_ITERATIONS = 300
TARGET = 0.15


@dataclass
class Case:
    """One method on one kind of cluster.

    Args:
        predicted: seconds per iteration, one for each round; `measured` too.
    """

    where: str
    workers: int
    work: str
    message_bytes: int
    method: str
    predicted: list[float]
    measured: list[float]

    @property
    def ratios(self) -> np.ndarray:
        ratios: np.ndarray = np.array(self.predicted) / np.array(self.measured)
        return ratios

    def row(self) -> str:
        low, middle, high = self.ratios.min(), float(np.median(self.ratios)), self.ratios.max()
        verdict = "yes" if abs(middle - 1) <= TARGET else "no"
        return (
            f"| {self.where} | {self.workers} | {self.work} | {self.message_bytes / 1e6:.2f} | {self.method} "
            f"| {1e3 * np.median(self.predicted):.2f} | {1e3 * np.median(self.measured):.2f} "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) | {verdict} |"
        )


TITLE = """# The virtual clock against the world: time per iteration

`python scripts/benchmark_fidelity.py`, whose head says what is compared; {about}. Medians over the rounds; ratio:
predicted / measured. "here": gloo processes of one machine; Mbit/s: emulated hosts, a sleep as compute.
"""
HEAD = (
    "| where | workers | work | message (MB) | method | predicted (ms) | measured (ms) | ratio (range) | within 15 % "
    "|\n|---|--:|---|--:|---|--:|--:|--:|---|"
)


def predict(
    method: str,
    workers: int,
    nbytes: int,
    inter: calibrate.Link,
    compute: calibrate.Compute,
    reduction: calibrate.Link | None = None,
) -> float:
    """Seconds per iteration of a method on the virtual cluster: its clock asks for no gradient's value."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibrate.write_cluster(folder, "measured", calibrate.cluster_file([], inter, compute, reduction))
        config = configure(
            *METHODS[method],
            *("launcher=simulated", "cluster=measured", "problem=none", f"nodes={workers}", "batch_size=1", "epochs=1"),
            *(f"problem.train_samples={workers * VIRTUAL_ITERATIONS}", f"cost.message_bytes={nbytes}", "device=cpu"),
            *("--config-dir", str(folder)),
        )
        simulate(config, folder, torch.device("cpu"))
        summary = read_json(folder / "summary.json")
        assert summary is not None
        return float(summary["iteration_time_s"])


def local(workers: int, rounds: int) -> Iterator[Case]:
    """Processes of this machine."""
    print(f"{workers} processes here", flush=True)
    common = ("dataset=fashion_mnist", "dataset.train_samples=25600", f"nodes={workers}", *calibrate.REAL)
    configs = {
        f"{work} {method}": configure(*common, *model, *choice)
        for work, model in MODELS.items()
        for method, choice in METHODS.items()
    }
    length = {work: vector_length(configs[f"{work} sgp"]) for work in MODELS}
    probed = {f"{work} sgp": calibrate.probe_lengths(length[work]) for work in MODELS}
    found = take_turns(configs, probed, rounds=rounds, turns=2, iterations=LOCAL_ITERATIONS)
    for work in MODELS:
        inter, reduction = (
            calibrate.fit_link(kind, workers, seconds)
            for kind, seconds in calibrate.messages(found, f"{work} sgp").items()
        )
        nbytes = calibrate.FLOAT_BYTES * length[work]
        for method in METHODS:
            predicted, measured = compared(found, f"{work} {method}", method, nbytes, inter, reduction)
            yield Case("here", workers, work, nbytes, method, predicted, measured)


def compared(
    rounds: list[Round],
    name: str,
    method: str,
    nbytes: int,
    inter: calibrate.Link,
    reduction: calibrate.Link | None = None,
) -> tuple[list[float], list[float]]:
    """Seconds per iteration in each round: predicted from one turn's compute times, measured in the other."""
    # In odd rounds the second turn calibrates, so that a machine that slows down favours neither.
    turns = [(each[name, "run", odd % 2], each[name, "run", 1 - odd % 2]) for odd, each in enumerate(rounds)]
    workers = len(turns[0][0].seconds)
    predicted = [
        predict(method, workers, nbytes, inter, calibrate.fit_compute(one.compute), reduction) for one, _ in turns
    ]
    return predicted, [other.iteration_s for _, other in turns]


def emulated(workers: int, bits_per_s: float) -> Iterator[Case]:
    """Hosts of their own on shaped links."""
    where = f"{bits_per_s / 1e6:.0f} Mbit/s"
    print(f"{workers} emulated hosts, {where}", flush=True)
    configs = {method: sleeping(workers, choice) for method, choice in METHODS.items()}
    with emulated_hosts(workers, bits_per_s) as hosts:
        found = take_turns(
            configs, {"sgp": [1]}, rounds=EMULATED_ROUNDS, turns=2, iterations=EMULATED_ITERATIONS, hosts=hosts
        )
    [latency_s] = calibrate.messages(found, "sgp")[calibrate.EXCHANGE].values()
    inter, nbytes = calibrate.Link(latency_s, bits_per_s / 8), calibrate.FLOAT_BYTES * SLEEPER_LENGTH
    for method in METHODS:
        predicted, measured = compared(found, method, method, nbytes, inter)
        yield Case(where, workers, f"{1e3 * SLEEP_S:.0f} ms of sleep", nbytes, method, predicted, measured)


def sleeping(workers: int, choice: list[str]) -> Config:
    """A run whose network sleeps."""
    config = configure(*choice, f"nodes={workers}", "batch_size=1", "dataset=digits", *calibrate.REAL)
    config["model"] = {"_target_": "sleeper.Sleeper", "length": SLEEPER_LENGTH, "seconds": SLEEP_S}
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of the local runs")
    parser.add_argument("--part", nargs="+", choices=["local", "emulated"], default=["local", "emulated"])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8], help="only these numbers of workers")
    parser.add_argument("--output", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception: no host is left behind
    about = f"{os.cpu_count()} cores, torch {torch.__version__}, load average at the start {os.getloadavg()[0]:.1f}"
    lines = [TITLE.format(about=about), HEAD]
    cases: list[Iterator[Case]] = []
    if "local" in arguments.part:
        cases += [local(workers, arguments.rounds) for workers in LOCAL_WORKERS if workers in arguments.workers]
    skipped = why_not() if "emulated" in arguments.part else None
    if "emulated" in arguments.part and skipped is None:
        cases += [
            emulated(workers, rate) for workers in EMULATED_WORKERS for rate in RATES if workers in arguments.workers
        ]
    if skipped is not None:
        lines.insert(1, f"Emulated hosts were left out: {skipped}.\n")
        print(lines[1])
    for case in itertools.chain.from_iterable(cases):
        lines.append(case.row())
        print(lines[-1], flush=True)
        if arguments.output is not None:
            arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
