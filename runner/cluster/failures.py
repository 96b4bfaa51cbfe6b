"""What goes wrong, when: a plan that can be read.

failures:
  plan:
    - {worker: 3, dies_at_s: 12, returns_at_s: 20}
    - {node: 1, pauses_at_s: 5, resumes_at_s: 9}
    - {link: [2, 5], from_s: 0, until_s: 30, loss: 0.01}
    - {link: [0, 1], both_ways: true, bandwidth_factor: 0.1, latency_factor: 10}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from runner.build import ConfigError, nearest
from runner.cluster.links import Link, LinkChange, is_number

WHO = ("worker", "node")
TIMES = (("dies_at_s", "returns_at_s"), ("pauses_at_s", "resumes_at_s"))
WORKER_KEYS = {*WHO, *(time for pair in TIMES for time in pair)}
LINK_KEYS = {"link", "both_ways", "from_s", "until_s", "loss", "bandwidth_factor", "latency_factor"}

What = Literal["dies", "returns", "pauses", "resumes"]
IN_ORDER: tuple[What, ...] = ("returns", "resumes", "pauses", "dies")  # at the same time
STATES: dict[What, tuple[tuple[str, ...], str]] = {
    "dies": (("alive", "paused"), "dead"),
    "returns": (("dead",), "alive"),
    "pauses": (("alive",), "paused"),
    "resumes": (("paused",), "alive"),
}
"""In which states something can happen to a worker, and the state that it leads to."""


@dataclass(frozen=True)
class Happening:
    """Something that happens to a worker."""

    time_s: float
    worker: int
    what: What


@dataclass(frozen=True)
class LinkTrouble:
    """A link that is worse between two times: from one node to another."""

    source: int
    target: int
    from_s: float
    until_s: float
    loss: float
    bandwidth_factor: float
    latency_factor: float

    def __call__(self, link: Link, now: float) -> Link:
        if not self.from_s <= now < self.until_s:
            return link
        return replace(
            link,
            latency_s=link.latency_s * self.latency_factor,
            bandwidth=link.bandwidth * self.bandwidth_factor,
            loss=1 - (1 - link.loss) * (1 - self.loss),
        )


@dataclass
class Failures:
    """The plan, and how the methods meet it.

    Args:
        plan: see the module's docstring.
        timeout_s: how long a collective waits for a worker that is gone, before the run fails.
        detection_s: how long after a worker's death the others stop waiting for its messages.
        return_state: where a worker that returns begins, with a new local optimiser: at the iterate that a
            `neighbour` (the next living rank) has just finished, at its own last one (`checkpoint`), or at the
            `initial` one; always at the step where that neighbour is.

    Raises:
        ConfigError: an entry cannot be read.
    """

    plan: list[Any] = field(default_factory=list)
    timeout_s: float = 60.0
    detection_s: float = 0.0
    return_state: Literal["checkpoint", "neighbour", "initial"] = "neighbour"

    def __post_init__(self) -> None:
        for name in ("timeout_s", "detection_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"failures.{name}={getattr(self, name)}: must be seconds, 0 or more")
        if not isinstance(self.plan, list):
            example = _words(self.plan if isinstance(self.plan, dict) else {"worker": 3, "dies_at_s": 12})
            raise ConfigError(f"failures.plan={_words(self.plan)}: must be a list, e.g. [{example}]")
        for entry in self.plan:
            if not isinstance(entry, dict) or len({*WHO, "link"} & set(entry)) != 1:
                raise ConfigError(f"failures.plan: {_words(entry)} must name a worker, a node or a link (one of them)")

    def happenings(self, workers: int, workers_per_node: int) -> list[Happening]:
        """What happens to workers, in order of time.

        Raises:
            ConfigError: a worker or node does not exist, or the times make no sense.
        """
        found = [each for entry in self.plan if "link" not in entry for each in _of(entry, workers, workers_per_node)]
        found.sort(key=lambda each: (each.time_s, IN_ORDER.index(each.what), each.worker))
        states: dict[int, str] = {}
        for each in found:
            possible, after = STATES[each.what]
            state = states.get(each.worker, "alive")
            if state not in possible:
                raise ConfigError(
                    f"failures.plan: worker {each.worker} {each.what} at {each.time_s:g} s, but it is {state} then; "
                    "its entries must not overlap"
                )
            states[each.worker] = after
        return found

    def link_changes(self, nodes: int) -> dict[tuple[int, int], LinkChange]:
        """What happens to links between nodes, one way.

        Raises:
            ConfigError: a node does not exist, or a value is out of range.
        """
        troubles: dict[tuple[int, int], list[LinkTrouble]] = {}
        for entry in self.plan:
            if "link" in entry:
                for trouble in _troubles(entry, nodes):
                    troubles.setdefault((trouble.source, trouble.target), []).append(trouble)
        return {ends: partial(_with_troubles, each) for ends, each in troubles.items()}


def _with_troubles(troubles: list[LinkTrouble], usual: Link) -> Link:
    """The link as it is at time 0; what it becomes hangs from it."""
    times = {0.0, *(time_s for each in troubles for time_s in (each.from_s, each.until_s))} - {math.inf}
    then, until_s = None, math.inf
    for time_s in sorted(times, reverse=True):
        link = usual
        for trouble in troubles:
            link = trouble(link, time_s)
        then, until_s = replace(link, until_s=until_s, then=then), time_s
    assert then is not None, "it begins at time 0"
    return then


def _of(entry: dict[str, Any], workers: int, workers_per_node: int) -> Iterator[Happening]:
    who = next(name for name in WHO if name in entry)
    there = workers if who == "worker" else workers // workers_per_node
    number = entry[who]
    if type(number) is not int or not 0 <= number < there:
        raise ConfigError(
            f"failures.plan: {_words(entry)}: there is no {who} {number}; {who}s are 0 to {there - 1} in this run"
        )
    _check_keys(entry, WORKER_KEYS - set(WHO) | {who})
    begin, end = next((pair for pair in TIMES if pair[0] in entry), (None, None))
    beside = sorted(set(entry) - {who, begin, end})
    if begin is None or end is None or beside:
        what = f"{beside[0]} does not go with {begin}" if begin else "something must happen to it"
        raise ConfigError(
            f"failures.plan: {_words(entry)}: {what}; say dies_at_s (and returns_at_s), or pauses_at_s and resumes_at_s"
        )
    start_s, end_s = entry[begin], entry.get(end)
    if begin == "pauses_at_s" and end_s is None:
        raise ConfigError(f"failures.plan: {_words(entry)}: resumes_at_s is missing")
    for key, value in ((begin, start_s), (end, end_s)):
        if (value is not None or key == begin) and not (is_number(value) and 0 <= value < math.inf):
            raise ConfigError(f"failures.plan: {_words(entry)}: {key} must be seconds of virtual time, 0 or more")
    if end_s is not None and end_s <= start_s:
        raise ConfigError(f"failures.plan: {_words(entry)}: {end} must be later than {begin}")
    first, last = (number, number + 1) if who == "worker" else (
        number * workers_per_node, (number + 1) * workers_per_node
    )  # fmt: skip
    starts: What = "dies" if begin == "dies_at_s" else "pauses"
    ends: What = "returns" if begin == "dies_at_s" else "resumes"
    for worker in range(first, last):
        yield Happening(float(start_s), worker, starts)
        if end_s is not None:
            yield Happening(float(end_s), worker, ends)


def _troubles(entry: dict[str, Any], nodes: int) -> Iterator[LinkTrouble]:
    ends = entry["link"]
    _check_keys(entry, LINK_KEYS)
    if not (isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends)):
        raise ConfigError(f"failures.plan: {_words(entry)}: link must be two nodes, e.g. [2, 5]")
    for end in ends:
        if not 0 <= end < nodes:
            raise ConfigError(f"failures.plan: {_words(entry)}: there is no node {end}; nodes are 0 to {nodes - 1}")
    if ends[0] == ends[1]:
        raise ConfigError(f"failures.plan: {_words(entry)}: a link joins two different nodes")
    from_s, until_s = entry.get("from_s", 0.0), entry.get("until_s", math.inf)
    loss, slower, later = entry.get("loss", 0.0), entry.get("bandwidth_factor", 1.0), entry.get("latency_factor", 1.0)
    if not all(map(is_number, (from_s, until_s, loss, slower, later))):
        raise ConfigError(f"failures.plan: {_words(entry)}: from_s, until_s, loss and the factors must be numbers")
    if not 0 <= from_s < until_s:
        raise ConfigError(f"failures.plan: {_words(entry)}: must have 0 <= from_s < until_s")
    if not 0 <= loss <= 1 or not 0 < slower < math.inf or not 0 <= later < math.inf:
        raise ConfigError(
            f"failures.plan: {_words(entry)}: loss must be between 0 and 1, bandwidth_factor positive, "
            "latency_factor 0 or more"
        )
    if (loss, slower, later) == (0, 1, 1):
        raise ConfigError(
            f"failures.plan: {_words(entry)}: changes nothing; say loss, bandwidth_factor or latency_factor, "
            "or leave the entry out"
        )
    both_ways = entry.get("both_ways", False)
    if not isinstance(both_ways, bool):
        raise ConfigError(f"failures.plan: {_words(entry)}: both_ways must be true or false")
    for source, target in [ends, ends[::-1]] if both_ways else [ends]:
        yield LinkTrouble(source, target, from_s, until_s, loss, slower, later)


def _check_keys(entry: dict[Any, Any], known: set[str]) -> None:
    for key in sorted(str(key) for key in entry if key not in known):
        raise ConfigError(f"failures.plan: {_words(entry)}: {key} is unknown; {nearest(key, known)}")


def _words(entry: Any) -> str:
    if not isinstance(entry, dict):
        return repr(entry)
    return "{" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}"
