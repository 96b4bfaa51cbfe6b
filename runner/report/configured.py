"""What a run's config.yaml says: of one that has not finished there is nothing else."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from runner import identity

_NEEDED = re.compile(
    rb"^\w+: .*\n|^(?:algorithm|choices):\n(?:  .*\n)+|^(?:launcher|problem|cost):\n(?:  .*\n)*?  (?:kind|of): .*\n",
    re.MULTILINE,
)
"""Of a configuration as the runner writes it, what `as_summarised` reads."""


@lru_cache(maxsize=1000)
def parsed(text: bytes) -> Any:
    """YAML. Most entries of a sweep's configurations are the same."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # 10 times as fast


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
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
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


def flat(path: Path) -> dict[str, Any]:
    """All of it by dotted keys, as they are typed; nothing where it cannot be read."""
    try:
        config = parsed(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return dict(identity.flat(config)) if isinstance(config, dict) else {}
