"""Should `problem.batched` be true? Times both ways for the run that you describe, and says.

    python scripts/recommend_batched.py algorithm=sgp nodes=256 dataset=digits model=mlp

The answer depends on the network and on this machine, which is why no run decides it for itself: it is a setting, and
part of a run's identity, since the last bits of the gradients differ.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from configuring import configure

from runner.build import ConfigError
from runner.simulation import Simulation

STEPS = 5
PAIRS = 3


def seconds_per_step(overrides: list[str], batched: bool) -> float:
    """Wall seconds in which all virtual workers take one step."""
    config = configure(*overrides, "launcher=simulated", f"problem.batched={str(batched).lower()}")
    simulation = Simulation(config, torch.device("cpu"))
    for worker in simulation.cluster.workers:
        worker.draws = min(worker.draws, STEPS)
    start = time.perf_counter()
    simulation.run(lambda worker, x: None)
    seconds = (time.perf_counter() - start) / simulation.cluster.workers[0].draws
    simulation.close()
    return seconds


def main() -> None:
    if not sys.argv[1:]:
        sys.exit(__doc__)
    try:
        ratios = []
        for pair in range(PAIRS):
            alone, together = seconds_per_step(sys.argv[1:], False), seconds_per_step(sys.argv[1:], True)
            ratios.append(together / alone)
            print(
                f"  pair {pair + 1}: one by one {1e3 * alone:.1f} ms per step, batched {1e3 * together:.1f} ms, "
                f"ratio {ratios[-1]:.2f}",
                flush=True,
            )
    except ConfigError as error:
        sys.exit(f"recommend_batched: {error}")
    ratio = statistics.median(ratios)
    print(
        f"median ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}): problem.batched={str(ratio < 1).lower()}"
    )


if __name__ == "__main__":
    main()
