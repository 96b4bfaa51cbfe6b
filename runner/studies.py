"""Studies: the runs behind one table or figure of a paper, at one of three scales.

`conf/experiment/<paper>/<study>.yaml` lists, for each scale, command lines; what all runs of a paper at a scale share
is an ordinary preset, `conf/experiment/<paper>/<scale>.yaml`. So `experiment=sgp/scaling scale=virtual` stands for
several lines `-m experiment=sgp/virtual ...`, each of which anyone can type, and studies that want the same run share
it: it lies in results/runs/<paper>/<scale>.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.build import ConfigError, nearest
from runner.config import Config, conf_dir, timing_only
from runner.identity import GROUPS, OUTSIDE, VIRTUAL_GROUPS, as_typed, flat

SCALES = ("paper", "virtual", "laptop")
"""The paper's own setting on a real cluster; its cluster simulated, with a small task; a few minutes on two cores."""
MATTER = {*GROUPS, *VIRTUAL_GROUPS, "launcher"}
"""Groups of which another option makes another experiment."""
DERIVED = {"device", "backend", "optimizer.lr"}
"""Filled in where they are left open."""
KEYS = {"title", "source", "notes", "of", *SCALES}


@dataclass(frozen=True)
class Study:
    """One table or figure.

    Args:
        name: <paper>/<study>.
        source: where in the paper, and how sure that is.
        notes: what a reader must know beside the settings that differ from the paper's.
        lines: by scale, what follows `run-experiment -m`.
        of: preset of its runs, where that is not the scale's: {scale} stands for it.
    """

    name: str
    title: str
    source: str
    notes: list[str]
    lines: dict[str, list[str]]
    of: str = "{scale}"

    @property
    def paper(self) -> str:
        return self.name.partition("/")[0]

    def preset(self, scale: str) -> str:
        """Of all its runs; also the folder below results/runs."""
        return f"{self.paper}/{self.of.format(scale=scale)}"

    def commands(self, scale: str) -> list[list[str]]:
        """What would be typed for it after `run-experiment`, line by line."""
        rates = tuned(self.paper, scale)
        return [
            ["-m", f"experiment={self.preset(scale)}", *words]
            for line in self.lines[scale]
            for words in _by_method(shlex.split(line), rates)
        ]


def names() -> list[str]:
    """Of all studies, by paper."""
    root = conf_dir() / "experiment"
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.glob("*/*.yaml") if _is_study(path))


def load(name: str) -> Study:
    """
    Raises:
        ConfigError: there is no such study.
    """
    if name not in names():
        raise ConfigError(f"experiment={name}: there is no such study; {nearest(name, names())}")
    content = _read(name)
    if unknown := sorted(set(content) - KEYS):
        raise ConfigError(
            f"conf/experiment/{name}.yaml: {unknown[0]}: there is no such key; {nearest(unknown[0], sorted(KEYS))}"
        )
    more = {"of": content["of"]} if "of" in content else {}
    return Study(
        name,
        content["title"],
        content["source"],
        content.get("notes", []),
        {scale: content[scale] for scale in SCALES if scale in content},
        **more,
    )


def tuned(paper: str, scale: str) -> dict[str, float]:
    """Learning rates per 256 images by method, as `scripts/choose_rates.py` has found them."""
    path = conf_dir() / "experiment" / paper / "tuned.yaml"
    rates: dict[str, float] = (_read(f"{paper}/tuned").get(scale) or {}) if path.exists() else {}
    return rates


def asked(arguments: list[str]) -> tuple[Study, str] | None:
    """The study and the scale that a command line asks for; None where it asks for no study.

    Raises:
        ConfigError: the scale does not exist, or the study has none such.
    """
    typed = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    name, scale = typed.get("experiment"), typed.get("scale")
    if name is None and scale is None:  # as most often: no file is read
        return None
    if name not in names():
        if scale is None:
            return None
        known = ", ".join(names())
        raise ConfigError(f"scale={scale}: belongs to a study, experiment=<paper>/<study>; they are {known}")
    study = load(name)
    scale = "virtual" if scale is None else scale
    if scale not in study.lines:
        raise ConfigError(f"scale={scale}: {name} has the scales {', '.join(study.lines)}")
    return study, scale


def expand(arguments: list[str]) -> list[list[str]]:
    """The command lines that a command line stands for: those of a study, or itself.

    What is typed beside `experiment=` and `scale=` goes into every line, in place of what the line says of that key;
    `algorithm=` chooses among the lines.

    Raises:
        ConfigError: the scale does not exist, or the study has none such, or no such method.
    """
    found = asked(arguments)
    if found is None:
        return [arguments]
    study, scale = found
    typed = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    commands = study.commands(scale)
    if "algorithm" in typed:
        [wanted] = [argument for argument in arguments if argument.startswith("algorithm=")]
        methods = [f"algorithm={name}" for name in wanted.removeprefix("algorithm=").split(",")]
        commands = [command for command in commands if any(method in command for method in methods)]
        if not commands:
            raise ConfigError(f"{wanted}: {study.name} has no run of it at scale={scale}")
        typed.remove("algorithm")  # each line has its own, and that one's learning rate
    rest = [
        argument
        for argument in arguments
        if argument.partition("=")[0] not in ("experiment", "scale", "algorithm", "-m", "--multirun")
    ]
    return [
        [*(word for word in command if word.partition("=")[0] not in typed or word.startswith("experiment=")), *rest]
        for command in commands
    ]


def deviations(here: Config, paper: Config) -> list[str]:
    """In which settings one composed configuration differs from the paper's: "epochs 12 (paper: 90)", ...

    Of a group of which another option is chosen, only that is said.
    """
    found = []
    idle = {"dataset", "model", "schedule", "optimizer", "evaluation"} if timing_only(here) else set()
    for group, option in sorted(here["choices"].items()):
        if group in MATTER - idle and option != paper["choices"].get(group):
            found.append(f"{group} {option} (paper: {paper['choices'].get(group)})")
    theirs = dict(flat({key: value for key, value in paper.items() if key not in OUTSIDE}))
    for key, value in flat({key: value for key, value in here.items() if key not in OUTSIDE}):
        group = key.partition(".")[0]
        chosen_alike = here["choices"].get(group) == paper["choices"].get(group)
        if chosen_alike and group not in idle and theirs.get(key) != value and key not in {*OUTSIDE, *DERIVED}:
            found.append(f"{key} {as_typed(value)} (paper: {as_typed(theirs.get(key))})")
    return found


def _by_method(words: list[str], rates: dict[str, float]) -> list[list[str]]:
    """The line once for each of its methods, with that one's learning rate, unless it names one itself.

    Hydra would hold a setting that only the named methods have against the default one.
    """
    [chosen] = [word for word in words if word.startswith("algorithm=")]
    rest = [word for word in words if word != chosen]
    if "problem=none" in words or any(word.startswith("optimizer.reference_lr=") for word in words):
        rates = {}
    return [
        [f"algorithm={name}", *rest, *([f"optimizer.reference_lr={rates[name]:g}"] if name in rates else [])]
        for name in chosen.removeprefix("algorithm=").split(",")
    ]


def _is_study(path: Path) -> bool:
    return "\ntitle: " in f"\n{path.read_text()}"


def _read(name: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load((conf_dir() / "experiment" / f"{name}.yaml").read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"conf/experiment/{name}.yaml: cannot be read as YAML ({error}); mend the file") from error
    assert isinstance(content, dict)
    return content
