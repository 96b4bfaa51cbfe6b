"""Keep what has been measured of a paper: copies each finished run's small files to results/showcase.

    python scripts/showcase.py sgp virtual

Afterwards `experiments claims`, and `experiments table` and `plot` with `--results-dir results/showcase`, find them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from runner import studies
from runner.report.runs import find_runs

FILES = ("config.yaml", "evaluations.jsonl", "summary.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper")
    parser.add_argument("scale", choices=studies.SCALES)
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--showcase", type=Path, default=Path("results/showcase"))
    arguments = parser.parse_args()
    mine = [studies.load(name) for name in studies.names() if name.startswith(f"{arguments.paper}/")]
    presets = sorted({study.preset(arguments.scale) for study in mine if arguments.scale in study.lines})
    for preset in (each for each in presets if (arguments.results_dir / "runs" / each).is_dir()):
        kept = [run for run in find_runs(arguments.results_dir, preset) if run.summary is not None]
        for run in kept:
            place = arguments.showcase / "runs" / preset / run.identity
            place.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if (run.folder / name).exists():
                    shutil.copy(run.folder / name, place / name)
        print(f"{preset}: {len(kept)} runs in {arguments.showcase}")


if __name__ == "__main__":
    main()
