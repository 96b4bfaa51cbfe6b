"""The papers' qualitative claims on the virtual cluster: what comes out, whatever was claimed.

    python scripts/qualitative.py             all of it, written to results/qualitative.txt too
    python scripts/qualitative.py a f         some parts, only printed

Times are virtual, accuracies real: an MLP on the embedded digits. That is a small task; what it shows of accuracy may
not hold for a large one. Every sentence below a table is made of the table's numbers.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from runner.composing import compose
from runner.config import Config, conf_dir
from runner.launchers import RunFailedError
from runner.prepare import resolve
from runner.report.frames import mean_and_std
from runner.report.metrics import bytes_written, top1_key, written
from runner.report.runs import Run, read_evaluations
from runner.results import Row, read_json
from runner.runtimes.engine import DeadlockError
from runner.simulation import simulate

OUTPUT = Path(__file__).resolve().parent.parent / "results" / "qualitative.txt"
VIRTUAL = ("launcher=simulated", "cluster=10gbe", "device=cpu")
TIMING = ("cost=resnet50_v100", "problem=none", "gpus_per_node=1", "epochs=1")
console = Console(width=120, record=True, highlight=False)


@dataclass
class Result:
    """A run: its summary, or why there is none."""

    config: Config
    summary: Row
    evaluations: list[Row]
    failure: str = ""

    @property
    def top1(self) -> float | None:
        """Of the model by which the method is evaluated."""
        return self.summary.get(top1_key(self.config["evaluated_model"]))


def sweep(*arguments: str) -> Iterator[Result]:
    """Run what `run-experiment -m` would, one after the other; also say what that is."""
    console.print(f"run-experiment -m {shlex.join((*VIRTUAL, *arguments))}", style="dim", soft_wrap=True)
    with tempfile.TemporaryDirectory() as place:
        cells = [config for config, _ in compose(["-m", *VIRTUAL, *arguments, f"results_dir={place}"])]
    for config in cells:
        with tempfile.TemporaryDirectory() as place:
            config["results_dir"], folder = place, Path(place)
            failure = ""
            try:
                simulate(resolve(config), folder, torch.device("cpu"))
            except (RunFailedError, DeadlockError) as error:
                failure = str(error).splitlines()[0]
            rows, _ = read_evaluations(Run(folder, "", "finished"))
            yield Result(config, read_json(folder / "summary.json") or {}, rows, failure)


def grouped(results: Iterable[Result], key: Callable[[Result], Any]) -> dict[Any, list[Result]]:
    """Results that differ in the seed alone, together."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def name_of(result: Result) -> str:
    return str(result.config["choices"]["algorithm"])


def mean(results: Sequence[Result], key: str) -> float:
    return sum(float(result.summary[key]) for result in results) / len(results)


def top1(results: Sequence[Result]) -> str:
    """`97.22 ± 0.28`, over those that finished."""
    return written(*mean_and_std([result.top1 for result in results if result.top1 is not None]), "accuracy")


def accuracy(results: Sequence[Result]) -> float:
    return mean_and_std([result.top1 for result in results if result.top1 is not None])[0] or 0.0


def show(headers: Sequence[str], rows: Iterable[Sequence[str]], *sentences: str) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for sentence in sentences:
        console.print(sentence)
    console.print()


def contention() -> None:
    """(a) Contention at the server as workers grow: time per iteration."""
    methods, nodes = ("easgd", "async_sgd", "gossip_pull", "adpsgd", "allreduce"), (4, 8, 16, 32, 64)
    many = (f"algorithm={','.join(methods)}", f"nodes={','.join(map(str, nodes))}")
    results = sweep(*many, *TIMING, f"problem.train_samples={60 * nodes[-1] * 32}")
    ms = {(name_of(r), r.config["nodes"]): 1000 * float(r.summary["iteration_time_s"]) for r in results}
    growth = {method: ms[method, nodes[-1]] / ms[method, nodes[0]] for method in methods}
    show(
        ("time per iteration (ms)", *(f"{n} nodes" for n in nodes)),
        ([method, *(f"{ms[method, n]:.0f}" for n in nodes)] for method in methods),
        f"From {nodes[0]} to {nodes[-1]} nodes the time per iteration is multiplied by "
        + ", ".join(f"{growth[method]:.2f} ({method})" for method in sorted(growth, key=growth.__getitem__))
        + ". n = 1: the model has no noise here.",
        "An iteration is one mini-batch of 32 per worker; the server of easgd (tau=4) and async_sgd stands beside "
        "worker 0 and shares its link.",
    )


def staleness() -> None:
    """(b) Downpour's accuracy with staleness, at large n_push."""
    intervals = (1, 4, 16, 64)
    every = f"algorithm.n_push={','.join(map(str, intervals))}", "algorithm.n_fetch=${algorithm.n_push}"
    found = grouped(
        sweep(
            *("algorithm=downpour", *every, "nodes=4,16", "gpus_per_node=1", "epochs=20", "evaluation.every=20"),
            *("cluster.compute.distribution=lognormal", "seed=0,1,2"),
        ),
        lambda result: (result.config["nodes"], result.config["algorithm"]["n_push"]),
    )
    brought = found[4, 1][0].config["choices"]["optimizer"]
    lost = [100 * (accuracy(found[n, intervals[-1]]) - accuracy(found[n, 1])) for n in (4, 16)]
    show(
        ("workers", "n_push = n_fetch", "staleness (updates)", "top-1, centre (%)"),
        (
            [str(n), str(interval), f"{mean(found[n, interval], 'staleness_mean'):.1f}", top1(found[n, interval])]
            for n in (4, 16)
            for interval in intervals
        ),
        f"From n_push 1 to {intervals[-1]} top-1 changes by {lost[0]:+.1f} points with 4 workers, {lost[1]:+.1f} with "
        f"16. n = 3 seeds, 20 epochs, optimizer={brought}, as the method brings it.",
        "Staleness counts updates of the server between a fetch and the push that follows, each of which is the sum of "
        "n_push gradients.",
    )


def averaging() -> None:
    """(c) Hier-AVG: K2, K1 and S."""
    setting = ("algorithm=hier_avg", "nodes=4", "gpus_per_node=4", "epochs=20", "evaluation.every=20", "seed=0,1,2")
    keys = ("K2", "K1", "S")

    def key(result: Result) -> tuple[int, ...]:
        return tuple(result.config["algorithm"][name] for name in keys)

    sentences = []
    groups: dict[Any, list[Result]] = {}
    for name, values, others in (
        ("K2", (8, 16, 32), {"K1": 4, "S": 4}),
        ("K1", (1, 2, 4, 8, 16), {"K2": 16, "S": 4}),
        ("S", (1, 2, 4, 8, 16), {"K2": 16, "K1": 4}),
    ):
        swept = [f"algorithm.{name}={','.join(map(str, values))}", *(f"algorithm.{k}={v}" for k, v in others.items())]
        found = grouped(sweep(*setting, "problem.batched=true", *swept), key)
        losses = [f"{mean(results, 'loss_mean_model'):.3f}" for results in found.values()]
        fixed = ", ".join(f"{k}={v}" for k, v in others.items())
        sentences.append(f"{name} = {', '.join(map(str, values))} with {fixed}: loss {', '.join(losses)}.")
        groups |= found
    show(
        (*keys, "top-1 (%)", "test loss", "sent per learner", "epoch time (ms)"),
        (
            [
                *(map(str, setting)),
                top1(results),
                f"{mean(results, 'loss_mean_model'):.3f}",
                bytes_written(mean(results, "bytes_sent")),
                f"{1000 * mean(results, 'epoch_time_s'):.1f}",
            ]
            for setting, results in groups.items()
        ),
        *sentences,
        "n = 3 seeds, 16 learners of batch 11, 20 epochs of 8 steps; groups are of adjacent ranks, so those of 8 and "
        "16 span nodes of 4.",
    )


TOPOLOGIES = (
    *("ring", "one_peer_exponential", "random_peer", "k_peer_exponential", "torus", "hypercube", "static_exponential"),
    *("random_regular", "complete"),
)


def consensus() -> None:
    """(d) SGP's consensus distance by topology."""
    setting = ("algorithm=sgp", "nodes=16", "gpus_per_node=1", "epochs=10", "schedule=constant", "seed=0,1")
    found = grouped(
        sweep(*setting, "problem.batched=true", f"topology={','.join(TOPOLOGIES)}"),
        lambda result: result.config["choices"]["topology"],
    )

    def distance(results: Sequence[Result], key: str) -> float:
        rows = [row for result in results for row in result.evaluations[-5:]]
        return float(sum(row[key] for row in rows) / len(rows))

    distances = {topology: distance(results, "consensus_distance") for topology, results in found.items()}
    order = sorted(distances, key=distances.__getitem__)
    show(
        ("topology", "consensus distance", "largest", "top-1 (%)", "sent per worker"),
        (
            [
                topology,
                f"{distances[topology]:.3g}",
                f"{distance(found[topology], 'consensus_distance_max'):.3g}",
                top1(found[topology]),
                bytes_written(mean(found[topology], "bytes_sent")),
            ]
            for topology in order
        ),
        f"From near to far: {', '.join(order)}. n = 2 seeds; distances of 16 workers' models to their mean, at the end "
        "of each of the last 5 of 10 epochs, learning rate constant.",
    )


def methods() -> list[str]:
    return sorted(path.stem for path in (conf_dir() / "algorithm").glob("*.yaml"))


def death() -> None:
    """(e) One worker dies for good in the middle: who survives."""
    setting = ("nodes=8", "gpus_per_node=1", "epochs=10", "evaluation.every=10", "failures.timeout_s=1")
    every = f"algorithm={','.join(methods())}"
    whole = {name_of(result): result for result in sweep(every, *setting)}
    plan = "failures.plan=[{worker: 3, dies_at_s: 0.2}]"
    bereft = {name_of(result): result for result in sweep(every, *setting, plan)}
    survived = [name for name, result in bereft.items() if not result.failure]
    show(
        ("method", "top-1, all alive (%)", "one dead (%)", "outcome"),
        (
            [name, top1([whole[name]]), top1([result]), result.failure.partition(": ")[2].split(",")[0] or "finished"]
            for name, result in bereft.items()
        ),
        f"Survive: {', '.join(survived)}. Fail: {', '.join(name for name in bereft if name not in survived)}.",
        "n = 1; 8 workers; worker 3 dies after 0.2 virtual seconds, about half of the run. Top-1 of each method's own "
        "evaluation model.",
    )


def straggler() -> None:
    """(f) One worker 4 times slower: time per epoch."""
    setting = (*TIMING, "nodes=8", f"problem.train_samples={96 * 8 * 32}")
    # Those that change at some epoch would not get there.
    names = [name for name in methods() if "_then_" not in name and not name.startswith("post_")]
    every = f"algorithm={','.join(names)}"
    plain = {name_of(result): float(result.summary["epoch_time_s"]) for result in sweep(every, *setting)}
    slow = "cluster.compute.slow={3: 4.0}"
    slowed = {name_of(result): float(result.summary["epoch_time_s"]) for result in sweep(every, *setting, slow)}
    factor = {name: slowed[name] / plain[name] for name in names}
    order = sorted(names, key=factor.__getitem__)
    spared = [name for name in order if factor[name] < 2]
    show(
        ("method", "epoch (s)", "with the slow worker (s)", "ratio"),
        ([name, f"{plain[name]:.1f}", f"{slowed[name]:.1f}", f"{factor[name]:.2f}"] for name in order),
        f"Slowed down less than twofold: {', '.join(spared) or 'none'}; the others up to {max(factor.values()):.2f}.",
        "n = 1: the model has no noise here. 8 workers, 96 iterations of 271 ms; asynchronous methods share the "
        "mini-batches (algorithm.budget=shared).",
    )


PARTS = {
    part.__doc__[1]: part for part in (contention, staleness, averaging, consensus, death, straggler) if part.__doc__
}


def main(chosen: Sequence[str]) -> None:
    begun_s = time.monotonic()
    torch.set_num_threads(1)
    console.print(f"python scripts/qualitative.py {' '.join(chosen)}".rstrip())
    console.print(f"torch {torch.__version__}; virtual clock, cluster 10gbe\n")
    for letter in chosen or PARTS:
        console.print(PARTS[letter].__doc__ or "", style="bold")
        PARTS[letter]()
    took = f"{time.monotonic() - begun_s:.0f} s"
    if not chosen:
        OUTPUT.write_text("\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n")
    console.print(took, style="dim")


if __name__ == "__main__":
    main(sys.argv[1:])
