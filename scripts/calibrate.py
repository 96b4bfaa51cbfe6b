"""Measure this machine, and write a `cluster` file that makes the virtual clock tell its time.

    python scripts/calibrate.py here nodes=2 algorithm=sgp dataset=fashion_mnist model=lenet batch_size=32
    run-experiment nodes=2 algorithm=sgp [the same] launcher=simulated cluster=here --config-dir calibrated

The first line starts two real gloo processes, and writes calibrated/cluster/here.yaml; it takes what `run-experiment`
takes. What is measured, all processes at work at once (four on two cores are slower than two):

- Compute: seconds of an iteration of a real run of that configuration, less its waits for other workers. That is what
  the recorder writes as compute_s and data_s, and all that the virtual clock does not model: the gradient, the next
  batch, the optimiser's step, the method's own arithmetic, copying a message into a socket, the recorder. On a CPU the
  last ones are not small, and differ between methods and sizes: so a file holds for the method, model and batch size
  that it was made with. The waits are what the virtual clock predicts; none of them enters here.
  How much iterations differ: sigma, by which the slowest of all processes takes as long as it did on average.
- Links: what a neighbour exchange makes its receiver wait once both ends are there, for vectors from one number to
  twice the model (4 MB at least), each after a gradient as in a run (cold caches, sleeping threads): latency +
  n / bandwidth. And the wait in an all-reduce once all are there, 2 (N - 1) latency + 2 (N - 1) / N n / bandwidth
  (`reduction_link`). They are fitted apart (least squares of the relative errors), because they are not the same
  stack: gloo hands an all-reduce to a thread of its own and sums in it, while much of a message is sent by the worker
  itself, and so is in its compute time.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from configuring import configure
from real_runs import Round, take_turns, vector_length

from runner.build import ConfigError
from runner.config import Config, gpus_per_worker, ranks

FLOAT_BYTES = 4
EXCHANGE, ALL_REDUCE = "exchange", "all-reduce"
REAL = ("launcher=local", "device=cpu", "backend=gloo", "epochs=100000")


@dataclass
class Link:
    latency_s: float
    bandwidth: float  # bytes per second


@dataclass
class Compute:
    seconds: float  # the mean
    sigma: float  # of the logarithm


def probe_lengths(length: int) -> list[int]:
    """Of the vectors that are sent to measure the links, for iterates of that length."""
    own = [max(2, length // 2), length, 2 * length]
    return sorted({1, *own, max(1_000_000, *own)})  # a bandwidth cannot be told from messages that cost only latency


def messages(rounds: list[Round], name: str) -> dict[str, dict[int, float]]:
    """Kind of operation -> bytes -> seconds, after gradients of the run of that name: the median over the rounds."""
    found: dict[str, dict[int, float]] = {EXCHANGE: {}, ALL_REDUCE: {}}
    for run, kind, length in rounds[0]:
        if run == name and kind in found:
            turns = [each[run, kind, length] for each in rounds]
            found[kind][FLOAT_BYTES * length] = float(np.median([turn.operation_s(kind) for turn in turns]))
    return found


def equation(kind: str, processes: int, nbytes: float) -> tuple[float, float]:
    """How many latencies, and how many bytes over the bandwidth, an operation takes on the virtual cluster."""
    hops = 2 * (processes - 1)
    return (1.0, nbytes) if kind == EXCHANGE else (hops, hops / processes * nbytes)


def operation_s(kind: str, processes: int, nbytes: float, link: Link) -> float:
    """Seconds of an operation on the virtual cluster."""
    latencies, crossing = equation(kind, processes, nbytes)
    return latencies * link.latency_s + crossing / link.bandwidth


def fit_link(kind: str, processes: int, seconds: dict[int, float]) -> Link:
    """Latency and bandwidth, least squares of the relative errors, neither below 0.

    Args:
        seconds: bytes -> seconds of the operation.

    Raises:
        RuntimeError: large messages were not slower than small ones.
    """
    t = np.maximum(list(seconds.values()), 1e-7)
    A = np.array([equation(kind, processes, nbytes) for nbytes in seconds]) / t[:, None]
    latency_s, per_byte = np.linalg.lstsq(A, np.ones(len(t)), rcond=None)[0]
    if latency_s < 0:
        latency_s, per_byte = 0.0, np.linalg.lstsq(A[:, 1:], np.ones(len(t)), rcond=None)[0][0]
    if per_byte <= 0:
        raise RuntimeError(
            f"{kind}: large messages were not slower than small ones; is the machine busy? Measure again"
        )
    return Link(float(latency_s), float(1 / per_byte))


def fit_compute(compute: np.ndarray) -> Compute:
    """Mean and spread of the compute time of an iteration, lognormal.

    Args:
        compute: (processes, iterations) seconds.
    """
    processes, seconds = len(compute), float(compute.mean())
    slowest = float(compute.max(axis=0).mean()) / seconds
    quantiles = (np.arange(2000) + 0.5) / 2000
    z = np.array([NormalDist().inv_cdf(float(q)) for q in quantiles ** (1 / processes)])  # of the largest of all
    low, high = 0.0, 2.0
    while high - low > 1e-4 and processes > 1:
        sigma = (low + high) / 2
        if np.exp(sigma * z - sigma**2 / 2).mean() < slowest:
            low = sigma
        else:
            high = sigma
    return Compute(seconds, low)


def cluster_file(comment: list[str], inter: Link, compute: Compute, reduction: Link | None = None) -> str:
    """The text of a cluster file, on top of conf/cluster/10gbe.yaml."""

    def section(name: str, link: Link) -> list[str]:
        bandwidth = f"  bandwidth: {link.bandwidth:.4e}   # bytes per second"
        return [f"{name}:", f"  latency_s: {link.latency_s:.3e}", bandwidth]

    lines = [f"# {line}" for line in comment]
    lines += ["defaults:", "  - 10gbe", "", "gpus_per_node: 1", *section("inter", inter)]
    lines += [] if reduction is None else section("reduction_link", reduction)
    lines += ["compute:", f"  seconds: {compute.seconds:.4e}     # of an iteration, less its waits"]
    lines += ["  distribution: lognormal", f"  sigma: {compute.sigma:.3f}           # of the logarithm", ""]
    return "\n".join(lines)


def write_cluster(directory: Path, name: str, text: str) -> Path:
    """Write DIR/cluster/NAME.yaml, for `cluster=NAME --config-dir DIR`."""
    path = directory / "cluster" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def description(config: Config) -> str:
    """What a configuration computes, in a line."""
    choices = config["choices"]
    return (
        f"{choices['algorithm']}, {choices['model']} on {choices['dataset']}, batch {config['batch_size']} per process"
    )


@dataclass
class Calibration:
    inter: Link
    reduction: Link
    compute: Compute


def calibrate(config: Config, rounds: int, iterations: int) -> Calibration:
    """Measure, and say what was measured."""
    processes, lengths = ranks(config), probe_lengths(vector_length(config))
    found = take_turns({"it": config}, {"it": lengths}, rounds=rounds, turns=1, iterations=iterations)
    links = {}
    for kind, seconds in messages(found, "it").items():
        link = links[kind] = fit_link(kind, processes, seconds)
        print(f"{kind}: latency {1e6 * link.latency_s:.0f} us, bandwidth {link.bandwidth / 1e6:.0f} MB/s; in ms:")
        for nbytes, measured_s in seconds.items():
            fitted_s = operation_s(kind, processes, nbytes, link)
            print(f"  {nbytes / 1e6:9.3f} MB   measured {1e3 * measured_s:8.3f}   fitted {1e3 * fitted_s:8.3f}")
    compute = fit_compute(np.concatenate([each["it", "run", 0].compute for each in found], axis=1))
    iteration_s = np.mean([each["it", "run", 0].iteration_s for each in found])
    print(
        f"compute: {1e3 * compute.seconds:.3f} of {1e3 * iteration_s:.3f} ms per iteration, sigma {compute.sigma:.2f}"
    )
    return Calibration(links[EXCHANGE], links[ALL_REDUCE], compute)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the cluster: cluster=NAME")
    parser.add_argument("--directory", type=Path, default=Path("calibrated"), help="DIR of --config-dir DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=30, help="of each thing in a round")
    arguments, overrides = parser.parse_known_args()
    try:
        config = configure(*overrides, *REAL)
        if config["nodes"] < 2 or gpus_per_worker(config) != 1:
            raise ConfigError(
                f"nodes={config['nodes']} gpus_per_node={config['gpus_per_node']}: messages are measured between two "
                "or more workers of one process each; use e.g. nodes=2 gpus_per_node=1"
            )
    except ConfigError as error:
        print(f"calibrate: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{description(config)}")
    print(f"{ranks(config)} gloo processes on {os.cpu_count()} cores, {arguments.rounds} rounds", flush=True)
    try:
        made = calibrate(config, arguments.rounds, arguments.iterations)
    except RuntimeError as error:  # a process has failed, or what was measured makes no sense
        sys.exit(f"calibrate: {error}")
    about = (
        f"{ranks(config)} gloo processes on one machine of {os.cpu_count()} cores, measured by scripts/calibrate.py:"
    )
    text = cluster_file([about, f"{description(config)}."], made.inter, made.compute, made.reduction)
    path = write_cluster(arguments.directory, arguments.name, text)
    print(f"{path} is written: launcher=simulated cluster={arguments.name} --config-dir {arguments.directory}")


if __name__ == "__main__":
    main()
