"""run-experiment: compose, check everything, then run. Torch is imported when what was typed is known to make sense."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from runner import help as helps
from runner import studies
from runner.build import ConfigError
from runner.composing import compose_all, naming
from runner.config import Cell, Config, on_slurm


def main() -> None:
    """The command's entry point."""
    try:
        sys.exit(_main(sys.argv[1:]))
    except ConfigError as error:
        print(f"run-experiment: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _main(arguments: list[str]) -> int:
    if helps.asked(arguments):
        print(helps.text(arguments), end="")
        return 0
    asked = studies.asked(arguments)
    if asked and any(word.partition("=")[0] in ("--cfg", "-c") for word in arguments):
        raise ConfigError(
            "--cfg: a study is several runs; dry_run=true shows them, and --cfg job the whole of one line"
        )
    lines = [studies.expand(study, scale, arguments) for study, scale in asked] or [[arguments]]
    composed = [[cell for line in compose_all(each) for cell in line] for each in lines]
    if asked:
        from runner.report.study import check

        for study, _ in asked:
            check(study)
    if not any(composed):  # --cfg and the like have answered already
        return 0
    from runner.launchers import local

    # An exception that is raised while torch is imported may be swallowed there, so Ctrl-C leaves without one.
    on_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if any(not (on_slurm(config) or config["dry_run"]) for each in composed for config, _ in each):
        local.warm_up()  # loads torch in the server while this process loads it too

    from rich.console import Console

    from runner.launch import dry_run, run_all
    from runner.results import run_folder

    console = Console(highlight=False)
    resolved = [[_resolved(cell, bool(asked)) for cell in each] for each in composed]
    cells = list({run_folder(cell[0]): cell for each in resolved for cell in each}.values())  # studies share some
    configs = [config for config, _ in cells]
    told = [
        line
        for (study, scale), each in zip(asked, composed, strict=False)
        for line in _about(study, scale, [config for config, _ in each])
    ]
    for line in [*told, *announcements(configs)]:
        console.print(line, soft_wrap=True, markup=False)
    signal.signal(signal.SIGINT, on_interrupt)
    if any(config["dry_run"] for config in configs):
        return dry_run(cells, console)
    exit_status = run_all(cells, console)
    if exit_status < 128 and not any(map(on_slurm, configs)):
        from runner.study_runs import show

        part = studies.narrowing(arguments)
        for (study, scale), each in zip(asked, resolved, strict=False):
            shown = show(study, scale, [config for config, _ in each], Path(configs[0]["results_dir"]), part)
            console.print(shown, soft_wrap=True, markup=False)
    return exit_status


def _resolved(cell: Cell, of_a_study: bool) -> Cell:
    from runner.prepare import resolve

    config, overrides = cell
    with naming(overrides) if of_a_study else contextlib.nullcontext():
        return resolve(config), overrides


def _about(study: studies.Study, scale: str, cells: list[Config]) -> list[str]:
    """What a study is, and how the setting of its runs differs from that of scale=paper."""
    from runner.deviations import deviations_of, paper_setting

    differs = deviations_of(study, cells)
    told = f"scale {scale}" + (f", which differs from scale=paper in {', '.join(differs)}" if differs else "")
    setting = paper_setting(study.paper)
    return [
        f"{study.title}; {study.source}",
        *study.notes_at(scale),
        *([f"scale=paper: {setting}"] if setting else []),
        told,
    ]


def announcements(cells: list[Config]) -> list[str]:
    """What was derived rather than typed: batch sizes and learning rates, each said once."""
    from runner.config import batch_of_lr, global_batch_size, simulated, time_and_accuracy, timing_only
    from runner.identity import WITHOUT_TRAINING

    lines: dict[str, None] = {}
    for config in cells:
        for key in config["typed"]:
            if timing_only(config) and key.partition(".")[0] in WITHOUT_TRAINING:
                lines[f"{key}: has no effect, problem=none trains nothing"] = None
        total, optimizer = global_batch_size(config), config["optimizer"]
        line = f"batch {config['batch_size']} per process, {total} in all"
        if not timing_only(config):
            line += f"; lr {optimizer['lr']:.4g}"
            reference, batch = optimizer.get("reference_lr"), batch_of_lr(config)
            if reference is not None and optimizer["lr"] == reference * batch / 256:
                line += f" = reference_lr {reference:g} x {batch} / 256"
        lines[line] = None
        if config["asynchronous"] and not simulated(config):
            name = config["choices"]["algorithm"]
            staged = ", and its messages are staged through the host" if config["device"] == "cuda" else ""
            lines[f"{name} is asynchronous: it is evaluated once all training is done{staged}"] = None
        if simulated(config):
            lines[f"virtual clock, cluster={config['choices']['cluster']}: {time_and_accuracy(config)}"] = None
        algorithm = config["algorithm"]
        if "then" in algorithm and algorithm.get("epoch", 0) >= config["epochs"]:
            name = config["choices"]["algorithm"]
            lines[f"{name}: the switch at algorithm.epoch={algorithm['epoch']} is never reached"] = None
        for phase in config["topology"].get("phases", []):
            if phase["epoch"] >= config["epochs"]:
                name = config["choices"]["topology"]
                lines[f"topology={name}: its phase from epoch {phase['epoch']} on is never reached"] = None
    return list(lines)
