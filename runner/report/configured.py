"""What a run's config.yaml says: of one that has not finished there is nothing else."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_NEEDED = re.compile(
    rb"^\w+: .*\n|^(?:algorithm|choices):\n(?:  .*\n)+|^(?:launcher|problem|cost):\n(?:  .*\n)*?  (?:kind|of): .*\n",
    re.MULTILINE,
)
"""Of a configuration as the runner writes it, what `as_summarised` reads."""


@lru_cache(maxsize=1000)
def parsed(text: bytes) -> Any:
    """YAML. Most entries of a sweep's configurations are the same.

    Raises:
        ValueError: it is nested without end, or deeper than Python can go.
        yaml.YAMLError: it is none.
    """
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # 10 times as fast
        if b"&" in text:  # an anchor, maybe of what it is in itself
            json.dumps(found, default=str, skipkeys=True)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return found


def whole(path: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: it cannot be read.
    """
    try:
        found = parsed(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict):
        raise ValueError("not a mapping")
    return found


def part(path: Path, key: str) -> dict[str, Any]:
    """As much of it as holds a dotted key: of thousands of runs, most say the same of a group; errors as `whole`."""
    group = re.escape(key.partition(".")[0].encode())
    try:
        entry = re.search(rb"^%b:.*\n(?:[ -].*\n)*" % group, path.read_bytes(), re.MULTILINE)
        found = parsed(entry[0]) if entry else None
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    return found if isinstance(found, dict) else whole(path)


def as_summarised(path: Path) -> dict[str, Any]:
    """What the configuration of an unfinished run says under a summary's keys; nothing where it cannot be read.

    The options chosen for `algorithm`, `dataset` and the like stand under `choices`.
    """
    try:
        text = path.read_bytes()
        entries = _NEEDED.findall(text)
        try:
            config = {key: value for entry in entries for key, value in parsed(entry).items()} or parsed(text)
        except (yaml.YAMLError, AttributeError):  # not as the runner writes it
            config = parsed(text)
    except (OSError, yaml.YAMLError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    algorithm, choices, launcher, problem, cost = (
        value if isinstance(value := config.get(key), dict) else {}
        for key in ("algorithm", "choices", "launcher", "problem", "cost")
    )
    config = config | choices | {"launcher": launcher.get("kind")}  # another one: the parsed is kept
    if problem.get("kind") == "none":
        config |= {"dataset": None, "model": None}
    if launcher.get("kind") == "simulated":
        config |= {"clock": "virtual", "time_as_for": cost.get("of")}
    else:
        config |= dict.fromkeys(("cluster", "cost", "failures")) | {"clock": "wall" if launcher else None}
    nodes, gpus = config.get("nodes"), config.get("gpus_per_node")
    if isinstance(nodes, int) and isinstance(gpus, int) and algorithm:
        config["workers"] = nodes if algorithm.get("worker", "node") == "node" else nodes * gpus
    return config
