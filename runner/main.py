"""run-experiment: compose with Hydra, check everything, then run.

Hydra only composes. With one configuration or with -m, it calls `collect` for each cell; nothing starts before all
cells are known and checked. Hydra is imported when there is something to compose, torch when that is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runner import help as helps
from runner import studies
from runner.build import ConfigError
from runner.config import Config, Schema, conf_dir, from_composed, on_slurm

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from runner.sweeps import Composed

FLAGS_WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--info", "-i", "--experimental-rerun"),
}


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
        from runner.report.study import check_figures

        for study, _ in asked:
            check_figures(study)
    if not any(composed):  # --cfg and the like have answered already
        return 0
    from runner.launchers import local

    # An exception that is raised while torch is imported may be swallowed there, so Ctrl-C leaves without one.
    on_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if any(not (on_slurm(config) or config["dry_run"]) for each in composed for config, _ in each):
        local.warm_up()  # loads torch in the server while this process loads it too

    from rich.console import Console

    from runner.launch import dry_run, run_all
    from runner.prepare import resolve
    from runner.results import run_folder

    console = Console(highlight=False)
    resolved = [[(resolve(config), overrides) for config, overrides in each] for each in composed]
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

        part = "-part" if studies.narrowed(arguments) else ""  # of which figures do not take the place of the whole's
        for (study, scale), each in zip(asked, resolved, strict=False):
            shown = show(study, scale, [config for config, _ in each], Path(configs[0]["results_dir"]), part)
            console.print(shown, soft_wrap=True, markup=False)
    return exit_status


Cell = tuple[Config, list[str]]
"""A configuration, and its overrides."""


def compose(arguments: list[str]) -> list[Cell]:
    """Every cell that the command line asks for.

    Raises:
        ConfigError: an unknown group, option or key, a wrong type, a value out of range.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from runner import sweeps

    composed: list[sweeps.Composed] = []

    def collect(cell: DictConfig) -> None:
        now = HydraConfig.get()
        composed.append((cell, dict(now.runtime.choices), [str(override) for override in now.overrides.task]))

    with _set_up(arguments):
        sweeps.collect_in(composed)
        argv, sys.argv = sys.argv, [sys.argv[0], *in_hydras_order([*_site(), *arguments])]
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(collect)()
            return _checked(composed)
        finally:
            sys.argv = argv


def compose_all(lines: list[list[str]]) -> list[list[Cell]]:
    """As `compose` does each line by itself; what several lines load is loaded once."""
    if len(lines) == 1 or any(word.startswith("-") and word != "-m" for line in lines for word in line):
        return [compose(line) for line in lines]
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from runner import sweeps

    composed = []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        composer = sweeps.Composer.of(hydra.config_loader, _site())
        for line in lines:
            with _set_up(line):
                composed.append(_checked(list(composer.line([word for word in line if word != "-m"]))))
    return composed


@contextlib.contextmanager
def _set_up(arguments: list[str]) -> Iterator[None]:
    """What Hydra must find, and its complaints in our words."""
    from hydra.core.config_store import ConfigStore

    from runner import complaints

    for argument in arguments:
        if argument.startswith("~"):  # a run that lacks a key is one from before the key was there: see runner.identity
            raise ConfigError(f"{argument}: a key cannot be taken out; set it to the value that you want")
    ConfigStore.instance().store(name="schema", node=Schema)
    here = "slurm" if shutil.which("sbatch") else "local"
    asked = os.environ.get("DISTSGD_LAUNCHER")
    if asked in ("auto", "simulated"):
        raise ConfigError(f"DISTSGD_LAUNCHER={asked}: must be slurm, local, or a launcher of your own; unset it")
    os.environ["RUN_EXPERIMENT_AUTO"] = asked or here
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a user's own algorithm is found in the folder they stand in
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors to us instead of printing them
    with tempfile.TemporaryDirectory() as scratch:  # Hydra's record of a sweep; ours is in each run's folder
        os.environ["RUN_EXPERIMENT_SCRATCH"] = scratch
        try:
            yield
        except ConfigError:
            raise
        except complaints.CAUSES as error:
            raise ConfigError(complaints.explain(error, arguments)) from error


def _checked(composed: list[Composed]) -> list[Cell]:
    from runner import complaints

    for cell, _, _ in composed:
        complaints.check_keys(cell)
    return [(from_composed(cell, choices, overrides), overrides) for cell, choices, overrides in composed]


def _site() -> list[str]:
    """What makes Hydra look into the folder of a site's own options, beside a --config-dir."""
    folders = helps.site_dirs()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"DISTSGD_CONFIG_DIR={folder}: is no folder; name one with launcher/mine.yaml, or unset it"
            )
    quoted = [str(folder.absolute()).replace("'", "\\'") for folder in folders]
    return [f"hydra.searchpath=['file://{folder}']" for folder in quoted]


def in_hydras_order(arguments: list[str]) -> list[str]:
    """Overrides first, then flags: Hydra's parser does not take overrides on both sides of a flag."""
    overrides: list[str] = []
    flags: list[str] = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        flag = argument.startswith("-") or previous in FLAGS_WITH_VALUE
        (flags if flag else overrides).append(argument)
    return overrides + flags


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
