"""Cells of a command line: what each is called, the folder in which it begins, what is said of it."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rich.console import Console

from runner import checkpoints, results
from runner import config as configs
from runner.config import Cell, Config
from runner.identity import method_name


def title(config: Config) -> str:
    """A run in a few words: sgp (overlap=1) 4 nodes seed 0."""
    nodes = config["nodes"]
    each = f" x {config['gpus_per_node']}" if config["gpus_per_node"] > 1 else ""
    size = f"{nodes} node{'s' if nodes > 1 else ''}{each}"
    return f"{method_name(config)} {size} seed {config['seed']}"


def titles(cells: Sequence[Cell]) -> list[str]:
    """The title of each; of those that have the same but for the seed, with the words that tell them apart."""
    plain = [title(config) for config, _ in cells]
    words = [[word for word in overrides if not word.startswith("seed=")] for _, overrides in cells]
    alike: dict[str, list[set[str]]] = defaultdict(list)
    for name, mine in zip(plain, words, strict=True):
        alike[name.rpartition(" ")[0]].append({*mine})
    told = []
    for name, mine in zip(plain, words, strict=True):
        own = [word for word in mine if word not in set.intersection(*alike[name.rpartition(" ")[0]])]
        told.append(f"{name}, {' '.join(own)}" if own else name)
    return told


def headings(cells: Sequence[Cell]) -> list[str]:
    """The titles, numbered where there are several."""
    size = len(cells)
    return [f"[{number}/{size}] {name}" if size > 1 else name for number, name in enumerate(titles(cells), 1)]


def say(console: Console, line: str, style: str | None = None) -> None:
    """A line as it stands: no markup, no wrapping."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def open_folder(
    folder: Path, config: Config, overrides: list[str], status: str = "running", reason: str | None = None
) -> results.Row | None:
    """Make a run's folder, frozen configuration and all, for an attempt whose `results.lock` the caller holds.

    An earlier attempt that has left a complete checkpoint is continued in its folder; any other is set aside.

    Returns:
        What is known of that checkpoint (`step`, `restarts`); None where the run begins at its start.
    """
    last = None if config["rerun"] or results.status(folder) == "finished" else checkpoints.newest(folder)
    if folder.exists() and last is None:
        results.set_aside(folder)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(configs.freeze(config))
    (folder / "overrides.txt").write_text("".join(f"{override}\n" for override in overrides))
    told = folder / "environment.json"
    if told.exists():  # of an earlier attempt, which goes on now
        told.rename(folder / f"environment-{len(list(folder.glob('environment*.json')))}.json")
    results.write_json(told, environment())
    results.write_state(folder, status, reason)
    return last


def environment() -> results.Row:
    """Versions, host, git commit and command, for environment.json."""
    from runner.process import describe_machine

    here = Path(__file__).resolve().parent
    return {
        **describe_machine(),
        "host": platform.node(),
        "command": shlex.join(sys.argv),
        "commit": _git(here, "rev-parse", "HEAD"),
        "dirty": bool(_git(here, "status", "--porcelain")),
    }


@cache
def _git(here: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
