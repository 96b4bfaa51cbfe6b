"""summary.json: what a finished run comes to."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from runner import config as configs
from runner.config import Config
from runner.identity import VIRTUAL_GROUPS, identity, settings, variant
from runner.results import Row


def summarise(
    config: Config,
    totals: Tensor,
    final: Row,
    per_epoch: int,
    staleness: Mapping[int, int] | None = None,
    restarts: int = 0,
) -> Row:
    """The summary of a run.

    Args:
        totals: (processes or virtual workers, 6), `Recorder.totals()` of each. The summary has their means, but
            training ends with the last of them, for which the others wait.
        final: the scores of the last evaluation.
        staleness: how often what was merged was how many steps old, over all workers and servers.
        restarts: how often it went on from a checkpoint.
    """
    merged = sum((staleness or {}).values())
    _, iteration_s, compute_s, _, data_s, bytes_sent = totals.mean(0).tolist()
    training_s = float(totals[:, 0].max())
    choices, virtual, timing_only = config["choices"], configs.simulated(config), configs.timing_only(config)
    return {
        "identity": identity(config),
        "experiment": choices.get("experiment"),
        **{group: choices[group] for group in ("algorithm", "topology", "problem")},
        **{group: None if timing_only else choices[group] for group in ("dataset", "model")},
        **{group: choices[group] for group in ("optimizer", "schedule", "sampling")},
        "variant": variant(config),
        "settings": settings(config),
        "launcher": config["launcher"]["kind"],
        "clock": "virtual" if virtual else "wall",
        **{group: choices[group] if virtual else None for group in VIRTUAL_GROUPS},
        "time_as_for": configs.time_as_for(config) if virtual else None,
        "device": config["device"],
        "backend": config["backend"],
        "nodes": config["nodes"],
        "gpus_per_node": config["gpus_per_node"],
        "workers": configs.workers(config),
        "batch_size": config["batch_size"],
        "global_batch_size": configs.global_batch_size(config),
        "lr": config["optimizer"]["lr"],
        "seed": config["seed"],
        "epochs": config["epochs"],
        "iterations": config["epochs"] * per_epoch,
        "evaluated_model": config["evaluated_model"],
        **final,
        "training_time_s": training_s,
        "epoch_time_s": iteration_s * per_epoch,
        "iteration_time_s": iteration_s,
        "compute_s": compute_s,
        "wait_s": training_s - compute_s - data_s,
        "data_s": data_s,
        "staleness": ",".join(f"{age}:{count}" for age, count in sorted((staleness or {}).items())),
        "staleness_mean": sum(age * n for age, n in (staleness or {}).items()) / merged if merged else None,
        "bytes_sent": round(bytes_sent * configs.gpus_per_worker(config)),
        "restarts": restarts,
    }
