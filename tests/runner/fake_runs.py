"""Writes run folders as the runner leaves them, with invented numbers, for the tests of the reports."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

SPEED = {"allreduce": 1.0, "dpsgd": 0.8, "sgp": 0.7}  # relative epoch times


def write_run(
    results: Path,
    *,
    identity: str,
    group: str | None = None,
    status: str = "finished",
    reason: str | None = None,
    **keys: Any,
) -> Path:
    """Write one run; `keys` overrides what its summary says. An unfinished run gets no summary. Returns its folder."""
    summary = make_summary(identity=identity, **keys)
    folder = results / "runs" / (group or summary["experiment"] or summary["algorithm"]) / identity
    folder.mkdir(parents=True)
    config = {key: summary[key] for key in ("nodes", "gpus_per_node", "batch_size", "seed", "epochs")}
    config |= {"algorithm": {"_target_": "algorithms.sgp.SGP", "worker": "node"}, "model": {"_target_": "models.mlp"}}
    config |= {"choices": {key: summary[key] for key in ("algorithm", "topology", "dataset", "model", "experiment")}}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    state = {"status": status, "reason": reason, "updated": "2026-02-03T04:05:06+00:00", "pid": 1}
    (folder / "state.json").write_text(json.dumps(state))
    write_evaluations(folder, summary)
    if status == "finished":
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def make_summary(**keys: Any) -> dict[str, Any]:
    """A summary with every key that the runner promises; times follow from the algorithm and the number of nodes."""
    algorithm, nodes, seed, epochs = (
        keys.get("algorithm", "sgp"),
        keys.get("nodes", 4),
        keys.get("seed", 0),
        keys.get("epochs", 10),
    )
    epoch_time_s = round(SPEED.get(algorithm, 0.9) * (2 + 0.1 * math.log2(nodes)) + 0.01 * seed, 4)
    total = epoch_time_s * epochs
    summary: dict[str, Any] = {
        "algorithm": algorithm,
        "variant": "",
        "experiment": None,
        "topology": "one_peer_exponential",
        "dataset": "digits",
        "model": "mlp",
        "launcher": "local",
        "clock": "wall",
        "nodes": nodes,
        "gpus_per_node": 1,
        "workers": nodes,
        "batch_size": 32,
        "global_batch_size": 32 * nodes,
        "seed": seed,
        "epochs": epochs,
        "top1_mean_model": 0.95 + 0.01 * seed,
        "top1_workers_mean": 0.94,
        "top1_workers_std": 0.001,
        "top1_centre": None,
        "evaluated_model": "mean",
        "batch_norm": "own",
        "loss_mean_model": 0.2,
        "consensus_distance": 0.01,
        "epoch_time_s": epoch_time_s,
        "training_time_s": total,
        "compute_s": 0.75 * total,
        "wait_s": 0.2 * total,
        "data_s": 0.05 * total,
        "bytes_sent": 1_500_000 * epochs,
        "iteration_time_s": epoch_time_s / 11,
        "iterations": 11 * epochs,
        "identity": "",
        "an_extra_key": {"nested": [1, 2]},
    }
    return summary | keys


def write_evaluations(folder: Path, summary: dict[str, Any]) -> None:
    """Curves that end in the summary's top-1 and loss at its training time."""
    rng = np.random.default_rng(summary["seed"])
    epochs = int(summary["epochs"])
    with (folder / "evaluations.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            last = epoch == epochs
            done = 1 - math.exp(-4 * epoch / epochs)
            row = {
                "epoch": epoch,
                "step": 11 * epoch,
                "samples": 1408 * epoch,
                "clock": summary["clock"],
                "time_s": summary["epoch_time_s"] * epoch,
                "top1_mean_model": summary["top1_mean_model"] * (1 if last else done)
                - (0 if last else 0.02 * rng.random()),
                "loss_mean_model": summary["loss_mean_model"] / (1 if last else done),
                "top1_workers_mean": 0.9,
                "top1_workers_std": 0.01,
                "top1_centre": None,
                "consensus_distance": 0.1 / epoch,
                "consensus_distance_max": 0.2 / epoch,
            }
            file.write(json.dumps(row) + "\n")
