"""What messages and all-reduces over gloo reach of a link's bandwidth, on emulated hosts whose links are shaped.

    python scripts/link_efficiency.py [--rounds 5] [--output results/link_efficiency.txt]

Hosts are network namespaces whose links tc shapes (needs root and iproute2). Each of a ring sends its neighbour vectors
of 4 and of 16 MB, or all of them sum one, after a sleep as gradient. How much longer the larger takes is what counts:
neither latency nor what tc lets through at once is in that; the runner's copy and division of an all-reduce are.
conf/cluster/10gbe_gloo.yaml has the least medians of both.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import calibrate
import numpy as np
import torch
from benchmark_fidelity import sleeping
from emulated_hosts import emulated_hosts, why_not
from real_runs import take_turns

HOSTS, RATES = (2, 4), (5e8, 1e9)
LENGTHS = [1_000_000, 4_000_000]
ITERATIONS = 9  # of which a probe makes a third
HEAD = "link (Mbit/s)  hosts  operation   of the link, median  lowest  highest"


def efficiencies(hosts: int, bits_per_s: float, rounds: int) -> dict[str, list[float]]:
    """By operation, of each round: bandwidth reached / bandwidth of the link."""
    with emulated_hosts(hosts, bits_per_s) as names:
        found = take_turns(
            {"sgp": sleeping(hosts, ["algorithm=sgp"])},
            {"sgp": LENGTHS},
            rounds=rounds,
            turns=0,
            iterations=ITERATIONS,
            hosts=names,
        )
    each = [calibrate.messages([one], "sgp") for one in found]
    return {kind: [bandwidth(kind, hosts, one[kind]) * 8 / bits_per_s for one in each] for kind in each[0]}


def bandwidth(kind: str, hosts: int, seconds: dict[int, float]) -> float:
    """Bytes per second, from the seconds that a short and a long vector take."""
    (short, long), crossing = seconds.items(), calibrate.equation(kind, hosts, 1)[1]  # bytes a link carries for each
    return crossing * (long[0] - short[0]) / (long[1] - short[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the lines there too")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception: no host is left behind
    if (reason := why_not()) is not None:
        raise SystemExit(f"hosts cannot be emulated here: {reason}")
    about = f"{os.cpu_count()} cores, torch {torch.__version__}, load average at the start {os.getloadavg()[0]:.1f}"
    lines = [
        "What gloo makes of a shaped link: `python scripts/link_efficiency.py`, whose head says how.",
        f"{about}, {arguments.rounds} rounds",
        "",
        HEAD,
    ]
    for rate in RATES:
        for hosts in HOSTS:
            for kind, found in efficiencies(hosts, rate, arguments.rounds).items():
                lines.append(
                    f"{rate / 1e6:13.0f}  {hosts:5d}  {kind:10s}  {np.median(found):20.2f}  {min(found):6.2f}  "
                    f"{max(found):7.2f}"
                )
    print("\n".join(lines))
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
