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
from runner.cluster import make
from runner.config import Config
from runner.data import prepare as prepare_dataset
from runner.graphs import make_graph
from runner.identity import VIRTUAL_GROUPS
from runner.launchers import slurm_settings
from runner.results import check_writable
from runner.schedules import Span

if TYPE_CHECKING:
    from torch import Tensor, nn

    from algorithms.worker import Algorithm
    from runner.data.dataset import Dataset
    from runner.data.sampling import Sampler
    from runner.optimizer import LocalOptimizer


def resolve(config: Config) -> Config:
    """Fill in what was left open (launcher, gpus_per_node, device, backend, batch_size, lr) and check that it can run.

    Raises:
        ConfigError: it cannot; see law 9 in DESIGN.md for what the message holds.
    """
    if configs.on_slurm(config):
        slurm_settings.resolve(config)
    elif config["gpus_per_node"] is None:
        config["gpus_per_node"] = config["cluster"].get("gpus_per_node", 1) if configs.simulated(config) else 1
    _resolve_launcher(config)
    _resolve_virtual(config)
    _resolve_method(config)  # from here on torch is loaded
    _resolve_device(config)
    _resolve_threads(config)
    if config["record_every"] is None and not configs.simulated(config):
        config["record_every"] = 1
    if config["warmup_iterations"] is None:  # caches and buffers warm up, a model of them does not
        config["warmup_iterations"] = 0 if configs.simulated(config) else 10
    if configs.timing_only(config):
        _resolve_batch(config, config["problem"]["train_samples"])
        make_graph(config, make_algorithm(config), configs.workers(config), make.iterations_per_epoch(config))
    else:
        dataset = _prepared_dataset(json.dumps(config["dataset"]))  # once for all cells of a sweep
        _resolve_batch(config, dataset.train_size)
        _check_parts(config, dataset)
    if configs.simulated(config):
        make.check(config)
    if not config["dry_run"]:
        check_writable(config["results_dir"])
    return config


def _resolve_method(config: Config) -> None:
    """What kind of method this is, and what follows from that."""
    algorithm, name = make_algorithm(config), config["choices"]["algorithm"]
    config["asynchronous"] = not getattr(algorithm, "synchronous", True)
    serves = hasattr(algorithm, "serve")
    config["servers"] = config["server"]["shards"] if serves else 0
    if not serves and config["server"]["shards"] > 1:
        raise ConfigError(f"server.shards={config['server']['shards']}: {name} has no parameter server; leave it out")
    if not serves and config["server"]["placement"] != "beside_0":
        raise ConfigError(
            f"server.placement={config['server']['placement']}: {name} has no parameter server; leave it out"
        )
    has_centre = serves or hasattr(algorithm, "centre")
    if not has_centre and config["evaluation"]["model"] == "centre":
        raise ConfigError(f"evaluation.model=centre: {name} has no centre; use mean or auto")
    asked = config["evaluation"]["model"]
    if asked == "workers" and config["evaluation"]["own"] != "always":
        raise ConfigError("evaluation.own=end: evaluation.model=workers shows their own models each time; use always")
    config["evaluated_model"] = asked if asked != "auto" else "centre" if has_centre else "mean"
    if not config["asynchronous"] and configs.shares_work(config):
        raise ConfigError(
            f"algorithm.budget=shared: {name} is synchronous, its workers take equally many steps; leave it out"
        )
    if config["asynchronous"] and config["backend"] == "nccl":
        raise ConfigError(
            f"backend=nccl: {name} is asynchronous, and NCCL can neither receive from any sender nor serve two threads "
            "of a process; leave it out, and messages are staged through the host with gloo"
        )
    if configs.shares_work(config) and config["sampling"]["_target_"] != "runner.data.sampling.GlobalBatches":
        raise ConfigError(
            f"sampling={config['choices']['sampling']}: gives each worker samples of its own, which "
            f"algorithm.budget=shared (the default of {name}) hands around; add algorithm.budget=equal"
        )
    check = getattr(algorithm, "check", None)
    if check is not None:
        try:
            check(configs.workers(config))
        except ValueError as error:
            raise ConfigError(str(error)) from error


def _resolve_batch(config: Config, train_size: int) -> None:
    config["batch_size"] = config["batch_size"] or max(1, min(32, train_size // (8 * configs.ranks(config))))
    config["optimizer"]["lr"] = configs.scaled_lr(config)


def _resolve_virtual(config: Config) -> None:
    """The keys of a virtual cluster belong to launcher=simulated, and that needs them."""
    chosen = {group: config["choices"].get(group) or "none" for group in VIRTUAL_GROUPS}
    if configs.simulated(config):
        if "inter" not in config["cluster"]:
            raise ConfigError(
                f"cluster={chosen['cluster']}: launcher=simulated needs a virtual cluster, e.g. cluster=10gbe; "
                "a file of your own begins with `defaults: [10gbe]`"
            )
        if configs.timing_only(config) and config["evaluation"]["every"] != 1:
            raise ConfigError("evaluation.every: problem=none has nothing to evaluate; leave it out")
        if config["problem"]["batched"]:
            _check_batched(config)
        if config["checkpoint_every"] is not None:
            raise ConfigError(
                f"checkpoint_every={config['checkpoint_every']}: a checkpoint would hold up virtual workers, and what "
                "is simulated comes out the same when it is run again; leave it out"
            )
        return
    experiment = str(config["choices"].get("experiment") or "")
    for group, choice in chosen.items():
        if choice != "none":
            instead = f"add launcher=simulated, or leave {group} out"
            if experiment.endswith("/virtual"):
                instead = f"{experiment} has it. Leave launcher out; real processes have scale=laptop and scale=paper"
            raise ConfigError(f"{group}={choice}: is for a virtual cluster; {instead}")
    for key in ("cost.message_bytes", "cost.seconds_per_gradient", "failures.plan"):
        if configs.select(config, key):
            raise ConfigError(f"{key}: is for a virtual cluster; add launcher=simulated, or leave it out")
    if configs.timing_only(config):
        raise ConfigError("problem=none: asks for the time only, which needs a virtual clock; add launcher=simulated")
    if config["problem"]["batched"]:
        raise ConfigError("problem.batched=true: is for virtual workers; add launcher=simulated, or leave it out")


def _check_batched(config: Config) -> None:
    for key in ("autocast", "channels_last", "compile"):
        if config["problem"][key]:
            raise ConfigError(f"problem.batched=true: cannot be combined with problem.{key}; leave one of them out")


def _resolve_launcher(config: Config) -> None:
    launcher, processes = config["launcher"], configs.ranks(config)
    if configs.simulated(config) or configs.on_slurm(config):
        return
    if config["choices"]["launcher"] == "auto":
        room = 8 * (os.cpu_count() or 1)
        if processes > room:
            raise ConfigError(
                f"nodes={config['nodes']} gpus_per_node={config['gpus_per_node']}: {processes} processes are too many "
                f"for this machine's {os.cpu_count()} cores; launcher=simulated runs them as virtual workers, "
                "launcher=local starts them all the same"
            )
    if launcher["kind"] != "local":
        raise ConfigError(f"launcher.kind={launcher['kind']}: is unknown; use launcher=auto, local, slurm or simulated")
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
    servers = configs.servers(config)
    if not config["launcher"].get("rendezvous"):
        return configs.processes(config)
    if servers:
        raise ConfigError(
            f"launcher.rendezvous={config['launcher']['rendezvous']}: {config['choices']['algorithm']} has a parameter "
            "server, which launcher=local can start on one machine only; leave it out, or use launcher=simulated"
        )
    return int(config["gpus_per_node"])


def _resolve_device(config: Config) -> None:
    if configs.on_slurm(config):
        _resolve_device_on_slurm(config)
        return
    import torch

    gpus, virtual = torch.cuda.device_count(), configs.simulated(config)
    processes = 1 if virtual else local_ranks(config) - configs.servers(config)  # a server is a task of the CPU
    if config["device"] == "auto":
        config["device"] = "cuda" if gpus >= processes else "cpu"
    if config["device"] == "cuda" and gpus == 0:
        raise ConfigError("device=cuda: torch sees no GPU here; use device=cpu, or install a CUDA driver")
    if virtual:
        if config["backend"] != "auto":
            raise ConfigError(f"backend={config['backend']}: virtual workers need none; leave it out")
        config["backend"] = None
        return
    if config["backend"] == "auto":
        config["backend"] = "nccl" if config["device"] == "cuda" and not config["asynchronous"] else "gloo"
    if config["backend"] == "nccl" and (config["device"] != "cuda" or gpus < processes):
        raise ConfigError(
            f"backend=nccl: needs device=cuda and one GPU per process ({processes}), this machine has {gpus}; "
            "backend=gloo shares GPUs between processes, device=cpu needs none"
        )


def _resolve_device_on_slurm(config: Config) -> None:
    """What the nodes of the job will have; this machine, where it is submitted, need not have it."""
    if config["device"] == "auto":
        config["device"] = "cuda"
    if config["backend"] == "auto":
        config["backend"] = "nccl" if config["device"] == "cuda" and not config["asynchronous"] else "gloo"
    if config["backend"] == "nccl" and config["device"] != "cuda":
        raise ConfigError("backend=nccl: needs device=cuda; leave one of them out")


def _resolve_threads(config: Config) -> None:
    threads = config["threads_per_worker"]
    if configs.on_slurm(config):  # see slurm_settings.resolve
        return
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
    node = {key: value for key, value in config["algorithm"].items() if key not in ("worker", "budget", "lr_per")}
    algorithm = build(node, "algorithm")
    if not hasattr(algorithm, "run") or not hasattr(algorithm, "topology"):
        raise ConfigError(
            f"algorithm._target_={node['_target_']}: an algorithm has a `topology` and an async generator "
            "`run(worker)`, see algorithms/worker.py"
        )
    return cast("Algorithm", algorithm)


def make_optimizer(config: Config, iterations_per_epoch: int, x0: Tensor, *, serves: bool) -> LocalOptimizer:
    """The local optimiser of a worker, or of a server."""
    from runner.optimizer import LocalOptimizer

    paced = serves or configs.shares_work(config)
    span = make_span(config, iterations_per_epoch)
    return LocalOptimizer(config["optimizer"], config["schedule"], x0, span, paced=paced)


def make_span(config: Config, iterations_per_epoch: int) -> Span:
    lr, reference_lr = config["optimizer"]["lr"], config["optimizer"].get("reference_lr")
    return Span(config["epochs"], iterations_per_epoch, reference_lr / lr if reference_lr else 1.0)


@lru_cache(maxsize=16)
def _keeps_state(frozen_model: str, shape: tuple[int, ...], classes: int) -> bool:
    """Whether a network has BatchNorm or dropout; tried on an image. Once for all cells of a sweep: it may be large."""
    import torch

    from models.layers import dropout_layers

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model: nn.Module = build(json.loads(frozen_model), "model", shape=shape, classes=classes)
        model.eval()(torch.zeros(1, *shape))
    return any(True for _ in model.buffers()) or bool(dropout_layers(model))


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
    try:
        keeps_state = _keeps_state(json.dumps(config["model"]), dataset.shape, dataset.classes)
    except ConfigError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"model={config['choices']['model']}: does not take images of shape {tuple(dataset.shape)} from "
            f"dataset={config['choices']['dataset']} ({str(error).splitlines()[0]}); choose another model"
        ) from error
    if config["problem"]["batched"] and keeps_state:
        raise ConfigError(
            f"problem.batched=true: model={config['choices']['model']} has BatchNorm or dropout, whose state each "
            "worker keeps for itself; leave it out, or choose mlp or lenet"
        )
    if config["tensorboard"]:
        try:
            import torch.utils.tensorboard
        except ImportError as error:
            raise ConfigError("tensorboard=true: is not installed; pip install 'distsgd[tensorboard]'") from error
