"""Running cells (configurations) one after the other: skip what is finished, record what fails, say what came out."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from runner import config as configs
from runner import results
from runner.config import Config
from runner.identity import variant
from runner.launchers import InterruptedRunError, RunFailedError, local
from runner.launchers.progress import shown


def title(config: Config) -> str:
    """A run in a few words: sgp (overlap=1) 4 nodes seed 0."""
    settings = variant(config)
    size = f"{config['nodes']} nodes" + (f" x {config['gpus_per_node']}" if config["gpus_per_node"] > 1 else "")
    return f"{config['choices']['algorithm']}{f' ({settings})' if settings else ''} {size} seed {config['seed']}"


def run_all(cells: list[tuple[Config, list[str]]], console: Console) -> int:
    """Run each resolved configuration (with the overrides that made it), in order; a failed one stops no other.

    Returns:
        The exit status: 0, 1 where a run failed, 130 where the user interrupted.
    """
    exit_status = 0
    for index, (config, overrides) in enumerate(cells):
        place = f"[{index + 1}/{len(cells)}] " if len(cells) > 1 else ""
        folder = results.run_folder(config)
        helper = bool(config["launcher"].get("node_rank"))  # another machine owns the run's folder
        if results.status(folder) == "finished" and not config["rerun"]:
            line = f"{place}{title(config)}: already finished, skipped (rerun=true runs it again)  {folder}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            continue
        with results.lock(folder) as mine:
            if not mine and not helper:
                line = f"{place}{title(config)}: is running in another process, skipped  {folder}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                continue
            if not helper:
                _create(folder, config, overrides)
            try:
                _run(folder, config, f"{place}{title(config)}", console)
            except InterruptedRunError as error:
                results.write_state(folder, "interrupted", str(error))
                console.print(f"{place}{title(config)}: {error}; the same command runs it again", markup=False)
                return 130
            except RunFailedError as error:
                results.write_state(folder, "failed", str(error))
                console.print(f"{place}{title(config)}: failed  {folder}", style="red", markup=False, soft_wrap=True)
                console.print(str(error), markup=False, highlight=False, soft_wrap=True)
                exit_status = 1
    return exit_status


def _create(folder: Path, config: Config, overrides: list[str]) -> None:
    if folder.exists():
        results.set_aside(folder)
    (folder / "log").mkdir(parents=True)
    (folder / "config.yaml").write_text(configs.freeze(config))
    (folder / "overrides.txt").write_text("".join(f"{override}\n" for override in overrides))
    results.write_json(folder / "environment.json", environment())
    results.write_state(folder, "running")


def _run(folder: Path, config: Config, heading: str, console: Console) -> None:
    with shown(folder, heading, config["epochs"], console):
        local.launch(folder, config)
    summary = results.read_json(folder / "summary.json")
    if summary is None:
        raise RunFailedError("all processes ended, but none wrote summary.json")
    results.write_state(folder, "finished")
    console.print(
        f"{heading}: top-1 {100 * summary['top1_mean_model']:.2f} % (mean model)  epoch {summary['epoch_time_s']:.3g} s"
        f"  {folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def environment() -> results.Row:
    """Versions, host, git commit and command, for environment.json."""
    from runner.training import describe_machine

    here = Path(__file__).resolve().parent
    return {
        **describe_machine(),
        "host": platform.node(),
        "command": shlex.join(sys.argv),
        "commit": _git(here, "rev-parse", "HEAD"),
        "dirty": bool(_git(here, "status", "--porcelain")),
    }


def _git(here: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
