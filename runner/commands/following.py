"""The commands of `experiments` for runs that have not finished: status, logs, wait, cancel, resubmit; and doctor."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from runner.commands.options import Format, Named, ResultsDir, Where, Which, choose, say, the_run, user_errors

STOPPED = ("failed", "interrupted")
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `experiments`."""
    for command in (status, logs, wait, cancel, resubmit, doctor):
        app.command()(command)


def status(
    which: Which = None,
    where: Where = None,
    table_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.terminal,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Where each run is, how far, how long still, what failed.

    A run that has failed names the rank that failed first, and where to read on. The exit status is 1 if one has.
    """
    from runner.commands import status as following
    from runner.report.screen import screen

    with user_errors():
        runs, queue = choose(results_dir, which, where)
        rows = following.describe(runs, queue)
        chosen = Format.json if as_json else table_format
        if chosen == Format.terminal:
            terminal = sys.stdout.isatty()
            width = shutil.get_terminal_size().columns if terminal else None
            text = screen(following.table(rows), width, colour=terminal and "NO_COLOR" not in os.environ)
        else:
            from runner.report.formats import FORMATS

            text = FORMATS[chosen](following.table(rows, raw=chosen in (Format.json, Format.csv)))
        typer.echo(text, nl=False)
    if any(run.status == "failed" for run in runs):
        raise typer.Exit(1)


def logs(
    run: Annotated[str, typer.Argument(help="An identity or its beginning, or a run's folder.")],
    rank: Annotated[
        int | None, typer.Option(help="Whose log.", min=0, show_default="0, or the rank that failed first")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", help="Only the last so many.", min=0, show_default="all")
    ] = None,
    submission: Annotated[
        bool, typer.Option("--submission", help="What the batch script and srun say instead of a rank.")
    ] = False,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """The log of a rank, or of the job around it."""
    from runner.commands.logs import path_of, show

    with user_errors():
        found, _ = the_run(results_dir, run)
        try:
            show(found, path_of(found, rank, submission=submission), lines, follow=follow)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def wait(
    which: Which = None,
    where: Where = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Give up after so long.", show_default="never")
    ] = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Wait until none of these runs is queued or running.

    The exit status is 0 if all have finished, 1 if one has not, 124 if time has run out.
    """
    from runner.commands import waiting

    with user_errors():
        runs, queue = choose(results_dir, which, where)
        try:
            exit_status = waiting.wait(runs, queue, timeout)
        except KeyboardInterrupt:
            exit_status = 130
    raise typer.Exit(exit_status)


def cancel(
    which: Named = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs below results/runs.")] = False,
    where: Where = None,
    yes: Yes = False,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Take the jobs of these runs out of SLURM's queue, or end them.

    They are marked interrupted; the same command, or `experiments resubmit`, goes on with them.
    """
    from runner.commands import stopping

    with user_errors():
        if not which and not where and not everything:
            raise ValueError("cancel: say which runs, or --all")
        runs, queue = choose(results_dir, which, where)
        chosen = stopping.to_cancel(runs, queue)
        if not chosen:
            raise LookupError("none of these runs has a job to cancel; `experiments status` shows where they are")
        if len(chosen) > 1 and not yes:
            _confirm(f"Cancel the jobs of {len(chosen)} runs?")
        from runner.launchers.queue import QueueError

        try:
            for line in stopping.cancel(chosen):
                typer.echo(line)
        except QueueError as error:
            raise LookupError(f"nothing was cancelled: {error}") from error


def resubmit(
    which: Which = None,
    where: Where = None,
    yes: Yes = False,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Run again what has failed or was interrupted.

    As it was configured then: on SLURM it is submitted, elsewhere it starts here. It goes on from its last checkpoint.
    """
    from runner.commands import stopping

    with user_errors():
        runs, _ = choose(results_dir, which, where)
        stopped = [run for run in runs if run.status in STOPPED]
        if not stopped:
            raise LookupError("none of these runs has failed or was interrupted")
        if len(stopped) > 1 and not which and not where and not yes:
            _confirm(f"Run {len(stopped)} runs again?")
        exit_status = stopping.resubmit(stopped, results_dir)
    raise typer.Exit(exit_status)


def doctor(
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Check what runs need on this machine, and say what to do.

    Python, torch, GPUs, the network, SLURM, data sets, where results go. The exit status is 1 if something is missing
    that every run needs.
    """
    from runner.commands import doctor

    raise typer.Exit(doctor.examine(results_dir))


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise ValueError(f"{question} There is nobody to ask; add --yes")
    if not typer.confirm(question):
        say("nothing was done")
        raise typer.Exit(1)
