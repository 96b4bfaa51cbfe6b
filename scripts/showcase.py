"""Keep what has been measured of a paper: copies the small files of its studies' finished runs to results/showcase.

    python scripts/showcase.py sgp virtual

and says in results/showcase/measured/<paper>-<scale>.json how long they took, and on what.
Afterwards `experiments claims`, and `experiments table` and `plot` with `--results-dir results/showcase`, find them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from runner import studies
from runner.report.runs import Run
from runner.study_runs import cells_of, found

FILES = ("config.yaml", "evaluations.jsonl", "summary.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper")
    parser.add_argument("scale", choices=studies.SCALES)
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--showcase", type=Path, default=Path("results/showcase"))
    arguments = parser.parse_args()
    kept: dict[str, Run] = {}
    for study in map(studies.load, studies.names()):
        if study.paper != arguments.paper or arguments.scale not in study.lines:
            continue
        preset = study.preset(arguments.scale)
        cells = cells_of(study, arguments.scale)
        runs, _ = found(cells, preset, [arguments.results_dir])
        for run in runs:
            place = arguments.showcase / "runs" / preset / run.identity
            place.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if (run.folder / name).exists():
                    shutil.copy(run.folder / name, place / name)
            kept[run.identity] = run
        print(f"{study.name}: {len(runs)} of {len(cells)} runs")
    record = arguments.showcase / "measured" / f"{arguments.paper}-{arguments.scale}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(measured(list(kept.values())), indent=2) + "\n")


def measured(runs: Sequence[Run]) -> dict[str, str]:
    """How long these runs took one after the other, and on what; a line each."""
    environments = [json.loads((run.folder / "environment.json").read_text()) for run in runs]
    seconds = sum(
        (run.folder / "summary.json").stat().st_mtime - (run.folder / "environment.json").stat().st_mtime
        for run in runs
    )

    def every(key: str) -> str:
        return ", ".join(sorted({str(each[key]) for each in environments}))

    return {
        "runs": str(len(runs)),
        "time of all runs, one after the other": f"{seconds / 60:.0f} minutes",
        "cores": every("cpus"),
        "Python": every("python"),
        "torch": every("torch"),
        "platform": every("platform"),
    }


if __name__ == "__main__":
    main()
