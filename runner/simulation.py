"""Training on the virtual cluster: all workers of a run in this process, recorded and evaluated as real ones are."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from algorithms.worker import Group, Vector
from runner import config as configs
from runner.cluster import make
from runner.config import Config
from runner.data import load as load_dataset
from runner.data.dataset import Batches, Dataset
from runner.evaluation import NOTHING, RECALIBRATION_BATCHES, fold, mean_in_order, scores
from runner.evaluation_steps import EvaluationSteps
from runner.graphs import make_graph
from runner.launchers import RunFailedError
from runner.memory import seldom_collecting
from runner.optimizer import LocalOptimizer
from runner.prepare import make_algorithm, make_model, make_optimizer, make_sampler
from runner.problem import Score, make_problem
from runner.recording import Journal, Recorder
from runner.results import Row, write_json
from runner.runtimes.base import Saved
from runner.runtimes.gradients import STAND_IN, Batched, Buffers, NoGradients, Pool, Replicas, Source, copied, cores
from runner.runtimes.mail import Claims
from runner.runtimes.mishaps import Mishaps
from runner.runtimes.simulator import Cluster, VirtualWorker
from runner.summary import summarise


class Simulation:
    """All parts of a run on the virtual cluster.

    Args:
        config: resolved.
        device: that computes the gradients.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.lanes = config, configs.gpus_per_worker(config)
        self.size, self.processes = configs.workers(config), configs.ranks(config)
        self.algorithm = make_algorithm(config)
        self.replicas: Replicas | None = None
        if configs.timing_only(config):
            self.per_epoch = make.iterations_per_epoch(config)
            source: Source = NoGradients()
            vector_bytes = None
        else:
            source, vector_bytes = self._make_source(device)
        cost = make.cost(config)
        self.cluster = Cluster(
            make.network(config),
            cost,
            make.seconds_of(config),
            source,
            vector_bytes=make.vector_bytes(cost, vector_bytes),
            dimension=0 if self.replicas is None else self.replicas.problem.dimension,
            lanes=self.lanes,
            seed=config["seed"],
        )
        graph = make_graph(config, self.algorithm, self.size, self.per_epoch)
        everyone = Group(tuple(range(self.size)))
        draws = config["epochs"] * self.per_epoch
        self.claims = Claims(draws * self.size) if configs.shares_work(config) else None
        self.hold_at: int | None = None
        x0: Vector = STAND_IN if self.replicas is None else self.replicas.problem.x0  # type: ignore[assignment]

        def member(rank: int) -> VirtualWorker:
            per_node, servers = make.workers_per_node(config), configs.servers(config)
            where = self.cluster, rank, everyone, per_node, servers
            return VirtualWorker(*where, graph, draws, self.per_epoch, x0, self._make_optimizer(rank), self.claims)

        members = [member(rank) for rank in range(self.size + configs.servers(config))]
        self.cluster.settle(members[: self.size], members[self.size :])
        self.source = source

    def _make_source(self, device: torch.device) -> tuple[Source, int]:
        config = self.config
        dataset = load_dataset(config["dataset"])
        problem = make_problem(config, make_model(config, dataset), device)
        self.dataset: Dataset = dataset.to(device, problem.dtype)
        self.sampler = make_sampler(config, dataset)
        self.per_epoch = self.sampler.iterations_per_epoch
        threads = 1 if device.type == "cuda" else config["launcher"].get("threads") or cores()
        self.replicas = Replicas(problem, self.processes, threads, config["threads_per_worker"])
        source = Batched if config["problem"]["batched"] else Pool
        return source(self.replicas, self.make_batches()), problem.x0.nbytes

    def make_batches(self) -> list[Batches]:
        """The training mini-batches of every rank."""
        return [self.dataset.batches(self.sampler, rank, self.config["seed"]) for rank in range(self.processes)]

    def _make_optimizer(self, rank: int) -> LocalOptimizer | None:
        if self.replicas is None:
            return None
        return make_optimizer(self.config, self.per_epoch, self.replicas.problem.x0, serves=rank >= self.size)

    def run(
        self,
        yielded: Callable[[VirtualWorker, Vector], None],
        changed: Callable[[], None] = lambda: None,
        served: Callable[[VirtualWorker, Vector], None] = lambda server, x: None,
    ) -> None:
        """From the start of all workers to the end of the last.

        Args:
            yielded: called with each iterate of each worker.
            changed: called when a worker has died or returned.
            served: called with each iterate of a server.

        Raises:
            RunFailedError: a method waited in vain for a worker that is gone, or all are.
            DeadlockError: it waits for what will never happen.
        """
        self.start(yielded, changed, served)
        self.go_on()

    def go_on(self) -> None:
        """To the end, or, with `hold_at`, until all workers are held and nothing is under way."""
        cluster = self.cluster
        with seldom_collecting():
            cluster.engine.run()
        if cluster.engine.held:  # an exchange that nobody waits for yet makes nothing happen when it arrives
            gathered_s = [worker.gathered_s for worker in cluster.workers]
            cluster.engine.now = max(cluster.engine.now, cluster.network.quiet_s, *gathered_s)
        if not any(worker.task for worker in self.cluster.workers):
            raise RunFailedError(f"no worker is alive after {self.cluster.engine.now:.6g} s of virtual time")

    def start(
        self,
        yielded: Callable[[VirtualWorker, Vector], None],
        changed: Callable[[], None] = lambda: None,
        served: Callable[[VirtualWorker, Vector], None] = lambda server, x: None,
    ) -> None:
        """Let all workers and servers begin: see `run`."""
        failures = make.failures(self.config)
        plan = failures.happenings(self.size, make.workers_per_node(self.config))

        def start(worker: VirtualWorker) -> None:
            run = self.algorithm.run(worker)
            if self.config["asynchronous"]:
                run = to_the_end(run, worker)
            self.cluster.start(worker, run, lambda x: note(worker, x))

        take_place = getattr(self.algorithm, "replace", None)
        mishaps = Mishaps(self.cluster, failures, plan, start, changed, take_place)

        def note(worker: VirtualWorker, x: Vector) -> None:
            if plan:
                mishaps.yielded(worker, x)
            yielded(worker, x)
            if self.hold_at is not None and worker.draw >= self.hold_at and worker.task is not None:
                self.cluster.engine.hold(worker.task)

        for server in self.cluster.servers:
            self.cluster.start(server, self.algorithm.serve(server), partial(served, server))  # type: ignore[attr-defined]
        for worker in self.cluster.workers:
            start(worker)

    def save(self) -> Saved:
        """All that this run is while its workers are held: tensors and plain containers."""
        members = [member.save() for member in self.members]
        claimed = self.claims.taken if self.claims is not None else 0
        return {"members": members, "claimed": claimed, "time_s": self.cluster.engine.now}

    def load(self, saved: Saved) -> None:
        """Take up from there; before `run`."""
        for member, own in zip(self.members, saved["members"], strict=True):
            member.load(own)
        if self.claims is not None:
            self.claims.taken = saved["claimed"]
        self.cluster.engine.now = saved["time_s"]

    def release(self) -> None:
        """Let the workers that are held go on."""
        self.hold_at = None
        self.cluster.engine.release()

    @property
    def members(self) -> list[VirtualWorker]:
        return self.cluster.members

    def close(self) -> None:
        self.cluster.engine.close()
        self.source.close()


async def to_the_end(run: AsyncGenerator[Vector, None], worker: VirtualWorker) -> AsyncGenerator[Vector, None]:
    """A run, and the leaving of those that have not left by themselves."""
    async for x in run:
        yield x
    await worker.leave()


@dataclass
class Snapshot:
    """A worker where an evaluation is due: its iterate, the buffers of each of its GPUs, its copy of a centre."""

    x: Tensor
    buffers: list[Buffers]
    centre: Tensor | None


class Evaluator:
    """Scores the workers, as `runner.evaluation` does on real processes: part by part, in the pool."""

    def __init__(self, simulation: Simulation, replicas: Replicas) -> None:
        settings = simulation.config["evaluation"]
        self.replicas, self.dataset, self.lanes = replicas, simulation.dataset, simulation.lanes
        self.centre_of = getattr(simulation.algorithm, "centre", None)
        self.batch_norm, self.batch_size = settings["batch_norm"], settings["batch_size"]
        self.own_always = settings["own"] == "always"
        self.calibration = simulation.make_batches() if replicas.buffers else []
        # As many parts of the test set as real processes would score give their sums, bit for bit, but take longer.
        self.in_one = simulation.config["problem"]["batched"]

    def snapshot(self, worker: VirtualWorker, x: Tensor) -> Snapshot:
        """The worker between two steps. Iterates are never changed in place; buffers are."""
        centre = None if self.centre_of is None else self.centre_of(worker.state)
        return Snapshot(x, worker.cluster.source.buffers_of(worker.processes), centre)

    def evaluate(self, workers: dict[int, Snapshot], centre: dict[int, Vector], last: bool = False) -> Row:
        """The row of an evaluation, from the living workers, and the parts of a centre on servers, by rank.

        Args:
            last: whether this is the run's last evaluation.
        """
        parts = [(rank, lane) for rank in sorted(workers) for lane in range(self.lanes)]
        first = workers[parts[0][0]].x
        mean = mean_in_order(workers[rank].x for rank in sorted(workers))
        buffers = self._mean_buffers(mean.to(first.dtype), workers, parts) if self.replicas.buffers else {}
        shares = 1 if self.in_one else len(parts)

        def one(place: int) -> list[float]:
            rank, lane = parts[place]
            worker = workers[rank]
            own = NOTHING
            if self.own_always or last:
                own = self._score(worker.x, worker.buffers[lane] if buffers else {}, lane, self.lanes)
            together = NOTHING
            if place < shares:
                together = self._score(mean.to(first.dtype), buffers, place, shares)
            return scores(float(torch.linalg.vector_norm(worker.x.double() - mean)), own, together)

        rows = self.replicas.map(one, range(len(parts)))
        row = fold(torch.tensor(rows, dtype=torch.float64), self.lanes)
        whole = torch.cat(list(centre.values())) if centre else workers[parts[0][0]].centre
        if whole is not None:
            scored = self.replicas.map(lambda part: self._score(whole, buffers, part, shares), range(shares))
            row["top1_centre"] = sum(score.correct for score in scored) / sum(score.samples for score in scored)
        return row

    def _score(self, x: Tensor, buffers: Buffers, part: int, parts: int) -> Score:
        problem = self.replicas.holding(buffers)
        return problem.evaluate(x, self.dataset.test_batches(self.batch_size, part, parts))

    def _mean_buffers(self, mean: Tensor, workers: dict[int, Snapshot], parts: list[tuple[int, int]]) -> Buffers:
        """The buffers of the mean model."""
        every = [workers[rank].buffers[lane] for rank, lane in parts]
        if self.batch_norm == "own":
            return every[0]
        if self.batch_norm == "recalibrate":
            ranks = [rank * self.lanes + lane for rank, lane in parts]
            every = self.replicas.map(lambda rank: self._recalibrated(mean, rank), ranks)
        return mean_of(every)

    def _recalibrated(self, mean: Tensor, rank: int) -> Buffers:
        buffers = copied(self.replicas.buffers[rank])
        problem = self.replicas.holding(buffers)
        problem.recalibrate(mean, (self.calibration[rank](draw) for draw in range(RECALIBRATION_BATCHES)))
        return buffers


def mean_of(every: list[Buffers]) -> Buffers:
    """The mean of each floating-point buffer in float64, in the order given; the others as in the first."""
    mean = dict(every[0])
    for name, first in mean.items():
        if first.is_floating_point():
            mean[name] = mean_in_order(buffers[name] for buffers in every).to(first.dtype)
    return mean


class Epochs:
    """Evaluates an epoch, or a part, when its last living worker has reached its end, on snapshots: no clock runs on.

    Workers that take mini-batches from one another reach it with their first step at that end or beyond.
    """

    def __init__(self, simulation: Simulation, evaluator: Evaluator, recorder: Recorder) -> None:
        self.workers, self.engine = simulation.cluster.workers, simulation.cluster.engine
        self.evaluator, self.recorder = evaluator, recorder
        config = simulation.config
        self.steps = EvaluationSteps.of(config["evaluation"]["every"], simulation.per_epoch, config["epochs"])
        self.next_end = self.steps.after(0)
        self.reached: dict[int, dict[int, Snapshot]] = {}  # draw at an epoch's end -> worker -> snapshot
        self.latest: dict[int, Vector] = {}
        self.shared = configs.shares_work(simulation.config)
        self.centre: dict[int, Vector] = {s.rank: s.initial() for s in simulation.cluster.servers}

    def served(self, server: VirtualWorker, x: Vector) -> None:
        self.centre[server.rank] = x

    def yielded(self, worker: VirtualWorker, x: Vector) -> None:
        self.latest[worker.rank] = x
        if self.shared:
            end = self.next_end
            while end <= worker.draw and end < self.steps.last:
                there = self.reached.setdefault(end, {})
                if worker.rank not in there:
                    there[worker.rank] = self.evaluator.snapshot(worker, x)
                    self.check()
                end = self.steps.after(end)
        elif self.steps.is_due(worker.draw) and self.next_end <= worker.draw < self.steps.last:
            self.reached.setdefault(worker.draw, {}).setdefault(worker.rank, self.evaluator.snapshot(worker, x))
            self.check()
        elif worker.draw > self.next_end and worker.rank not in self.reached.get(self.next_end, ()):
            self.check()  # it returned at this end or beyond: nobody has to wait for it there

    def check(self) -> None:
        """Evaluate what is complete."""
        living = [worker for worker in self.workers if worker.task is not None]
        while living and self.next_end < self.steps.last:
            there = self.reached.get(self.next_end, {})
            if any(worker.draw <= self.next_end and worker.rank not in there for worker in living):
                return
            if there:
                self.recorder.evaluation(self.evaluator.evaluate(there, self.centre), self.next_end, self.engine.now)
                del self.reached[self.next_end]
            self.next_end = self.steps.after(self.next_end)

    def final(self) -> Row:
        """After the end of training."""
        living = [worker for worker in self.workers if worker.task is not None]
        every = {w.rank: self.evaluator.snapshot(w, self.latest[w.rank]) for w in living if w.rank in self.latest}
        while self.next_end < self.steps.last:  # a worker found nothing left to do before it got there
            there = {**every, **self.reached.pop(self.next_end, {})}
            self.recorder.evaluation(self.evaluator.evaluate(there, self.centre), self.next_end, self.engine.now)
            self.next_end = self.steps.after(self.next_end)
        return self.evaluator.evaluate(every, self.centre, last=True)


NOT_EVALUATED: Row = dict.fromkeys(
    ("top1_mean_model", "top1_workers_mean", "top1_workers_std", "top1_centre", "loss_mean_model", "loss_workers_mean",
     "consensus_distance", "consensus_distance_max", "batch_norm")
)  # fmt: skip


def simulate(config: Config, folder: Path, device: torch.device) -> None:
    """Run the configuration's algorithm to its end, on the virtual cluster."""
    simulation = Simulation(config, device)
    journal = Journal(folder, 0, config["tensorboard"])
    with closing(simulation), closing(journal):
        recorders = [
            Recorder(journal, config, worker, simulation.per_epoch, "virtual") for worker in simulation.cluster.workers
        ]
        final = _evaluated(simulation, recorders) if simulation.replicas else _timed(simulation, recorders)
        for recorder in recorders:
            recorder.close()
    alive = [recorder for recorder, worker in zip(recorders, simulation.cluster.workers, strict=True) if worker.task]
    totals = torch.tensor([recorder.totals() for recorder in alive], dtype=torch.float64)
    staleness: Counter[int] = Counter()
    for member in simulation.members:
        staleness += member.split.staleness
    summary = summarise(config, totals, final, simulation.per_epoch, staleness)
    write_json(folder / "summary.json", summary)


def _timed(simulation: Simulation, recorders: list[Recorder]) -> Row:
    """Run it for the time only."""
    simulation.run(lambda worker, _: recorders[worker.rank].step())
    return dict(NOT_EVALUATED)


def _evaluated(simulation: Simulation, recorders: list[Recorder]) -> Row:
    """Run it; the scores of its last evaluation."""
    assert simulation.replicas is not None
    epochs = Epochs(simulation, Evaluator(simulation, simulation.replicas), recorders[0])

    def yielded(worker: VirtualWorker, x: Vector) -> None:
        recorders[worker.rank].step()
        epochs.yielded(worker, x)

    simulation.run(yielded, epochs.check, epochs.served)
    final = epochs.final()
    recorders[0].evaluation(final, epochs.steps.last, max(recorder.end_s for recorder in recorders))
    policy = simulation.config["evaluation"]["batch_norm"] if simulation.replicas.buffers else None
    return {**final, "batch_norm": policy}
