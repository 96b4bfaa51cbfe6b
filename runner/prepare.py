"""From a composed configuration to one that is sure to start: defaults resolved, every part built once, then frozen.

Everything that can be wrong with a configuration is found here, before any process starts: see `runner.build` for how
it is reported.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from runner import config as configs
from runner.build import ConfigError, build
from runner.config import Config
from runner.data import prepare as prepare_dataset
from runner.graphs import make_graph
from runner.results import check_writable
from runner.schedules import Span

if TYPE_CHECKING:
    from torch import nn

    from algorithms.worker import Algorithm
    from runner.data.dataset import Dataset
    from runner.data.sampling import Sampler


def resolve(config: Config) -> Config:
    """Fill in what was left open (launcher, gpus_per_node, device, backend, batch_size, lr) and check that it can run.

    Raises:
        ConfigError: it cannot; see law 9 in DESIGN.md for what the message holds.
    """
    config["gpus_per_node"] = config["gpus_per_node"] or 1
    _resolve_launcher(config)
    _resolve_device(config)
    _resolve_threads(config)
    dataset = _prepared_dataset(json.dumps(config["dataset"]))  # once for all cells of a sweep
    config["batch_size"] = config["batch_size"] or max(1, min(32, dataset.train_size // (8 * configs.ranks(config))))
    config["optimizer"]["lr"] = configs.scaled_lr(config)
    _check_parts(config, dataset)
    check_writable(config["results_dir"])
    return config


def _resolve_launcher(config: Config) -> None:
    launcher, processes = config["launcher"], configs.ranks(config)
    if launcher["kind"] == "auto":
        room = 8 * (os.cpu_count() or 1)
        if processes > room:
            raise ConfigError(
                f"nodes={config['nodes']} gpus_per_node={config['gpus_per_node']}: {processes} processes are too many "
                f"for this machine's {os.cpu_count()} cores; launcher=local starts them all the same"
            )
        launcher["kind"] = "local"
    if launcher["kind"] != "local":
        raise ConfigError(f"launcher.kind={launcher['kind']}: is unknown; use launcher=auto or launcher=local")
    rendezvous, node_rank = launcher.get("rendezvous"), launcher.get("node_rank") or 0
    if rendezvous is None and node_rank != 0:
        raise ConfigError(f"launcher.node_rank={node_rank}: needs launcher.rendezvous=host:port, the address of node 0")
    if not isinstance(node_rank, int) or not 0 <= node_rank < config["nodes"]:
        raise ConfigError(f"launcher.node_rank={node_rank}: must be between 0 and nodes - 1 = {config['nodes'] - 1}")
    if rendezvous is not None:
        host, _, port = str(rendezvous).rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"launcher.rendezvous={rendezvous}: must be host:port, e.g. 10.0.0.1:29500")


def local_ranks(config: Config) -> int:
    """Processes that this machine starts."""
    return int(config["gpus_per_node"]) if config["launcher"].get("rendezvous") else configs.ranks(config)


def _resolve_device(config: Config) -> None:
    import torch

    gpus, processes = torch.cuda.device_count(), local_ranks(config)
    if config["device"] == "auto":
        config["device"] = "cuda" if gpus >= processes else "cpu"
    if config["backend"] == "nccl" and (config["device"] != "cuda" or gpus < processes):
        raise ConfigError(
            f"backend=nccl: needs device=cuda and one GPU per process ({processes}), this machine has {gpus}; "
            "backend=gloo shares GPUs between processes, device=cpu needs none"
        )
    if config["backend"] == "auto":
        config["backend"] = "nccl" if config["device"] == "cuda" else "gloo"
    if config["device"] == "cuda" and gpus == 0:
        raise ConfigError("device=cuda: torch sees no GPU here; use device=cpu, or install a CUDA driver")
    if config["backend"] == "nccl" and gpus < processes:
        raise ConfigError(
            f"nodes={config['nodes']} gpus_per_node={config['gpus_per_node']} device=cuda: {processes} processes need "
            f"{processes} GPUs, this machine has {gpus}; use fewer, or backend=gloo to share them"
        )


def _resolve_threads(config: Config) -> None:
    threads = config["threads_per_worker"]
    if threads > (os.cpu_count() or 1):
        raise ConfigError(f"threads_per_worker={threads}: this machine has {os.cpu_count()} cores; use fewer")


@lru_cache(maxsize=4)
def _prepared_dataset(frozen: str) -> Dataset:
    return prepare_dataset(json.loads(frozen))


def make_model(config: Config, dataset: Dataset) -> nn.Module:
    """The network, its initial parameters a function of the seed alone."""
    import torch

    from runner.randomness import stream_seed

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config["seed"], "initial parameters"))
        model: nn.Module = build(config["model"], "model", shape=dataset.shape, classes=dataset.classes)
    return model


def make_sampler(config: Config, dataset: Dataset) -> Sampler:
    """Which sample when: see runner.data.sampling."""
    sampler: Sampler = build(
        config["sampling"],
        "sampling",
        dataset.train_labels,
        seed=config["seed"],
        ranks=configs.ranks(config),
        batch_size=config["batch_size"],
    )
    return sampler


def make_algorithm(config: Config) -> Algorithm:
    node = {key: value for key, value in config["algorithm"].items() if key != "worker"}
    algorithm = build(node, "algorithm")
    if not hasattr(algorithm, "run") or not hasattr(algorithm, "topology"):
        raise ConfigError(
            f"algorithm._target_={node['_target_']}: an algorithm has a `topology` and an async generator "
            "`run(worker)`, see algorithms/worker.py"
        )
    return cast("Algorithm", algorithm)


def make_span(config: Config, iterations_per_epoch: int) -> Span:
    lr, reference_lr = config["optimizer"]["lr"], config["optimizer"].get("reference_lr")
    return Span(config["epochs"], iterations_per_epoch, reference_lr / lr if reference_lr else 1.0)


def _check_parts(config: Config, dataset: Dataset) -> None:
    """Build every part as a rank will, and let each refuse what it cannot do."""
    import torch

    from runner.optimizer import LocalOptimizer

    sampler = make_sampler(config, dataset)
    make_graph(config, make_algorithm(config), configs.workers(config), sampler.iterations_per_epoch)
    span = make_span(config, sampler.iterations_per_epoch)
    local = LocalOptimizer(config["optimizer"], config["schedule"], torch.zeros(1), span)
    try:
        local.descend(torch.zeros(1), torch.zeros(1))
    except (RuntimeError, TypeError) as error:
        name = config["optimizer"]["_target_"]
        raise ConfigError(f"optimizer._target_={name}: cannot take a step from a gradient alone ({error})") from error
    model = make_model(config, dataset)
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *dataset.shape))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"model={config['choices']['model']}: does not take images of shape {tuple(dataset.shape)} from "
            f"dataset={config['choices']['dataset']} ({str(error).splitlines()[0]}); choose another model"
        ) from error
    if config["tensorboard"]:
        try:
            import torch.utils.tensorboard
        except ImportError as error:
            raise ConfigError("tensorboard=true: is not installed; pip install 'distsgd[tensorboard]'") from error
