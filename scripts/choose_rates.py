"""The learning rate of each method, from a paper's tuning study; written to conf/experiment/<paper>/tuned.yaml.

    run-experiment experiment=sgp/tuning scale=virtual
    python scripts/choose_rates.py sgp virtual

Each method has had the same grid and the same budget. The rate with the best top-1 is taken, the smaller of two alike.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import yaml

from runner import studies
from runner.config import conf_dir
from runner.report.runs import find_runs, parsed

HEAD = "# Learning rates per 256 images, by scale and method, as scripts/choose_rates.py has found them; do not edit.\n"


def chosen(preset: str, results_dir: Path) -> dict[str, float]:
    """By algorithm."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in find_runs(results_dir, preset):
        if run.summary is not None:
            rate = parsed((run.folder / "config.yaml").read_bytes())["optimizer"]["reference_lr"]
            found[run.summary["algorithm"]].append((float(run.values["top1"]), -float(rate)))
            print(f"{run.summary['algorithm']:12} {rate:<8g} {100 * float(run.values['top1']):.2f} %")
    return {algorithm: -max(tried)[1] for algorithm, tried in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper")
    parser.add_argument("scale", choices=studies.SCALES)
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    study = studies.load(f"{arguments.paper}/tuning")
    rates = chosen(study.preset(arguments.scale), arguments.results_dir)
    path = conf_dir() / "experiment" / arguments.paper / "tuned.yaml"
    every = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(HEAD + yaml.safe_dump((every or {}) | {arguments.scale: rates}))
    print(f"{path}: {arguments.scale}: {rates}")


if __name__ == "__main__":
    main()
