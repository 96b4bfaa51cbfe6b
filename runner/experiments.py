"""The command `experiments`: lists, tables and figures of the runs on disk.

It starts fast: pandas, matplotlib and rich are imported where they are needed.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.commands import following
from runner.commands.claims import claims
from runner.commands.options import Experiment, Format, ResultsDir, Where, read, say, text_of, user_errors
from runner.commands.report import report
from runner.report.runs import STATUSES, unknown_name

if TYPE_CHECKING:
    from runner.report.formats import Table


class Picture(StrEnum):
    """How a figure is written."""

    png = "png"
    pdf = "pdf"
    svg = "svg"


class Y(StrEnum):
    """What a figure shows."""

    top1 = "top1"
    error = "error"
    loss = "loss"
    consensus_distance = "consensus_distance"
    consensus_distance_max = "consensus_distance_max"
    time_per_iteration = "time_per_iteration"
    speedup = "speedup"
    time_split = "time_split"


class X(StrEnum):
    """What a figure shows it against."""

    epoch = "epoch"
    time = "time"
    nodes = "nodes"
    staleness = "staleness"


TableFormat = Annotated[
    Format | None,
    typer.Option("--format", help="How to write it.", show_default="terminal, or by the ending of --output"),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.", show_default=False)
]

app = typer.Typer(
    name="experiments",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def experiments(ctx: typer.Context) -> None:
    """List, tabulate and plot the runs on disk; follow, stop and repeat them."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("list")
def list_runs(
    experiment: Experiment = None,
    where: Where = None,
    status: Annotated[
        str | None, typer.Option(help=f"Only runs in this state: {', '.join(STATUSES)}.", show_default=False)
    ] = None,
    table_format: TableFormat = None,
    output: Output = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """One row a run: status, setting, top-1, times.

    A run that failed or was interrupted says why.
    """
    from runner.report.tables import run_list

    with user_errors():
        if status is not None and status not in STATUSES:
            raise unknown_name("--status", status, STATUSES)
        runs = read(results_dir, experiment, where)
        chosen = [run for run in runs if status in (None, run.status)]
        if not any(run.readable for run in chosen):
            there = sorted({run.status for run in runs if run.readable})
            raise LookupError(
                f"no run is {status}; these are {', '.join(there)}" if there else "none of these runs can be read"
            )
        _write(run_list(chosen), table_format, output)


@app.command()
def table(
    experiment: Experiment = None,
    where: Where = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="KEY,...", help="What makes a row.", show_default="method, workers and what differs"),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="KEY", help="With --columns: a setting down the side.", show_default=False)
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="KEY", help="With --rows: a setting across the top.", show_default=False)
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(metavar="METRIC,...", help="What to show.", show_default="top-1, epoch time, time split, bytes"),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Also the time until this top-1 was first seen, as a fraction.", show_default=False),
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Also runs of different clocks, or scales of a paper's, apart in rows.")
    ] = False,
    table_format: TableFormat = None,
    output: Output = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """One row a method: mean ± std over its seeds.

    Example: experiments table --rows algorithm --columns nodes --values top1
    """
    with user_errors():
        if (rows is None) != (columns is None):
            raise ValueError("--rows and --columns go together: name both, for example --rows method --columns nodes")
        if rows is not None and by is not None:
            raise ValueError("--by makes rows and --rows with --columns a grid: use one or the other")
        if target is not None and not 0 < target <= 1:
            raise ValueError(f"--target {target:g}: is a top-1 as a fraction, such as 0.8")
        runs = read(results_dir, experiment, where)

        from runner.report import frames, tables

        frame = frames.summaries(runs)
        if not mixed:
            frames.refuse_mixtures(frame, [*(_names(by) or ()), *filter(None, [rows, columns])])
        shown = _names(values)
        notes: list[str] = []
        if target is not None:
            frame, unread = frames.with_time_to(frame, runs, target)
            notes = [tables.target_note(target), *unread]
            shown = shown or ["top1", "time_to_target_s", "training_time_s"]
            if "time_to_target_s" not in shown:
                shown.append("time_to_target_s")
        elif shown and "time_to_target_s" in shown:
            raise ValueError("--values time_to_target_s: to which top-1? Add --target, such as --target 0.8")
        if rows is not None and columns is not None:
            made = tables.pivot(frame, rows, columns, shown)
        else:
            made = tables.comparison(frame, _names(by), shown)
        made.notes.extend([*notes, *filter(None, [tables.left_out(runs)])])
        _write(made, table_format, output)


@app.command()
def plot(
    experiment: Experiment = None,
    where: Where = None,
    y: Annotated[
        Y | None, typer.Option(help="What to show.", show_default="top1, with --x nodes time_per_iteration")
    ] = None,
    x: Annotated[X | None, typer.Option(help="Against what.", show_default="epoch and time, one panel each")] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="KEY,...", help="What makes a line.", show_default="method, nodes and what differs"),
    ] = None,
    picture: Annotated[
        Picture | None,
        typer.Option("--format", help="How to write it.", show_default="png, or by the ending of --output"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="results/figures/<name>.<format>")
    ] = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Curves of top-1 or loss; time against nodes; staleness.

    Draws top-1 or loss against epoch and time, time per iteration or speed-up against nodes, or a histogram of the
    staleness of what was merged, and prints the figure's path. Top-1 is that of the model by which a run was evaluated.
    Times on different clocks, or as for different things, get a panel each.
    """
    with user_errors():
        if output is not None and output.suffix.removeprefix(".") not in list(Picture):
            raise ValueError(f"--output {output}: a figure's file ends in {', '.join('.' + p for p in Picture)}")
        if output is not None and picture is not None and output.suffix != f".{picture}":
            raise ValueError(f"--output {output} and --format {picture} disagree: leave one out")
        runs = read(results_dir, experiment, where)

        from runner.report import figures, frames, tables

        frames.summaries(runs)
        figure, name, problems = figures.draw(runs, x=x, y=y, by=_names(by))
        for problem in (*problems, tables.left_out(runs)):
            say(problem)
        stem = "-".join([(experiment or "all").strip("/"), *(where or ()), name])
        stem = re.sub(r"[^\w=.,]+", "-", stem)
        path = output or results_dir / "figures" / f"{stem}.{picture or Picture.png}"
        figures.save(figure, path)
        typer.echo(str(path))


@app.command()
def curves(
    experiment: Experiment = None,
    where: Where = None,
    output: Output = None,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """All evaluations as one CSV.

    A row per finished run and evaluation.
    """
    with user_errors():
        runs = read(results_dir, experiment, where)

        from runner.report import curves, tables

        text, problems = curves.csv_of(runs)
        for problem in (*problems, tables.left_out(runs)):
            say(problem)
        _put(text, output)


def _complete_topology(incomplete: str) -> list[str]:
    return [name for name in _topologies() if name.startswith(incomplete)]


def _topologies() -> list[str]:
    from runner.config import conf_dir

    return sorted(path.stem for path in (conf_dir() / "topology").glob("*.yaml") if path.stem != "none")


@app.command()
def topology(
    name: Annotated[str, typer.Argument(help="An option of conf/topology.", autocompletion=_complete_topology)],
    workers: Annotated[int, typer.Option("--workers", "-n", help="How many workers.", min=1)] = 8,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of it, e.g. peers=3.", show_default=False)
    ] = None,
) -> None:
    """A topology's mixing matrices, spectral gap and period.

    experiments topology one_peer_exponential --workers 8
    """
    with user_errors():
        if name not in _topologies():
            raise unknown_name("topology", name, _topologies())
        from omegaconf import OmegaConf

        from algorithms.topology import describe
        from runner.config import conf_dir
        from runner.graphs import make_schedule

        node = OmegaConf.merge(
            OmegaConf.load(conf_dir() / "topology" / f"{name}.yaml"), OmegaConf.from_dotlist(option or [])
        )
        container = OmegaConf.to_container(node)
        assert isinstance(container, dict)
        typer.echo(describe(make_schedule({str(k): v for k, v in container.items()}, workers, 1), "epoch"))


app.command()(claims)
app.command()(report)
following.register(app)


def main() -> None:
    """Entry point of the command `experiments`."""
    app()


def _write(made: "Table", table_format: Format | None, output: Path | None) -> None:
    """Write a table to the terminal or to a file, in the format asked for or the one that the file's ending means."""
    from runner.report.formats import FORMATS, SUFFIXES

    if table_format is None and output is not None and output.suffix not in SUFFIXES:
        raise ValueError(f"--output {output}: name the format with --format, or end the file in {', '.join(SUFFIXES)}")
    name = Format(table_format or (SUFFIXES[output.suffix] if output is not None else Format.terminal))
    _put(text_of(made, name) if output is None else FORMATS[name](made), output)
    if name == Format.csv:  # the only format without a place for notes
        for note in made.notes:
            say(note)


def _put(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    typer.echo(str(output))


def _names(text: str | None) -> list[str] | None:
    """`a, b` as ["a", "b"]."""
    return [name.strip() for name in text.split(",") if name.strip()] if text is not None else None


if __name__ == "__main__":
    main()
