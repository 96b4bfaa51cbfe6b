"""How the runs of a study differ from the paper's own at scale=paper, or from what the preset of that scale sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from runner import studies
from runner.build import ConfigError
from runner.composing import compose_all
from runner.config import Config, follows_rule, known_lr, simulated, timing_only
from runner.identity import GROUPS, VIRTUAL_GROUPS, as_typed, flat, is_outside, method_name, settings

MATTER = {*GROUPS, *VIRTUAL_GROUPS, "launcher"}
"""Groups of which another option makes another experiment."""
DERIVED = {"device", "backend", "optimizer.lr"}
"""Filled in where they are left open."""


def deviations_of(study: studies.Study, cells: Sequence[Config]) -> list[str]:
    """In which settings any of its cells differs from its counterpart among the study's runs at scale=paper.

    Where both have equally many runs of a method, they are counterparts in their order; else a cell's is the one that
    is most like it. Of a method that the study does not run at that scale, it is in one of the paper's other studies;
    where none of them runs it, cells differ from what the preset of that scale sets. What does not hold of all cells is
    said with the methods, or the numbers of nodes, that it holds of.
    """
    if not has_paper_setting(study.paper):
        return []
    told: dict[str, list[Config]] = {}
    held: list[Config] = []
    for name in dict.fromkeys(cell["choices"]["algorithm"] for cell in cells):
        mine = _of_one_seed([cell for cell in cells if cell["choices"]["algorithm"] == name])
        held += mine
        own = _at_scale_paper([study], name)
        theirs, known = own or _at_scale_paper(_others(study), name), None
        if not theirs:
            theirs, known = (
                _composed([[f"experiment={study.paper}/paper", f"algorithm={name}"]]),
                paper_keys(study.paper),
            )
        for number, cell in enumerate(mine):
            counterparts = [own[number]] if len(own) == len(mine) else theirs
            against = [
                (differences(cell, paper | {"seed": cell["seed"]}, known), paper["nodes"] != cell["nodes"])
                for paper in counterparts
            ]
            if against:  # on as many nodes where several are as like it
                fewest, _ = min(against, key=lambda each: (len(each[0]), each[1]))
                for each in fewest:
                    told.setdefault(each, []).append(cell)
    return [each + _whose(having, held) for each, having in told.items()]


def differences(here: Config, paper: Config, known: set[str] | None = None) -> list[str]:
    """In which settings a composed configuration differs from one of scale=paper: "epochs 12 (scale=paper: 90)", ...

    Of a group of which another option is chosen, only that is said; of a simulated cluster, what its options have not.

    Args:
        known: the keys that count, where the other configuration has others by default only.
    """

    def counts(key: str) -> bool:
        return known is None or key in known

    def differs(key: str, ours: object, theirs: object) -> str:
        return f"{key} {ours} (scale=paper: {theirs})"

    idle = {"dataset", "model", "schedule", "optimizer", "evaluation"} if timing_only(here) else set()
    ours, theirs = here["choices"], paper["choices"]
    own = settings(here).split(", ")
    found = []
    if simulated(here) and not simulated(paper):
        idle = idle | {*VIRTUAL_GROUPS, "launcher"}
        found.append(differs("machines", f"simulated: {ours['cluster']}, time as for cost {ours['cost']}", "real ones"))
        found += [f"{each} of the simulated cluster" for each in own if each.partition(".")[0] in VIRTUAL_GROUPS]
    found += [
        differs(
            group, " ".join([str(option), *(each for each in own if each.startswith(f"{group}."))]), theirs.get(group)
        )
        for group, option in sorted(ours.items())
        if group in MATTER - idle and counts(group) and option != theirs.get(group)
    ]
    values = dict(_settings(paper))
    fixed = set() if follows_rule(here) and follows_rule(paper) else {"optimizer.reference_lr"}
    rate, theirs_rate = known_lr(here), known_lr(paper)
    if fixed and "optimizer" not in idle and None not in (rate, theirs_rate) and rate != theirs_rate:
        found.append(differs("learning rate", f"{rate:g}", f"{theirs_rate:g}"))
    for key, value in _settings(here):
        group = key.partition(".")[0]
        if (
            key not in fixed
            and group not in idle
            and counts(key)
            and ours.get(group) == theirs.get(group)
            and values.get(key) != value
        ):
            found.append(differs(key, as_typed(value), as_typed(values.get(key))))
    return found


def _whose(having: Sequence[Config], cells: Sequence[Config]) -> str:
    """Which of the cells it is, in words, ": sgp (overlap=1) on 4, 8 nodes"; "" where it is all of them."""

    def is_told_by(key: Callable[[Config], object]) -> bool:
        wanted = {key(cell) for cell in having}
        return sum(key(cell) in wanted for cell in cells) == len(having)

    if len(having) == len(cells):
        return ""
    if is_told_by(method_name):
        return f": {', '.join(dict.fromkeys(map(method_name, having)))}"
    if is_told_by(lambda cell: cell["nodes"]):
        return f": {_nodes(having)}"
    if not is_told_by(lambda cell: (method_name(cell), cell["nodes"])):
        return ": some runs"
    methods: dict[str, list[Config]] = {}
    for cell in having:
        methods.setdefault(method_name(cell), []).append(cell)
    return f": {', '.join(f'{name} on {_nodes(mine)}' for name, mine in methods.items())}"


def _nodes(configs: Sequence[Config]) -> str:
    numbers = sorted({config["nodes"] for config in configs})
    return f"{', '.join(map(str, numbers))} node{'' if numbers == [1] else 's'}"


def paper_setting(paper: str) -> str:
    """What scale=paper stands for, and what of it is unverified: the words at the head of its preset."""
    if not has_paper_setting(paper):
        return ""
    lines = studies.path_of(f"{paper}/paper").read_text().splitlines()[1:]
    return " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line[:1] == "#", lines))


def has_paper_setting(paper: str) -> bool:
    """Whether there is a preset of scale=paper: a study of one's own may have none."""
    return studies.path_of(f"{paper}/paper").is_file()


def paper_keys(paper: str) -> set[str]:
    """The groups and dotted keys that the preset of scale=paper sets."""
    content = studies.read(f"{paper}/paper")
    groups = {key.rpartition("/")[2] for each in content.pop("defaults", []) for key in each}
    return groups | {key for key, _ in flat(content)}


def _at_scale_paper(of: Sequence[studies.Study], algorithm: str) -> list[Config]:
    """The runs of these studies with that method, of one seed."""
    lines = [line for study in of if "paper" in study.lines for line in study.commands("paper")]
    return _composed([line for line in lines if f"algorithm={algorithm}" in line])


def _others(study: studies.Study) -> list[studies.Study]:
    """Of the same paper."""
    return [other for other in studies.of_paper(study.paper) if other.name != study.name]


def _composed(lines: list[list[str]]) -> list[Config]:
    try:
        return _of_one_seed([config for line in compose_all(lines) for config, _ in line])
    except ConfigError:  # an option of the user's own has nothing to be held against
        return []


def _of_one_seed(configs: Sequence[Config]) -> list[Config]:
    return [config for config in configs if config["seed"] == configs[0]["seed"]]


def _settings(config: Config) -> list[tuple[str, Any]]:
    """What determines results and is typed, with dotted keys."""
    return [(key, value) for key, value in flat(config) if key not in DERIVED and not is_outside(key)]
