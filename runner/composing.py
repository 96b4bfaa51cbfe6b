"""From command lines to composed configurations, with Hydra, which is imported when there is something to compose.

With one configuration or with -m, it calls `collect` for each cell; all are known and checked before anything starts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runner import help as helps
from runner.build import ConfigError
from runner.config import Cell, Schema, conf_dir, from_composed

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from runner.sweeps import Composed

FLAGS_WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--info", "-i", "--experimental-rerun"),
}


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
    """As `compose` does each line by itself; what several lines load is loaded once. Errors name the line."""
    if len(lines) < 2:
        return [compose(line) for line in lines]
    if any(word.startswith("-") and word != "-m" for line in lines for word in line):
        composed = []
        for line in lines:
            with naming(line):
                composed.append(compose(line))
        return composed
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from runner import sweeps

    composed = []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        composer = sweeps.Composer.of(hydra.config_loader, _site())
        for line in lines:
            with naming(line), _set_up(line):
                composed.append(_checked(list(composer.line([word for word in line if word != "-m"]))))
    return composed


@contextlib.contextmanager
def naming(line: list[str]) -> Iterator[None]:
    """What is wrong inside is told with the line that it is in, of the several that a study has."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{error}\n(in the line: {shlex.join(line)})") from error


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
