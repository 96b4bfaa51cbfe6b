"""Running cells (configurations) one after the other: skip what is finished, record what fails, say what came out."""

from __future__ import annotations

import platform
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from rich.console import Console

from runner import checkpoints, results
from runner import config as configs
from runner.config import Config
from runner.identity import variant
from runner.launchers import InterruptedRunError, RunFailedError, local
from runner.launchers.progress import View, shown
from runner.report.metrics import EVALUATED, duration, top1_key


def title(config: Config) -> str:
    """A run in a few words: sgp (overlap=1) 4 nodes seed 0."""
    settings = variant(config)
    nodes = config["nodes"]
    each = f" x {config['gpus_per_node']}" if config["gpus_per_node"] > 1 else ""
    size = f"{nodes} node{'s' if nodes > 1 else ''}{each}"
    return f"{config['choices']['algorithm']}{f' ({settings})' if settings else ''} {size} seed {config['seed']}"


def run_all(cells: list[tuple[Config, list[str]]], console: Console) -> int:
    """Run each resolved configuration (with the overrides that made it), in order; a failed one stops no other.

    Returns:
        The exit status: 0, 1 where a run failed, 128 and the signal's number where one interrupted (Ctrl-C: 130).
    """
    exit_status = 0
    jobs = [cell for cell in cells if configs.on_slurm(cell[0])]
    if jobs:
        from runner.launchers import slurm

        exit_status = slurm.submit(jobs, console)
        cells = [cell for cell in cells if not configs.on_slurm(cell[0])]
    for index, (config, overrides) in enumerate(cells):
        heading = (f"[{index + 1}/{len(cells)}] " if len(cells) > 1 else "") + title(config)
        try:
            if config["launcher"].get("node_rank"):
                _help(config, heading, console)
            else:
                _run(config, overrides, heading, console)
        except InterruptedRunError as error:
            last = checkpoints.newest(results.run_folder(config))
            does = f"goes on from step {last['step']}" if last else "runs it again"
            say(console, f"{heading}: {error}; the same command {does}")
            return 128 + error.number
        except RunFailedError as error:
            say(console, f"{heading}: failed  {results.run_folder(config)}", style="red")
            say(console, str(error))
            exit_status = 1
    return exit_status


def dry_run(cells: list[tuple[Config, list[str]]], console: Console) -> int:
    """Print each resolved configuration and what would be run; nothing is written.

    Returns:
        The exit status: 0, or 1 where SLURM would not take a job.
    """
    for config, _ in cells:
        folder, kind = results.run_folder(config), config["launcher"]["kind"]
        processes = 1 if configs.simulated(config) else configs.processes(config)
        what = f"# {title(config)}: launcher {kind}, {processes} process{'es' if processes > 1 else ''}"
        say(console, f"{what}, {results.status(folder) or 'new'}  {folder}\n{configs.freeze(config)}")
    jobs = [cell for cell in cells if configs.on_slurm(cell[0])]
    if not jobs:
        return 0
    from runner.launchers import slurm

    return slurm.dry_run(jobs, console)


def _run(config: Config, overrides: list[str], heading: str, console: Console) -> None:
    """Run one configuration in a folder of its own, unless that has been done or is being done."""
    folder = results.run_folder(config)
    with results.lock(folder) as mine:
        if not mine:
            say(console, f"{heading}: is running in another process, skipped  {folder}")
            return
        if results.status(folder) == "finished" and not config["rerun"]:
            say(console, f"{heading}: already finished, skipped (rerun=true runs it again)  {folder}")
            return
        last = open_folder(folder, config, overrides)
        if last is not None:
            say(console, f"{heading}: goes on from step {last['step']}  {folder}")
        try:
            view = View(config["epochs"], config["evaluation"]["every"], config["evaluated_model"])
            with shown(folder, heading, view, console):
                local.launch(folder, config)
            summary = results.read_json(folder / "summary.json")
            state = results.read_json(folder / "state.json") or {}
            if summary is None and state.get("status") == "interrupted":  # the processes have left by themselves
                raise InterruptedRunError(signal.SIGUSR2, state["reason"])
            if summary is None:
                raise RunFailedError("all processes ended, but none wrote summary.json")
        except InterruptedRunError as error:
            results.write_state(folder, "interrupted", str(error))
            raise
        except RunFailedError as error:
            results.write_state(folder, "failed", str(error))
            raise
        except BaseException as error:  # Ctrl-C between two steps of ours, or a mistake of ours
            results.write_state(folder, "interrupted", f"{type(error).__name__}: {error}")
            raise
        results.write_state(folder, "finished")
    say(console, f"{heading}: {outcome(summary)}  {folder}")


def outcome(summary: results.Row) -> str:
    """A finished run in a few words."""
    model = summary["evaluated_model"]
    epoch_s, top1 = summary["epoch_time_s"], summary[top1_key(model)]
    time = f"{duration(epoch_s)} of virtual time" if summary["clock"] == "virtual" else f"{epoch_s:.3g} s"
    found = [] if top1 is None else [f"top-1 {100 * top1:.2f} % ({EVALUATED[model]})"]
    return "  ".join([*found, f"{time} per epoch"])


def _help(config: Config, heading: str, console: Console) -> None:
    """This machine's part of a run whose folder belongs to the machine with node_rank 0."""
    folder = results.run_folder(config)
    if results.status(folder) == "finished" and not config["rerun"]:
        say(console, f"{heading}: already finished, skipped (rerun=true runs it again)  {folder}")
        return
    local.launch(folder, config)
    say(console, f"{heading}: node {config['launcher']['node_rank']} has done its part  {folder}")


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
