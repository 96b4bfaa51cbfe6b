"""Studies: the runs behind one table or figure of a paper, at one of three scales.

`conf/experiment/<paper>/<study>.yaml` lists, for each scale, command lines; what all runs of a paper at a scale share
is an ordinary preset, `conf/experiment/<paper>/<scale>.yaml`. So `experiment=sgp/scaling scale=virtual` stands for
several lines `-m experiment=sgp/virtual ...`, each of which anyone can type, and studies that want the same run share
it: it lies in results/runs/<paper>/<scale>.

An entry that is a mapping of lists stands for the lines that have one of each; the lists' names are for the reader.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from runner.build import ConfigError, nearest
from runner.config import conf_dir
from runner.identity import is_outside

SCALES = ("paper", "virtual", "laptop")
"""The paper's own setting on a real cluster; one simulated, with a small task; a few minutes on two cores."""
LONGEST_PART = 150
"""Of a file's name, in characters; file systems end at 255."""
SHAPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("title", "source", "of"), (str,)),
    **dict.fromkeys(("notes", "by", "figures", *SCALES), (list,)),
    **dict.fromkeys(("table", "common"), (dict,)),
    "target": (int, float),
}
"""The keys of a study's file, and what each must be."""


@dataclass(frozen=True)
class Study:
    """One table or figure.

    Args:
        name: <paper>/<study>.
        source: where in the paper, and how sure that is; or "not in the paper", and what it is for.
        lines: by scale, what follows `run-experiment -m`.
        common: by scale, what every line has beside its own words.
        notes: what a reader must know beside the settings that differ from the paper's; {scale: ...} of that scale.
        of: preset of its runs, where that is not the scale's: {scale} stands for it.
        by: of a study that chooses learning rates: the settings that have one each.
        table: options of `experiments table`: {by: [...], values: [...]} or {rows: ..., columns: ..., values: [...]}.
        target: the top-1 whose time the table's time_to_target_s is.
        figures: options of `experiments plot` for each: {x: ..., y: ..., by: [...], where: [...]}.
    """

    name: str
    title: str
    source: str
    lines: dict[str, list[str]]
    common: dict[str, str] = field(default_factory=dict)
    notes: list[str | dict[str, str]] = field(default_factory=list)
    of: str = "{scale}"
    by: list[str] = field(default_factory=lambda: ["algorithm"])
    table: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    figures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def paper(self) -> str:
        return self.name.partition("/")[0]

    @property
    def in_paper(self) -> bool:
        return not self.source.startswith("not in the paper")

    @property
    def stem(self) -> str:
        """Of files."""
        return self.name.replace("/", "-")

    def preset(self, scale: str) -> str:
        """Of all its runs; also the folder below results/runs."""
        return f"{self.paper}/{self.of.format(scale=scale)}"

    def notes_at(self, scale: str) -> list[str]:
        return [told for each in self.notes if (told := each if isinstance(each, str) else each.get(scale))]

    def whole_lines(self, scale: str) -> list[list[str]]:
        """Its lines as words, with what all have."""
        return [shlex.split(f"{line} {self.common.get(scale, '')}") for line in self.lines[scale]]

    def commands(self, scale: str, typed: Sequence[str] = ()) -> list[list[str]]:
        """What would be typed for it after `run-experiment`, line by line.

        Args:
            typed: KEY=VALUE words, which take the place of what a line says of their keys. A method has the learning
                rate chosen for them, where there is one, and else that of its line.
        """
        rates = tuned(self.paper).get(scale) or {}
        keys = {_key(word) for word in typed}
        lines = []
        for line in self.whole_lines(scale):
            for words in _by_method(line):
                changed = [*(word for word in words if _key(word) not in keys), *typed]
                rate = [] if _has_rate(words) else _rate(changed, rates) or _rate(words, rates)
                rate = [word for word in rate if _key(word) not in keys]
                lines.append(["-m", f"experiment={self.preset(scale)}", *changed, *rate])
        return lines


def names() -> list[str]:
    """Of all studies, by paper."""
    root = conf_dir() / "experiment"
    found = (str(path.relative_to(root).with_suffix("")) for path in root.glob("*/*.yaml"))
    return sorted(name for name in found if is_study(name))


def of_paper(paper: str) -> list[Study]:
    return [load(name) for name in names() if name.startswith(f"{paper}/")]


def load(name: str) -> Study:
    """
    Raises:
        ConfigError: there is no such study, or its file is wrong.
    """
    if not is_study(name):
        raise _no_study(name)
    content = read(name)
    _check(name, content)
    lines = {scale: [*_lines(name, scale, content.pop(scale))] for scale in SCALES if scale in content}
    study = Study(name=name, lines=lines, **content)
    for scale in lines:
        try:
            whole = study.whole_lines(scale)
        except ValueError as error:
            raise _wrong(name, f"{scale}: a line cannot be read ({error}); mend its quotes") from error
        for line in whole:
            if sum(_key(word) == "algorithm" for word in line) != 1:
                told = " ".join(line)
                raise _wrong(name, f"{told}: must name its methods by one algorithm=")
    return study


def tuned(paper: str) -> dict[str, dict[str, float]]:
    """Learning rates per 256 images by scale and words of a line, as `scripts/choose_rates.py` has found them."""
    return read(f"{paper}/tuned") if path_of(f"{paper}/tuned").exists() else {}


def asked(arguments: list[str]) -> list[tuple[Study, str]]:
    """The studies, and the scale of each, that a command line asks for; none where it asks for no study.

    Raises:
        ConfigError: the scale does not exist, or a study has none such; studies and presets in one line.
    """
    typed = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    wanted = [name.strip() for name in typed.get("experiment", "").split(",") if name.strip()]
    scale = typed.get("scale")
    if sum(argument.startswith("experiment=") for argument in arguments) > 1:
        raise ConfigError(f"experiment={','.join(wanted)}: is not the only one; write experiment=ONE,OTHER for several")
    if not wanted and scale is None:  # as most often: no file is read
        return []
    if not any(map(is_study, wanted)):
        papers = {each.partition("/")[0] for each in names()}
        for name in wanted:
            if name.endswith("/tuned") and path_of(name).is_file():
                raise ConfigError(f"experiment={name}: holds learning rates and is no preset; {nearest(name, names())}")
            like_one = name.partition("/")[0] in papers or get_close_matches(name.lower(), names(), cutoff=0.8)
            named_so = [each for each in names() if each.partition("/")[2].lower() == name.lower()]
            if not path_of(name).is_file() and named_so:
                raise ConfigError(f"experiment={name}: write the paper too: {' or '.join(named_so)}")
            if not path_of(name).is_file() and like_one:
                beside = any(word.startswith(("--config-dir", "-cd")) for word in arguments)
                where = "; studies lie in conf/experiment of the project, not in a --config-dir" if beside else ""
                raise ConfigError(f"{_no_study(name)}{where}")
        if scale is None:
            return []
        known = ", ".join(names())
        raise ConfigError(f"scale={scale}: belongs to a study, experiment=<paper>/<study>; they are {known}")
    found = [(load(name), "virtual" if scale is None else scale) for name in wanted]
    for study, its_scale in found:
        if its_scale not in study.lines:
            raise ConfigError(f"scale={its_scale}: not a scale of {study.name}; {nearest(its_scale, study.lines)}")
        if not path_of(preset := study.preset(its_scale)).is_file():
            shared = f"a preset of what all runs of {study.paper} have at scale={its_scale}"
            raise _wrong(preset, f"is missing; {study.name} needs it, {shared}")
    return found


def expand(study: Study, scale: str, arguments: list[str]) -> list[list[str]]:
    """The command lines that a command line stands for where it asks for that study.

    What is typed beside `experiment=` and `scale=` goes into every line, in place of what the line says of that key;
    `algorithm=` chooses among the lines.

    Raises:
        ConfigError: the study has no such method.
    """
    rest = [word for word in arguments if _key(word) not in ("experiment", "scale", "algorithm", "-m", "--multirun")]
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    flags = [word for word in rest if word not in overrides]
    commands = study.commands(scale, overrides)
    known = sorted({word.partition("=")[2] for line in commands for word in line if _key(word) == "algorithm"})
    for wanted in (argument for argument in arguments if _key(argument) == "algorithm"):
        methods = wanted.partition("=")[2].split(",")
        for name in methods:
            if not any(f"algorithm={name}" in command for command in commands):
                raise ConfigError(
                    f"{wanted}: {study.name} has no run of {name} at scale={scale}; {nearest(name, known)}"
                )
        commands = [command for command in commands if any(f"algorithm={name}" in command for name in methods)]
    return [[*command, *flags] for command in commands]


def narrowing(arguments: list[str]) -> str:
    """What is typed that makes other runs of a study than its own, or fewer, for names of files; often nothing.

    >>> narrowing(["experiment=sgp/accuracy", "scale=laptop", "nodes=4", "seed=0,1", "results_dir=x"])
    '-nodes=4-seed=0,1'
    """
    words = {word for word in arguments if "=" in word and _key(word) not in ("experiment", "scale")}
    typed = "".join(f"-{word}" for word in sorted(words) if not (word.startswith("-") or is_outside(_key(word))))
    name = re.sub(r"[^\w.,=+-]+", "_", typed)[:LONGEST_PART]
    return name if name == typed else f"{name}-{hashlib.sha256(typed.encode()).hexdigest()[:6]}"


def is_study(name: str) -> bool:
    """Whether there is a file of that name which is no preset: it has a title or a source."""
    path = path_of(name)
    return path.is_file() and re.search("^(title|source):", path.read_text(), re.M) is not None


def path_of(name: str) -> Path:
    """Of a study's or a preset's file, which need not be there."""
    return conf_dir() / "experiment" / f"{name}.yaml"


def read(name: str) -> dict[str, Any]:
    """What such a file says.

    Raises:
        ConfigError: it is no YAML.
    """
    import yaml

    try:
        content = yaml.safe_load(path_of(name).read_text())
    except yaml.YAMLError as error:
        raise _wrong(name, f"cannot be read as YAML ({error}); mend the file") from error
    assert isinstance(content, dict)
    return content


def _check(name: str, content: dict[str, Any]) -> None:
    """
    Raises:
        ConfigError: a key is unknown or missing, or its value of another kind.
    """
    for key, value in content.items():
        if key not in SHAPES:
            raise _wrong(name, f"{key}: there is no such key; {nearest(key, sorted(SHAPES))}")
        if not isinstance(value, SHAPES[key]):
            shape = {str: "words", list: "a list", dict: "a mapping", int: "a number"}[SHAPES[key][0]]
            raise _wrong(name, f"{key}: {value}: must be {shape}")
    for key, what in (("title", "what it shows"), ("source", "where in the paper it is")):
        if key not in content:
            raise _wrong(name, f"{key}: is missing; say {what}")
    if not 0 < content.get("target", 0.5) <= 1:
        raise _wrong(name, f"target: {content['target']}: must be a top-1 as a fraction, such as 0.8")
    for note in content.get("notes", []):
        by_scale = note if isinstance(note, dict) else dict.fromkeys(SCALES, note)
        if not by_scale.keys() <= {*SCALES} or not all(isinstance(words, str) for words in by_scale.values()):
            known = ", ".join(SCALES)
            raise _wrong(name, f"notes: {note}: must be words, or words by scale, {{{SCALES[1]}: ...}} ({known})")
    for scale, words in content.get("common", {}).items():
        if scale not in SCALES:
            raise _wrong(name, f"common: {scale}: not a scale; {nearest(scale, SCALES)}")
        if not isinstance(words, str):
            raise _wrong(name, f"common: {scale}: {words}: must be a part of a line")
    table = content.get("table", {})
    options = ("rows", "columns", "values") if {"rows", "columns"} & table.keys() else ("by", "values")
    if strange := [key for key in table if key not in options]:
        raise _wrong(name, f"table: {strange[0]}: there is no such key; {nearest(strange[0], options)}")
    for key, value in table.items():
        several = key in ("by", "values")
        if not isinstance(value, list if several else str) or not value or not all(isinstance(x, str) for x in value):
            raise _wrong(name, f"table: {key}: {value}: must be {'a list of words' if several else 'a word'}")
    if "rows" in options and not {"rows", "columns"} <= table.keys():
        raise _wrong(name, "table: has one of rows and columns; name both")
    for figure in content.get("figures", []):
        if not isinstance(figure, dict):
            raise _wrong(name, f"figures: {figure}: must be options of `experiments plot`, as {{x: nodes, y: top1}}")
    for scale in SCALES:
        if scale in content and not content[scale]:
            raise _wrong(name, f"{scale}: must be a list of lines")


def _lines(name: str, scale: str, entries: Sequence[str | dict[str, list[str]]]) -> Iterator[str]:
    for entry in entries:
        lists = entry if isinstance(entry, dict) else {scale: [entry]}
        for key, words in lists.items():
            if not isinstance(words, list) or not words or not all(isinstance(each, str) for each in words):
                raise _wrong(name, f"{key}: {words}: must be a list of parts of lines")
        yield from map(" ".join, itertools.product(*lists.values()))


def _by_method(words: list[str]) -> list[list[str]]:
    """The line once for each of its methods.

    Hydra would hold a setting that only the named methods have against the default one.
    """
    [chosen] = [word for word in words if _key(word) == "algorithm"]
    rest = [word for word in words if word != chosen]
    return [[f"algorithm={name}", *rest] for name in chosen.removeprefix("algorithm=").split(",")]


def _has_rate(words: list[str]) -> bool:
    """Whether a line brings its own learning rate, or needs none."""
    return "problem=none" in words or any(_key(word) == "optimizer.reference_lr" for word in words)


def _rate(line: list[str], rates: dict[str, float]) -> list[str]:
    """The learning rate of the most particular entry all of whose words the line has; [] where there is none."""
    fitting = [words for words in rates if set(words.split()) <= set(line)]
    return [f"optimizer.reference_lr={rates[max(fitting, key=len)]:g}"] if fitting else []


def _no_study(name: str) -> ConfigError:
    if path_of(name).is_file():
        return ConfigError(f"experiment={name}: is a preset and no study; give it a line of its own")
    return ConfigError(f"experiment={name}: there is no such study; {nearest(name, names())}")


def _wrong(name: str, what: str) -> ConfigError:
    """Of a file."""
    return ConfigError(f"conf/experiment/{name}.yaml: {what}")


def _key(word: str) -> str:
    return word.partition("=")[0]
