"""The README's table of methods, from the code: what each is, what it sends, what it costs, its settings.

    python scripts/method_table.py            prints it
    python scripts/method_table.py --write    puts it into README.md

Messages, bytes and vector operations are counted in a short run of each method on the virtual cluster, 4 workers of
one GPU, with a gradient that is always the same and an optimiser that does nothing. Methods with groups run with S=2,
asynchronous ones with equal shares, and those that change at some epoch are counted before and after it. Some methods
draw their peers by chance: their numbers are means of a sample.
"""

from __future__ import annotations

import copy
import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from runner.build import locate
from runner.composing import compose
from runner.config import Config, conf_dir
from runner.prepare import resolve
from runner.runtimes.gradients import NoGradients
from runner.runtimes.simulator import VirtualWorker
from runner.simulation import Simulation

ROOT = Path(__file__).resolve().parent.parent
ALGORITHMS = str(ROOT / "algorithms")
BEGIN, END = "<!-- the table of methods: scripts/method_table.py --write -->", "<!-- the end of the table -->"
DIMENSION = 64
WORKERS = 4
MODEL_BYTES = 102228128  # of cost=resnet50_v100
LEAST = 48  # steps of each worker in a phase
WHOLE = 0.9  # an argument of so much of a vector or more is counted
HEADERS = ("`algorithm=`", "paper", "waits", "sent", "reads + writes", "settings and defaults")
NOTES = """\
Counted by `scripts/method_table.py` in short runs of 4 workers, groups of 2. waits: synchronous methods take equally
many steps on every worker. sent: by a worker, per step, in models (n); a message of a few numbers counts as a message.
reads + writes: of whole vectors, per step, by what stands in the method's file: every operation of torch reads each
vector it is given and writes each that it makes; a view is free. Not counted, being the same for all: the gradient,
the optimiser's step, the sums inside an all-reduce. Settings beside these: `worker: node | gpu`, what a worker is."""


Counts = Counter[str]
"""What one worker or server did: reads, writes, messages, reductions, bytes."""


class VectorOperations(TorchDispatchMode):
    """Counts what a file of algorithms/ reads and writes of vectors, in units of DIMENSION elements."""

    def __init__(self, counts: dict[int, Counts]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        rank = caller()
        if rank is not None and not is_view(func):
            made = result if isinstance(result, tuple | list) else (result,)
            self.counts[rank]["reads"] += sum(map(whole, (*args, *(kwargs or {}).values())))
            self.counts[rank]["writes"] += sum(map(whole, made))
        return result


def whole(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() >= WHOLE * DIMENSION


def is_view(func: Any) -> bool:
    """Whether what an operation returns shares the memory of what it was given."""
    return any(
        returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns
    )


def caller() -> int | None:
    """Which worker or server asked for the operation; None where no file of algorithms/ did so itself."""
    frame: Any = sys._getframe(2)
    while frame is not None and "/torch/" in frame.f_code.co_filename:
        frame = frame.f_back
    task = None
    while frame is not None and frame.f_code.co_filename.startswith(ALGORITHMS):
        frame, task = frame.f_back, frame
    return None if task is None else int(task.f_locals["worker"].rank)


class SameGradient(NoGradients):
    """The gradient is 1 everywhere."""

    def result(self) -> Any:
        return (torch.tensor(1.0),), (torch.ones(DIMENSION),)


def count(option: str) -> tuple[list[dict[str, float]], dict[str, float]]:
    """What a worker does in a step of each phase, and what the servers do meanwhile, in the mean."""
    config, steps = configuration(option)
    simulation = Simulation(config, torch.device("cpu"))
    cluster = simulation.cluster
    members = cluster.members
    counts: dict[int, Counts] = {member.rank: Counter() for member in members}
    cluster.source, cluster.dimension = SameGradient(), DIMENSION
    for member in members:
        member.x0 = torch.zeros(DIMENSION)
        watch(member, counts[member.rank])
    marks: dict[int, Counts] = {}  # by step: sums over the workers

    def yielded(worker: VirtualWorker, x: torch.Tensor) -> None:
        mine = counts[worker.rank]
        mine["steps"] += 1
        mine["bytes"] = worker.split.bytes_sent
        if mine["steps"] % steps == 0:
            marks.setdefault(mine["steps"], Counter()).update(mine)

    with VectorOperations(counts):
        simulation.run(yielded)
    simulation.close()
    # The first half of a phase is left out: some of what a method remembers begins as nothing.
    ends = sorted(marks)
    phases = [
        mean(marks[end] - marks[begin], steps * WORKERS) for begin, end in zip(ends[0::2], ends[1::2], strict=True)
    ]
    served: Counts = Counter()
    for server in cluster.servers:
        served.update(counts[server.rank] | {"bytes": server.split.bytes_sent})
    return phases, mean(served, ends[-1] * WORKERS)


def mean(total: Counts, steps: int) -> dict[str, float]:
    return {what: each / steps for what, each in total.items()}


def configuration(option: str) -> tuple[Config, int]:
    """One epoch of each phase, and how many steps half of it has: a multiple of every period."""
    config, node = copy.deepcopy(composed()), read(option)
    steps = math.lcm(*(value for value in leaves(node) if type(value) is int and value > 0))
    steps *= -(-LEAST // steps)
    config["problem"]["train_samples"] = 2 * steps * WORKERS
    chosen = {"algorithm": option} | brought(node)
    config["choices"] |= chosen
    for group, choice in chosen.items():
        config[group] = {key: value for key, value in read(choice, group).items() if key != "defaults"}
    config["algorithm"] |= {key: value for key, value in {"S": 2, "budget": "equal"}.items() if key in node}
    changes = [config["algorithm"]] if "epoch" in node else config["topology"].get("phases", [])[1:]
    for number, change in enumerate(changes, 1):
        change["epoch"] = number
    config["epochs"] = 1 + len(changes)
    return resolve(config), steps


@cache
def composed() -> Config:
    """What all runs have in common; composing takes longer than a run."""
    setting = ("launcher=simulated", "problem=none", "cost=resnet50_v100", "device=cpu", "batch_size=1")
    place = f"results_dir={tempfile.gettempdir()}"
    [(config, _)] = compose([*setting, f"nodes={WORKERS}", "gpus_per_node=1", place])
    return config


def brought(node: dict[str, Any]) -> dict[str, str]:
    """What a method chooses of other groups: {"topology": "ring"}, of `override /topology@_global_.topology: ring`."""
    choices = [choice for override in node.get("defaults", []) for choice in override.items()]
    return {where.partition("/")[2].partition("@")[0]: choice for where, choice in choices}


def leaves(node: Any) -> Iterator[Any]:
    """The values of a tree, but not the epoch of a change."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value) if key != "epoch" else ()
    else:
        yield node


def watch(member: VirtualWorker, counts: Counts) -> None:
    """Count the messages and reductions of one worker or server."""

    def counted(name: str, how_many: Any) -> None:
        method = getattr(member, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            what, number = how_many(*args, **kwargs)
            counts[what] += number
            return method(*args, **kwargs)

        setattr(member, name, call)

    counted("send", lambda *_: ("messages", 1))
    counted("exchange", lambda outgoing, *_, **__: ("messages", len(outgoing)))
    counted("all_reduce", lambda x, group: ("all-reduces", len(group.ranks) > 1))
    counted("gradient", lambda x, mean_over=None: ("all-reduces", mean_over is not None and len(mean_over.ranks) > 1))


def read(option: str, group: str = "algorithm") -> dict[str, Any]:
    """An option's own file."""
    node: dict[str, Any] = yaml.safe_load((conf_dir() / group / f"{option}.yaml").read_text()) or {}
    return node


def row(option: str) -> list[str]:
    node = read(option)
    target = locate(node["_target_"], "algorithm")
    phases, served = count(option)
    cells = []
    for form in (sent, touched):
        texts = dict.fromkeys(map(form, phases))
        cells.append(", then ".join(texts) + (f"; server: {form(served)}" if served else ""))
    return [
        f"`{option}`",
        paper(option, sys.modules[target.__module__].__doc__ or ""),
        waits(target),
        *cells,
        keys(node),
    ]


def waits(target: Any) -> str:
    return "synchronous" if getattr(target, "synchronous", True) else "asynchronous"


def sent(done: dict[str, float]) -> str:
    """`1 message, 1 n`."""
    named = [(f"{number(done[what])} {what}", done[what]) for what in ("messages", "all-reduces") if done.get(what)]
    texts = [text[:-1] if each == 1 else text for text, each in named]
    return ", ".join([*texts, f"{number(done['bytes'] / MODEL_BYTES)} n"])


def touched(done: dict[str, float]) -> str:
    """`2 + 1`."""
    return " + ".join(number(done.get(what, 0)) for what in ("reads", "writes"))


def number(value: float) -> str:
    return f"{value:.3g}"


def paper(option: str, docstring: str) -> str:
    """Who and when, after the head of the YAML file; where, after the module's docstring."""
    head = (conf_dir() / "algorithm" / f"{option}.yaml").read_text().split("\n", 1)[0]
    who = re.search(r"([A-Z][a-z]+(?:, [A-Z][a-z]+)*(?: & [A-Z][a-z]+)?(?: et al\.)?) (\d{4})", head)
    if who is None:
        numbers = re.findall(r"arXiv:\d{4}\.\d{4,5}", docstring)
        return ", ".join(dict.fromkeys(numbers))
    surname = re.split(r"[ ,]", who[1])[0]
    where = re.search(rf"{surname}\b.*?(arXiv:\d{{4}}\.\d{{4,5}}|no arXiv number)", docstring, re.DOTALL)
    return f"{who[0]}, {where[1]}" if where else who[0]


def keys(node: dict[str, Any]) -> str:
    """`period=8`; of what is composed, the class."""
    shown = {key: value for key, value in node.items() if key not in ("_target_", "worker", "defaults")}
    shown |= {group: choice for group, choice in brought(node).items() if choice != "none"}
    return ", ".join(f"`{key}={plain(value)}`" for key, value in shown.items())


def plain(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["_target_"]).rpartition(".")[2]
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def table() -> str:
    """The table, in Markdown."""
    options = sorted(path.stem for path in (conf_dir() / "algorithm").glob("*.yaml"))
    rows: list[Sequence[str]] = [HEADERS, ["---"] * len(HEADERS), *map(row, options)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + f"\n\n{NOTES}\n"


def replaced(readme: str) -> str:
    """The README with the table as it is now."""
    before, rest = readme.split(f"{BEGIN}\n", 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        path = ROOT / "README.md"
        path.write_text(replaced(path.read_text()))
    else:
        print(table())
