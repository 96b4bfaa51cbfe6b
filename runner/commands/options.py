"""What the commands of `experiments` share: their options, the runs they are about, and how they say what is wrong."""

from __future__ import annotations

import contextlib
import difflib
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import studies
from runner.build import nearest
from runner.report.runs import Run, filter_runs, find_runs, read_run

if TYPE_CHECKING:
    from runner.launchers.queue import Job
    from runner.report.formats import Table


ASK_SLURM_S = 5.0
"""Between two questions to SLURM by who follows a run."""


class Format(StrEnum):
    """How a table is written."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def complete_experiment(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of experiments for the shell."""
    results_dir = ctx.params.get("results_dir") or Path("results")
    with contextlib.suppress(LookupError, ValueError, OSError):
        return sorted(
            {run.group for run in find_runs(results_dir) if run.readable and run.group.startswith(incomplete)}
        )
    return []


Experiment = Annotated[
    str | None,
    typer.Argument(
        help="An experiment or algorithm: a folder below results/runs.",
        show_default="all",
        autocompletion=complete_experiment,
    ),
]
_RUNS = "Experiments, algorithms, identities or their beginnings, folders of runs."
Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUNS", help=_RUNS, show_default="all", autocompletion=complete_experiment),
]
Named = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUNS", help=_RUNS, show_default=False, autocompletion=complete_experiment),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only runs with this setting, e.g. nodes=4 or algorithm.overlap=1; KEY=A,B for either. May be repeated.",
        show_default=False,
    ),
]
ResultsDir = Annotated[Path, typer.Option("--results-dir", help="The folder that holds runs/.")]


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can mend into a message and exit status 2 (wrong arguments) or 1 (nothing to show)."""
    try:
        yield
    except LookupError as error:
        say(f"experiments: {error.args[0] if error.args else error}")
        raise typer.Exit(1) from None
    except ValueError as error:
        say(f"experiments: {error}")
        raise typer.Exit(2) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"experiments: {error.filename or 'output'}: {error.strerror or error}")
        raise typer.Exit(1) from None


def is_folder(results_dir: Path) -> None:
    """
    Raises:
        ValueError: a folder was named that is none; the default need not be there yet.
    """
    if results_dir != Path("results") and not results_dir.is_dir():
        raise ValueError(f"--results-dir {results_dir}: is no folder; name the one that holds runs/")


def say(message: str | None) -> None:
    """To stderr, so that what is piped on stays clean."""
    if message:
        typer.echo(message, err=True)


def text_of(made: Table, table_format: Format) -> str:
    """A table for the standard output; on a terminal, as wide as that is."""
    from runner.report.formats import FORMATS, terminal

    if table_format == Format.terminal and sys.stdout.isatty():
        return terminal(made, width=shutil.get_terminal_size().columns)
    return FORMATS[table_format](made)


def read(results_dir: Path, experiment: str | None, where: Sequence[str] | None) -> list[Run]:
    """The runs asked for, as they stand; what could not be read is named on stderr.

    Raises:
        ValueError: what is asked for is a study, whose runs lie with those of others.
    """
    if experiment is not None and experiment.count("/") and studies.is_study(experiment):
        paper = experiment.partition("/")[0]
        raise ValueError(
            f"{experiment}: is a study, whose runs lie with those of others below {paper}/<scale>; name that, or type "
            f"`run-experiment experiment={experiment}` for its table, or `experiments report {paper}`"
        )
    runs, _ = settled(find_runs(results_dir, experiment))
    _tell_of_problems(run for run in runs if not run.readable)  # also where no other is left
    chosen = filter_runs(runs, where or ())
    _tell_of_problems(run for run in chosen if run.readable)
    return chosen


def _tell_of_problems(runs: Iterable[Run]) -> None:
    for run in runs:
        if run.problem:
            say(f"skipped {run.problem}" if run.summary is None else f"unreadable: {run.problem}")


def settled(runs: Sequence[Run]) -> tuple[list[Run], Mapping[str, Job]]:
    """The runs after SLURM has been asked about those that may be over, and the jobs of the others, by id."""
    asked = [run.folder for run in runs if run.unsettled]
    if not asked:
        return list(runs), {}
    from runner import jobs

    queue = jobs.settle(asked, lambda message: say(f"warning: {message}"))
    return [read_run(run) if run.unsettled else run for run in runs], queue


def choose(
    results_dir: Path, which: Sequence[str] | None, where: Sequence[str] | None
) -> tuple[list[Run], Mapping[str, Job]]:
    """The readable runs that are meant, as they stand, and the jobs of those in SLURM's queue.

    Raises:
        LookupError: there is none.
        ValueError: a name of nothing, or the beginning of several identities.
    """
    named = [Path(name) for name in which or () if _is_run(Path(name))]
    names = [name for name in which or () if not _is_run(Path(name))]
    runs = [read_run(Run(folder, folder.parent.name, "unknown")) for folder in named]
    if names or not named:
        found = find_runs(results_dir)
        _tell_of_problems(found)
        there = [run for run in found if run.readable]
        runs += [run for name in names for run in _called(name, there)] if names else there
    runs = list({run.folder.absolute(): run for run in runs if run.readable}.values())
    runs, queue = settled(runs)
    return filter_runs(runs, where or ()), queue


def the_run(results_dir: Path, which: str) -> tuple[Run, Mapping[str, Job]]:
    """The one run that is meant; errors as `choose`."""
    runs, queue = choose(results_dir, [which], None)
    if len(runs) > 1:
        folders = ", ".join(str(run.folder) for run in runs[:5])
        more = f", and {len(runs) - 5} more" if len(runs) > 5 else ""
        raise ValueError(f"{which}: means {len(runs)} runs, name one of them: {folders}{more}")
    return runs[0], queue


def _is_run(folder: Path) -> bool:
    return len(folder.parts) > 1 and (folder / "state.json").exists()


def _called(name: str, runs: Sequence[Run]) -> list[Run]:
    group = name.strip("/")
    if found := [run for run in runs if run.group == group or run.group.startswith(f"{group}/")]:
        return found
    found = [run for run in runs if run.identity.startswith(name)]
    identities = sorted({run.identity for run in found})
    if len(identities) > 1 and name not in identities:
        few = ", ".join(identities[:5]) + (f", and {len(identities) - 5} more" if len(identities) > 5 else "")
        raise ValueError(f"{name}: is the beginning of {len(identities)} identities, type more of it: {few}")
    if not found:
        raise _no_such_run(name, runs)
    return [run for run in found if run.identity == name] or found


def _no_such_run(name: str, runs: Sequence[Run]) -> ValueError:
    """Naming all experiments, and identities only where one is alike: there may be thousands."""
    alike = difflib.get_close_matches(name, [run.identity for run in runs], n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    groups = nearest(name, sorted({run.group for run in runs}))
    return ValueError(f"run: there is no experiment, identity or folder {name!r}; {hint}{groups}")
