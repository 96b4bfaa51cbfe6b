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
    parser.add_argument("--only-time", action="store_true", help="copy no runs")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--showcase", type=Path, default=Path("results/showcase"))
    arguments = parser.parse_args()
    known = [study for study in map(studies.load, studies.names()) if study.paper == arguments.paper]
    every = [study for study in known if arguments.scale in study.lines]
    if not every:
        raise SystemExit(f"{arguments.paper} has no study at scale={arguments.scale}")
    places: dict[Path, Run] = {}
    for study in every:
        preset = study.preset(arguments.scale)
        cells = cells_of(study, arguments.scale)
        runs, _ = found(cells, preset, [arguments.results_dir])
        print(f"{study.name}: {len(runs)} of {len(cells)} runs")
        if len(runs) < len(cells):
            missing = f"run-experiment experiment={study.name} scale={arguments.scale}"
            raise SystemExit(f"{study.name} has not finished in {arguments.results_dir}, nothing is kept: {missing}")
        places |= {arguments.showcase / "runs" / preset / run.identity: run for run in runs}
    told = measured(list(places.values()))
    if not arguments.only_time:
        for folder in {place.parent for place in places}:  # what no study wants any more goes
            for old in {*folder.glob("*")} - places.keys():
                shutil.rmtree(old)
        for place, run in places.items():
            keep(run, place)
    record = arguments.showcase / "measured" / f"{arguments.paper}-{arguments.scale}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(told, indent=2) + "\n")


def keep(run: Run, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (run.folder / name).exists():
            shutil.copy(run.folder / name, place / name)


def measured(runs: Sequence[Run]) -> dict[str, str]:
    """How long these runs took, and on what; a line each. Composing them and drawing them are not part of it."""
    environments = [json.loads((run.folder / "environment.json").read_text()) for run in runs]
    times = sorted(
        [(run.folder / name).stat().st_mtime for name in ("environment.json", "summary.json")] for run in runs
    )
    at_once = max(sum(begun <= moment < ended for begun, ended in times) for moment, _ in times)
    busy_s = until = 0.0  # while any of them ran
    for begun, ended in times:
        busy_s += max(0.0, ended - max(begun, until))
        until = max(until, ended)

    def every(key: str) -> str:
        return ", ".join(sorted({str(each[key]) for each in environments}))

    return {
        "runs": str(len(runs)),
        "time of all runs": f"{busy_s / 60:.1f} minutes, up to {at_once} side by side",
        "cores": every("cpus"),
        "Python": every("python"),
        "torch": every("torch"),
        "platform": every("platform"),
    }


if __name__ == "__main__":
    main()
