"""The configuration: its schema, its checks, and the frozen form that every rank reads.

compose (Hydra, launching process only) -> resolve (fill what was left to defaults) -> check -> freeze to config.yaml.
Nothing here imports torch before `resolve` has passed its cheap checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from runner.build import ConfigError

Config = dict[str, Any]
"""A resolved configuration: plain containers, the tree of conf/ plus `choices` (group -> chosen option) and `typed`."""
Cell = tuple[Config, list[str]]
"""One configuration of a command line, and the overrides that made it."""


@dataclass
class EvaluationSchema:
    every: Any = 1  # a number; checked below
    batch_size: int = 500
    batch_norm: str = "own"
    model: str = "auto"
    own: str = "always"


@dataclass
class ServerSchema:
    placement: str = "beside_0"
    shards: int = 1


@dataclass
class Schema:
    """Types of the top-level keys, checked by Hydra as they are typed. Groups bring their own keys."""

    algorithm: Any = MISSING
    topology: Any = MISSING
    dataset: Any = MISSING
    sampling: Any = MISSING
    model: Any = MISSING
    problem: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    cluster: Any = MISSING
    cost: Any = MISSING
    failures: Any = MISSING
    launcher: Any = MISSING
    nodes: int = 4
    gpus_per_node: int | None = None
    epochs: int = 10
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    backend: str = "auto"
    threads_per_worker: int = 1
    evaluation: EvaluationSchema = field(default_factory=EvaluationSchema)
    server: ServerSchema = field(default_factory=ServerSchema)
    results_dir: str = "results"
    rerun: bool = False
    dry_run: bool = False
    checkpoint_every: int | None = None
    record_every: int | None = None
    warmup_iterations: int | None = None
    tensorboard: bool = False


CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "backend": ("auto", "gloo", "nccl"),
    "evaluation.batch_norm": ("own", "average", "recalibrate"),
    "evaluation.model": ("auto", "mean", "workers", "centre"),
    "evaluation.own": ("always", "end"),
    "server.placement": ("beside_0", "own"),
    "problem.dtype": ("float32", "float64"),
    "problem.autocast": (None, "bfloat16"),
    "problem.channels_last": (False, True),
    "problem.compile": (False, True),
    "problem.batched": (False, True),
    "algorithm.worker": ("node", "gpu"),
    "algorithm.budget": ("shared", "equal"),
    "algorithm.lr_per": ("global_batch", "worker_batch"),
}
AT_LEAST = {
    "nodes": 1,
    "gpus_per_node": 1,
    "epochs": 1,
    "batch_size": 1,
    "seed": 0,
    "threads_per_worker": 1,
    "evaluation.batch_size": 1,
    "server.shards": 1,
    "checkpoint_every": 1,
    "record_every": 1,
    "warmup_iterations": 0,
    "launcher.timeout_s": 1,
    "launcher.threads": 1,
    "launcher.at_once": 1,
    "problem.train_samples": 1,
    "cluster.gpus_per_node": 1,
}


def conf_dir() -> Path:
    """The Hydra tree: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def select(config: Config, key: str) -> Any:
    """The value at a dotted key; None where it is absent."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def has(config: Config, key: str) -> bool:
    """Whether a dotted key is there, whatever its value."""
    group, _, name = key.rpartition(".")
    node = select(config, group) if group else config
    return isinstance(node, dict) and name in node


def from_composed(composed: DictConfig, choices: dict[str, str | None], overrides: Sequence[str] = ()) -> Config:
    """Plain containers from what Hydra composed, checked for values that no machine would accept.

    Raises:
        ConfigError: a value outside its range or choices.
    """
    config: Config = {str(k): v for k, v in OmegaConf.to_container(composed, resolve=True).items()}  # type: ignore[union-attr]
    config["choices"] = {group: option for group, option in choices.items() if not group.startswith("hydra/")}
    config["typed"] = [override.lstrip("+").partition("=")[0] for override in overrides]  # the keys alone
    for group, option in config["choices"].items():
        if ".." in str(option).split("/"):  # the names of some are part of a run's folder
            raise ConfigError(f"{group}={option}: must be below the folder {group}/ of conf or --config-dir")
    if not isinstance(config["launcher"], dict) or "kind" not in config["launcher"]:
        name = config["choices"].get("launcher")
        raise ConfigError(
            f"launcher={name}: has no kind; a file of your own begins with `defaults: [slurm]`, or [local]"
        )
    for key, least in AT_LEAST.items():
        value = select(config, key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"{key}={value}: must be a whole number, {least} or more")
    for key, allowed in CHOICES.items():
        value = select(config, key)
        if value not in allowed and has(config, key):
            raise ConfigError(f"{key}={value}: must be one of {', '.join(map(_as_yaml, allowed))}")
    for key in ("optimizer.lr", "optimizer.reference_lr"):
        value = select(config, key)
        if value is not None and not _is_positive(value):
            raise ConfigError(f"{key}={value}: must be a positive number")
    if not _is_positive(every := config["evaluation"]["every"]):
        raise ConfigError(f"evaluation.every={every}: must be a positive number of epochs, 2 or 0.25")
    if float(every).is_integer():
        config["evaluation"]["every"] = int(every)  # 1.0 is the same run as 1
    return config


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6


def _as_yaml(value: str | bool | None) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def simulated(config: Config) -> bool:
    """Whether a resolved configuration runs on the virtual cluster."""
    return bool(config["launcher"]["kind"] == "simulated")


def on_slurm(config: Config) -> bool:
    """Whether a resolved configuration runs as a job of a SLURM cluster."""
    return bool(config["launcher"]["kind"] == "slurm")


def timing_only(config: Config) -> bool:
    """Whether there are no gradients, only their time."""
    return bool(config["problem"].get("kind") == "none")


def time_as_for(config: Config) -> str | None:
    """What a virtual clock tells the time of, if that is not what is trained: "ResNet-50 on V100"."""
    cost = config["cost"]
    modelled = cost["message_bytes"] is not None or cost["seconds_per_gradient"] is not None
    return cost["of"] or ("work of a given cost" if modelled else None)


def time_and_accuracy(config: Config) -> str:
    """What a virtual clock's times and the accuracies are of: "time as for ResNet-50 on V100, accuracy of mlp ..."."""
    choices, of = config["choices"], time_as_for(config)
    own = f"{choices['model']} on {choices['dataset']}"
    if timing_only(config):
        return f"time as for {of}, no accuracy"
    return f"time as for {of}, accuracy of {own}" if of else f"time and accuracy of {own}"


def workers(config: Config) -> int:
    """How many workers a resolved configuration has."""
    return ranks(config) // gpus_per_worker(config)


def gpus_per_worker(config: Config) -> int:
    """Processes that act as one worker: all of a node's, or one."""
    return int(config["gpus_per_node"]) if (config["algorithm"].get("worker") or "node") == "node" else 1


def ranks(config: Config) -> int:
    """Processes in total."""
    return int(config["nodes"] * config["gpus_per_node"])


def servers(config: Config) -> int:
    """How many shards of a parameter server a resolved configuration has beside its workers."""
    return int(config["servers"])


def processes(config: Config) -> int:
    """Real processes in total: training ones, then servers."""
    return ranks(config) + servers(config)


def shares_work(config: Config) -> bool:
    """Whether the workers take mini-batches from one another, instead of having equal shares of them."""
    return bool(config["algorithm"].get("budget") == "shared")


def global_batch_size(config: Config) -> int:
    """Samples per iteration over all processes."""
    return int(ranks(config) * config["batch_size"])


def scaled_lr(config: Config) -> float:
    """The learning rate: as given, or by the linear-scaling rule reference_lr x batch / 256 (Goyal et al. 2017).

    Raises:
        ConfigError: neither lr nor reference_lr is set.
    """
    optimizer = config["optimizer"]
    if optimizer.get("lr") is not None:
        return float(optimizer["lr"])
    if optimizer.get("reference_lr") is None:
        raise ConfigError("optimizer.lr=null: set it, or set optimizer.reference_lr (the rate per 256 samples)")
    return float(optimizer["reference_lr"]) * batch_of_lr(config) / 256


def known_lr(config: Config) -> float | None:
    """The learning rate of a configuration that need not be resolved; None where it follows from what is left open."""
    optimizer = config["optimizer"]
    open_keys = (config["batch_size"], config["gpus_per_node"], optimizer.get("reference_lr"))
    return None if optimizer.get("lr") is None and None in open_keys else scaled_lr(config)


def follows_rule(config: Config) -> bool:
    """Whether the learning rate is the linear-scaling rule's, filled in or not."""
    optimizer = config["optimizer"]
    return optimizer.get("lr") in (None, known_lr(config | {"optimizer": optimizer | {"lr": None}}))


def batch_of_lr(config: Config) -> int:
    """Samples that the linear-scaling rule counts: of all workers, or of one where a step is taken with each's."""
    per_worker = config["algorithm"].get("lr_per") == "worker_batch"
    return global_batch_size(config) // (workers(config) if per_worker else 1)


def load(folder: Path) -> Config:
    """The frozen configuration of a run."""
    container = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def freeze(config: Config) -> str:
    """The text of config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(config))
