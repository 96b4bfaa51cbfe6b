"""The learning rate of each method, from a paper's tuning study; written to conf/experiment/<paper>/tuned.yaml.

    run-experiment experiment=sgp/tuning scale=virtual
    python scripts/choose_rates.py sgp virtual

Each method (and what else the study's `by` names) has had the same grid and the same budget. The rate with the best
top-1 is taken, the smaller of two alike. A rate at the edge of the grid is pointed out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from runner import studies
from runner.composing import compose_all
from runner.config import conf_dir
from runner.prepare import resolve
from runner.report.runs import Run, read_run
from runner.results import run_folder

HEAD = "# Learning rates per 256 images, by scale and method, as scripts/choose_rates.py has found them; do not edit.\n"


def chosen(study: studies.Study, scale: str, results_dir: Path) -> dict[str, float]:
    """By the words of its lines that have a rate each: "algorithm=sgp"."""
    found: dict[str, list[tuple[float, float]]] = {}
    commands = study.commands(scale)
    lines = compose_all([[*command, f"results_dir={results_dir}"] for command in commands])
    for command, cells in zip(commands, lines, strict=True):
        words = " ".join(word for word in command if word.partition("=")[0] in study.by and not shared(word, commands))
        for composed, _ in cells:
            config = resolve(composed)
            rate, folder = float(config["optimizer"]["reference_lr"]), run_folder(config)
            run = read_run(Run(folder, study.preset(scale), "unknown")) if folder.is_dir() else None
            if run is None or run.summary is None:
                raise SystemExit(
                    f"{words} at {rate:g} has not finished: run-experiment experiment={study.name} scale={scale}"
                )
            found.setdefault(words, []).append((float(run.values["top1"]), -rate))
    for words, tried in found.items():
        grid, best = sorted(-rate for _, rate in tried), -max(tried)[1]
        told = ", ".join(f"{-rate:g}: {100 * top1:.2f} %" for top1, rate in sorted(tried, key=lambda each: -each[1]))
        print(f"{words}: {best:g}{' (edge of the grid)' if best in (grid[0], grid[-1]) else ''}, of {told}")
    return {words: -max(tried)[1] for words, tried in sorted(found.items())}


def shared(word: str, commands: list[list[str]]) -> bool:
    """Whether all lines of several have that word: it tells none of them apart."""
    return len(commands) > 1 and all(word in command for command in commands)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper")
    parser.add_argument("scale", choices=studies.SCALES)
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    rates = chosen(studies.load(f"{arguments.paper}/tuning"), arguments.scale, arguments.results_dir)
    path = conf_dir() / "experiment" / arguments.paper / "tuned.yaml"
    path.write_text(HEAD + yaml.safe_dump(studies.tuned(arguments.paper) | {arguments.scale: rates}))


if __name__ == "__main__":
    main()
