"""What the contract asks of: every option of conf/algorithm by being there, and what watches them at work."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from harness import configure
from torch import Tensor

from runner.config import Config, conf_dir, select, servers, workers
from runner.data import load as load_dataset
from runner.parts import assemble
from runner.prepare import make_model, make_sampler
from runner.problem import make_problem
from runner.simulation import Simulation

CPU = torch.device("cpu")
OPTIONS = sorted(path.stem for path in (conf_dir() / "algorithm").glob("*.yaml"))
RATE = "optimizer.lr=0.02"
ADAMW = {"diloco", "noloco"}  # of which the contract asks for AdamW, without and with decay

# Softmax regression on classes that no plane separates: convex, with an optimum at finite x.
CONVEX = (
    *("dataset=synthetic", "dataset.shape=[1,4,4]", "dataset.classes=3", "dataset.separation=1", "model=mlp"),
    *("dataset.train_samples=96", "dataset.test_samples=6", "model.hidden=[]", "batch_size=8", "device=cpu"),
    "evaluation.every=1000",
)
VIRTUAL = ("launcher=simulated", "launcher.threads=1", "cluster=laptop")


def optimizers(option: str) -> dict[str, tuple[str, ...]]:
    """What a method is combined with."""
    if option in ADAMW:
        return {"AdamW": ("optimizer.weight_decay=0", RATE), "AdamW, decay": ("optimizer.weight_decay=0.01", RATE)}
    plain, decay = ("optimizer=plain_sgd", "optimizer.weight_decay=0"), "optimizer.weight_decay=0.01"
    if option == "eamsgd":  # it has a momentum of its own
        return {"plain": (*plain, RATE), "momentum, decay": ("optimizer=plain_sgd", decay, RATE)}
    # Sums of bare gradients know nothing of a momentum: that is what `sums=steps` is for.
    steps = ("algorithm.sums=steps",) if option in ("sasgd", "hier_sasgd") else ()
    heavy_ball = ("optimizer=sgd", "optimizer.nesterov=false")
    return {"plain": (*plain, "optimizer.lr=0.2"), "momentum, decay": (*heavy_ball, decay, RATE, *steps)}


# What happens rarely happens several times in a short run: a switch of methods, the end of a long block.
SHORT = {
    "allreduce_then_sgp": ("algorithm.epoch=5",),
    "post_local_sgd": ("algorithm.epoch=5",),
    **dict.fromkeys(("bmuf", "slowmo", "slowmo_sgp", "slowmo_osgp"), ("algorithm.period=4",)),
}


@cache
def convex(option: str, optimizer: str, *overrides: str) -> Config:
    """A virtual run of 4 workers on the convex problem, 144 steps. Composing takes longer than running."""
    settings = (*optimizers(option)[optimizer], *SHORT.get(option, ()), *overrides)
    return configure(f"algorithm={option}", *CONVEX, *VIRTUAL, "nodes=4", "epochs=48", *settings)


@cache
def digits(option: str) -> Config:
    """A virtual run of the method with its own defaults."""
    return configure(f"algorithm={option}", *VIRTUAL, "nodes=4", "epochs=15", "device=cpu", "evaluation.every=15")


def changed(config: Config, **values: Any) -> Config:
    """A resolved configuration with other values at dotted keys, written with __ for a dot."""
    config = deepcopy(config)
    for name, value in values.items():
        group, _, key = name.replace("__", ".").rpartition(".")
        node = select(config, group) if group else config
        assert key in node, name
        node[key] = value
    return config


def exact(config: Config) -> Config:
    """The same, merging what arrives at a step that does not depend on the clock."""
    config = deepcopy(config)
    nodes = [config["algorithm"]]
    for node in nodes:
        nodes += [inner for inner in node.values() if isinstance(inner, dict)]
        if "merge" in node:
            node["merge"] = "exact"
    return config


# A run, watched --------------------------------------------------------------------------------------------------


class Told:
    """A handle whose value is told."""

    def __init__(self, handle: Any, tell: Any) -> None:
        self.handle, self.tell = handle, tell

    def __await__(self) -> Generator[Any, Any, Any]:
        value = yield from self.handle.__await__()
        self.tell(value)
        return value


def vectors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from vectors_in(part)


class Watched:
    """A worker or server: all vectors that leave its method's hands, and what that does when there is no work left."""

    def __init__(self, worker: Any) -> None:
        self.worker, self.x = worker, worker.initial()
        self.left: list[tuple[Tensor, int, Tensor]] = []
        self.gradients = self.idle_gradients = self.last_yields = 0
        self.has_work = True
        for name in ("exchange", "all_reduce", "send", "gradient", "descend"):
            setattr(worker, name, self.noting(name, getattr(worker, name)))
        asked = worker.has_work
        worker.has_work = lambda: Told(asked(), self.tell)

    def noting(self, name: str, call: Any) -> Any:
        def noted(*arguments: Any, **more: Any) -> Any:
            self.note((arguments, more))
            if name == "gradient":
                self.gradients += 1
                self.idle_gradients += not self.has_work
            return call(*arguments, **more)

        return noted

    def note(self, value: Any) -> None:
        self.left.extend((v, v._version, v.clone()) for v in vectors_in(value))

    def tell(self, has_work: bool) -> None:
        self.has_work = has_work

    def yielded(self, x: Tensor) -> None:
        self.note(x)
        self.x = x
        self.last_yields += not self.has_work

    def told(self) -> dict[str, Any]:
        changed = sum(v._version != version or not torch.equal(v, copy) for v, version, copy in self.left)
        return {
            "x": self.x.clone(),
            "left": len(self.left),
            "changed": changed,
            "gradients": self.gradients,
            "idle_gradients": self.idle_gradients,
            "last_yields": self.last_yields,
            "centre": getattr(self.worker.state, "c", torch.empty(0)).clone(),  # its copy, where there is no server
        }


def on_processes(configs: list[Config]) -> list[dict[str, Any]]:
    """In a process of a group: run these one after the other; what each worker or server has to tell."""
    return [_on_a_process(config) for config in configs]


def _on_a_process(config: Config) -> dict[str, Any]:
    before = set(threading.enumerate())
    parts = assemble(config, CPU)
    watched = Watched(parts.worker)
    for x in parts.iterates():
        watched.yielded(x)
    if parts.worker.post is not None:
        parts.worker.leave().wait()
    parts.worker.close()
    parts.batches.close()
    post = parts.worker.post
    return watched.told() | {
        "threads": [thread.name for thread in threading.enumerate() if thread not in before],
        "unread": 0 if post is None else sum(map(len, post.come.values())),
    }


def simulated(config: Config) -> tuple[Simulation, list[dict[str, Any]]]:
    """The same on the virtual cluster, of all workers and then servers; and the simulation, which has ended."""
    simulation = Simulation(config, CPU)
    members = [*simulation.cluster.workers, *simulation.cluster.servers]
    watched = [Watched(member) for member in members]
    try:
        simulation.run(
            lambda worker, x: watched[worker.rank].yielded(x),
            served=lambda server, x: watched[server.rank].yielded(x),
        )
    finally:
        simulation.close()
    return simulation, [each.told() for each in watched]


# The convex problem ----------------------------------------------------------------------------------------------


def evaluated(config: Config, told: list[dict[str, Any]]) -> Tensor:
    """The model whose accuracy would be shown: the mean of the workers' or the centre."""
    xs = [each["x"].double() for each in told]
    if config["evaluated_model"] == "centre" and not servers(config):
        return told[0]["centre"].double()
    if config["evaluated_model"] == "centre":
        return torch.cat(xs[workers(config) : workers(config) + servers(config)])
    return torch.stack(xs[: workers(config)]).mean(0)


def objective(x: Tensor, decay: float) -> tuple[float, Tensor]:
    """Mean loss over the whole training set with decay / 2 |x|^2, and its gradient, in float64."""
    problem, batch = _whole_problem()
    loss, g = problem.gradient(x, batch)
    return float(loss + decay / 2 * x.dot(x)), g + decay * x


@cache
def _whole_problem() -> tuple[Any, tuple[Tensor, Tensor]]:
    config = configure("algorithm=allreduce", *CONVEX, "nodes=1", "batch_size=96", "problem.dtype=float64")
    dataset = load_dataset(config["dataset"])
    problem = make_problem(config, make_model(config, dataset), CPU)
    dataset = dataset.to(CPU, problem.dtype)
    return problem, dataset.batches(make_sampler(config, dataset), 0, config["seed"])(0)


@cache
def optimum(decay: float) -> float:
    x = _whole_problem()[0].initial()
    search = torch.optim.LBFGS([x], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> float:
        value, x.grad = objective(x, decay)
        return value

    search.step(closure)
    value, g = objective(x, decay)
    assert float(g.norm()) < 1e-4
    return value


def decay_of(config: Config) -> float:
    """Of the objective: AdamW's is none of a loss."""
    decoupled = config["optimizer"]["_target_"] == "torch.optim.AdamW"
    return 0.0 if decoupled else float(config["optimizer"]["weight_decay"])


def gap(config: Config, told: list[dict[str, Any]]) -> float:
    """How far the evaluated model's objective is from the least there is."""
    decay = decay_of(config)
    return objective(evaluated(config, told), decay)[0] - optimum(decay)
