"""A run's identity: a hash of what determines its results, so that the same command finds the same run again.

Paths, resources, logging and the like stay out. So does every key that stands at the default it had when it was added
(`ledger.yaml`): a key added later, at a default that changes nothing, orphans no old run, and a default changed later
gives new runs a new identity.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from runner.config import Config, follows_rule, simulated, timing_only

GROUPS = ("algorithm", "topology", "dataset", "sampling", "model", "problem", "optimizer", "schedule")
VIRTUAL_GROUPS = ("cluster", "cost", "failures")
"""Part of a run's identity when it is simulated."""
WITHOUT_TRAINING = {"dataset": "digits", "model": "mlp"}
"""With problem=none these groups have no effect; whatever was chosen, the identity holds this."""
OUTSIDE = {
    "choices", "typed", "servers", "asynchronous", "evaluated_model",
    "launcher", "results_dir", "rerun", "dry_run", "checkpoint_every",
    "record_every", "warmup_iterations", "tensorboard",
    "cluster.compute.trace",  # its content counts: trace_sha256
    "dataset.root", "dataset.download", "dataset.loader_processes",
}  # fmt: skip
ALWAYS = {"nodes", "gpus_per_node", "epochs", "batch_size", "seed", "device", "backend"}
LEDGER = Path(__file__).with_name("ledger.yaml")


@cache
def ledger() -> dict[str, dict[str, Any]]:
    """For the top level ("") and each `<group>/<option>`: key -> the default it had when it was added."""
    from omegaconf import OmegaConf

    container = OmegaConf.to_container(OmegaConf.load(LEDGER))
    assert isinstance(container, dict)
    return {str(section): dict(defaults) for section, defaults in container.items()}


def scoped(config: Config) -> dict[str, dict[str, Any]]:
    """The keys that may matter, by ledger section, dotted within it."""
    every = (*GROUPS, *VIRTUAL_GROUPS)
    top = {key: value for key, value in config.items() if key not in every and key not in OUTSIDE}
    sections = {"": dict(flat(top))}
    for group in every if simulated(config) else GROUPS:
        if timing_only(config) and group in WITHOUT_TRAINING:
            sections[f"{group}/{WITHOUT_TRAINING[group]}"] = {}
            continue
        section = f"{group}/{config['choices'].get(group)}"
        sections[section] = {k: v for k, v in flat(config[group]) if f"{group}.{k}" not in OUTSIDE}
    return sections


def off_default(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The values that have no default, or another one."""
    return {k: v for k, v in values.items() if k not in defaults or defaults[k] != v}


def content(config: Config) -> dict[str, Any]:
    """What is hashed: the choice of every group, and the keys that are not at their ledger default."""
    chosen: dict[str, Any] = {"launcher": config["launcher"]["kind"]}
    for section, values in scoped(config).items():
        always = {k: v for k, v in values.items() if k in ALWAYS}
        kept = always | off_default(values, ledger().get(section, {}))
        if section:
            group, option = section.split("/", 1)
            chosen[group] = {"": option} | kept
        else:
            chosen |= kept
    return chosen


def identity(config: Config) -> str:
    """12 hexadecimal digits."""
    text = json.dumps(_one_spelling(content(config)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _one_spelling(value: Any) -> Any:
    """Whole numbers as ints: 1 and 1.0 are the same setting."""
    if isinstance(value, dict):
        return {key: _one_spelling(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_one_spelling(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def variant(config: Config) -> str:
    """The method's settings that differ from its defaults, for tables: "overlap=1, merge=exact"; "" for none.

    A method from outside has no defaults in the ledger: all its settings are named.
    """
    section = f"algorithm/{config['choices'].get('algorithm')}"
    defaults = ledger().get(section, {"_target_": config["algorithm"]["_target_"], "worker": "node"})
    return ", ".join(f"{k}={as_typed(v)}" for k, v in off_default(scoped(config)[section], defaults).items())


def method_name(config: Config) -> str:
    """The method in words: "sgp (overlap=1)"."""
    its = variant(config)
    return f"{config['choices']['algorithm']}{f' ({its})' if its else ''}"


def settings(config: Config) -> str:
    """All other settings that differ from their defaults, for telling runs apart: "model.hidden=[16], ...".

    The defaults of an option from outside are not known: of its settings those are named that were typed.
    """
    told = {"nodes", "gpus_per_node", "epochs", "batch_size", "seed", "device", "backend", "optimizer.lr"}
    parts = []
    for section, values in scoped(config).items():
        group = section.split("/")[0]
        if group != "algorithm":
            if section in ledger():
                changed = off_default(values, ledger()[section])
            else:
                changed = {k: v for k, v in values.items() if _typed(f"{group}.{k}", config)}
            named = {f"{group}.{k}" if group else k: v for k, v in changed.items()}
            if group == "optimizer" and _has_rate_of_its_own(config):
                named = {k: v for k, v in named.items() if k != "optimizer.reference_lr"}
                parts.append(f"optimizer.lr={as_typed(config['optimizer']['lr'])}")
            parts += [f"{key}={as_typed(value)}" for key, value in named.items() if key not in told]
    return ", ".join(parts)


def _has_rate_of_its_own(config: Config) -> bool:
    """Whether the learning rate is neither the linear-scaling rule's nor the optimiser's default."""
    default = ledger().get(f"optimizer/{config['choices'].get('optimizer')}", {}).get("lr")
    return not follows_rule(config) and config["optimizer"]["lr"] != default


def _typed(key: str, config: Config) -> bool:
    """Whether a dotted key, or a node above it, was set on the command line."""
    return any(key == typed or key.startswith(f"{typed}.") for typed in config.get("typed", []) if "." in typed)


def as_typed(value: Any) -> str:
    """A value as one would type it on the command line: true, null, [1,2], {worker:3,dies_at_s:5}."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_typed(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_typed, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_outside(key: str) -> bool:
    """Whether a dotted key, or the node that it is in, determines no results."""
    return key in OUTSIDE or key.partition(".")[0] in OUTSIDE


def flat(node: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys as dotted ones."""
    items: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, dict):
            items += flat(value, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", value))
    return items
