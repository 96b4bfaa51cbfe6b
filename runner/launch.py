"""Running cells (configurations): skip what is finished, record what fails, say what came out."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from runner import checkpoints, results
from runner import config as configs
from runner.cells import headings, open_folder, say, titles
from runner.config import Cell, Config
from runner.launchers import InterruptedRunError, RunFailedError, local
from runner.launchers.progress import View, bars, count, shown
from runner.launchers.virtual import SideBySide
from runner.report.metrics import EVALUATED, duration, top1_key

Launch = Callable[[Path, Config], None]
"""Runs a frozen configuration, in its folder, to its end: see `local.launch`."""


def run_all(cells: list[Cell], console: Console) -> int:
    """Run each resolved configuration (with the overrides that made it); a failed one stops no other.

    Real ones run in order, one at a time; neighbours on a virtual cluster `launcher.at_once` at a time.

    Returns:
        The exit status: 0, 1 where a run failed, 128 and the signal's number where one interrupted (Ctrl-C: 130).
    """
    exit_status = 0
    jobs = [cell for cell in cells if configs.on_slurm(cell[0])]
    if jobs:
        from runner.launchers import slurm

        exit_status = slurm.submit(jobs, console)
        cells = [cell for cell in cells if not configs.on_slurm(cell[0])]
    if cells:
        local.warm_up()  # unless that has been done
    with bars(console, len(cells)) as progress, raising_on_signals():
        sweep = Sweep(cells, console, progress)
        try:
            for virtual, neighbours in groupby(cells, lambda cell: configs.simulated(cell[0])):
                (sweep.run_together if virtual else sweep.run_in_turn)(list(neighbours))
        except InterruptedRunError as error:
            sweep.exit_status = 128 + error.number
            if not sweep.told:
                say(console, f"{error}, between two runs; the same command goes on")
    return max(exit_status, sweep.exit_status)


@contextlib.contextmanager
def raising_on_signals() -> Iterator[None]:
    """The first signal that asks to stop raises InterruptedRunError in the block; further ones leave its end alone."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise InterruptedRunError(number)

    handlers = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is stop:  # else one has come, here or in a launcher, and all are ignored
                signal.signal(number, handler)


class Sweep:
    """The runs of one command on this machine, and what has come of them.

    Args:
        cells: all of them, in the order in which they begin.
    """

    def __init__(self, cells: Sequence[Cell], console: Console, progress: Progress) -> None:
        self.console, self.progress = console, progress
        self._headings = iter(headings(cells))
        self.over = self.exit_status = 0
        self.told = False  # of an interruption

    def run_in_turn(self, cells: list[Cell]) -> None:
        """
        Raises:
            InterruptedRunError: one was stopped, and the rest does not begin.
        """
        for cell in cells:
            self._run(next(self._headings), *cell, local.launch)

    def run_together(self, cells: list[Cell]) -> None:
        """Virtual ones, each in one process; cores are shared out among those that run at a time.

        Raises:
            InterruptedRunError: after all have ended.
        """
        from runner.runtimes.gradients import cores  # with torch, which a configuration's check has loaded

        launcher = cells[0][0]["launcher"]
        new = sum(results.status(results.run_folder(config)) != "finished" or config["rerun"] for config, _ in cells)
        on_gpu = cells[0][0]["device"] == "cuda"
        at_once = min(launcher.get("at_once") or (1 if on_gpu else cores()), max(new, 1))
        side_by_side = SideBySide()

        def run(heading: str, config: Config, overrides: list[str]) -> None:
            threads = config["launcher"].get("threads") or max(1, cores() // at_once)
            config = config | {"launcher": config["launcher"] | {"threads": threads}}
            self._run(heading, config, overrides, lambda folder, _: side_by_side.launch(folder))

        with ThreadPoolExecutor(at_once) as pool:
            try:
                for future in as_completed([pool.submit(run, next(self._headings), *cell) for cell in cells]):
                    future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, InterruptedRunError):
                    side_by_side.stop(error.number)
                raise

    def _run(self, heading: str, config: Config, overrides: list[str], launch: Launch) -> None:
        """Run one and say what came of it."""
        folder = results.run_folder(config)
        try:
            if config["launcher"].get("node_rank"):
                _help(config, heading, self.console)
            else:
                _run(config, overrides, heading, self.console, self.progress, launch)
        except InterruptedRunError as error:
            last = checkpoints.newest(folder)
            does = f"goes on from step {last['step']}" if last else "runs it again"
            self.told = True
            say(self.console, f"{heading}: {error}; the same command {does}")
            raise
        except RunFailedError as error:
            say(self.console, f"{heading}: failed  {folder}", style="red")
            say(self.console, str(error))
            self.exit_status = 1
        self.over += 1
        count(self.progress, self.over)


def dry_run(cells: list[Cell], console: Console) -> int:
    """Print what would be run, and the resolved configuration where that is one; nothing is written.

    Returns:
        The exit status: 0, or 1 where SLURM would not take a job.
    """
    for name, (config, typed) in zip(titles(cells), cells, strict=True):
        overrides = [each for each in typed if not each.startswith("dry_run=")]
        folder, kind = results.run_folder(config), config["launcher"]["kind"]
        processes = 1 if configs.simulated(config) else configs.processes(config)
        what = f"# {name}: launcher {kind}, {processes} process{'es' if processes > 1 else ''}"
        whole = configs.freeze(config) if len(cells) == 1 else f"run-experiment {shlex.join(overrides)}\n"
        say(console, f"{what}, {results.status(folder) or 'new'}  {folder}\n{whole}")
    jobs = [cell for cell in cells if configs.on_slurm(cell[0])]
    if not jobs:
        return 0
    from runner.launchers import slurm

    return slurm.dry_run(jobs, console)


def _run(
    config: Config, overrides: list[str], heading: str, console: Console, progress: Progress, launch: Launch
) -> None:
    """Run one configuration in a folder of its own, unless that has been done or is being done."""
    folder = results.run_folder(config)
    with results.lock(folder) as mine:
        if not mine:
            say(console, f"{heading}: is running in another process, skipped  {folder}")
            return
        if results.status(folder) == "finished" and not config["rerun"]:
            if results.read_json(folder / "summary.json") is not None:
                say(console, f"{heading}: already finished, skipped (rerun=true runs it again)  {folder}")
                return
            say(
                console, f"{heading}: its summary.json cannot be read, it is set aside and the run made again  {folder}"
            )
        last = open_folder(folder, config, overrides)
        try:
            if last is not None:
                say(console, f"{heading}: goes on from step {last['step']}  {folder}")
            view = View(config["epochs"], config["evaluation"]["every"], config["evaluated_model"])
            with shown(folder, heading, view, progress):
                launch(folder, config)
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
        except BaseException as error:  # a mistake of ours
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
