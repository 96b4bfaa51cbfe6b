"""What each asynchronous method conserves, on the virtual cluster at every moment and on gloo processes at the end.

An `Audit` sits between a method and its worker, and counts what the local optimiser has added to its iterate, which
gradients it has computed and applied, and what it has sent and merged.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from harness import DOUBLE, SMALL, configure, run_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runner.config import Config
from runner.parts import assemble
from runner.simulation import Simulation

TINY = (*SMALL, *DOUBLE, "gpus_per_node=1", "epochs=1", "optimizer=plain_sgd", "optimizer.lr=0.5", "schedule=constant")
STEPS = 7
METHODS = {
    "easgd": ("algorithm=easgd", "algorithm.tau=2"),
    "eamsgd": ("algorithm=eamsgd", "algorithm.tau=1", "algorithm.budget=equal"),
    "adpsgd": ("algorithm=adpsgd",),
    "adpsgd equal": ("algorithm=adpsgd", "algorithm.budget=equal"),
    "gossip_pull": ("algorithm=gossip_pull", "algorithm.rounds=3"),
    "gossip_push": ("algorithm=gossip_push", "algorithm.comm_interval=1"),
    "gossip_push 2": ("algorithm=gossip_push", "algorithm.comm_interval=2", "algorithm.budget=equal"),
    "async_sgd": ("algorithm=async_sgd",),
    "downpour 3 2": ("algorithm=downpour", "algorithm.n_push=3", "algorithm.n_fetch=2"),
    "downpour 2 3": ("algorithm=downpour", "algorithm.n_push=2", "algorithm.n_fetch=3"),
}


@cache
def composed(method: str, nodes: int, *overrides: str) -> Config:
    return configure(
        *METHODS[method], *TINY, f"nodes={nodes}", f"dataset.train_samples={8 * nodes * STEPS}", *overrides
    )


def tiny(method: str, nodes: int, shards: int, seed: int = 0, launcher: str = "local") -> Config:
    """A run of STEPS steps per worker; with a centre on so many servers."""
    config = composed(method, nodes, f"launcher={launcher}")
    server = {"shards": max(shards, 1), "placement": "own" if shards > 1 else "beside_0"}
    return {**config, "seed": seed, "server": server, "servers": shards}


class Noted:
    """A handle whose value is noted when it is there."""

    def __init__(self, handle: Any, note: Callable[[Any], None]) -> None:
        self.handle, self.note = handle, note

    @property
    def arrived(self) -> bool:
        here: bool = self.handle.arrived
        return here

    def __await__(self) -> Generator[Any, Any, Any]:
        value = yield from self.handle.__await__()
        self.note(value)
        return value


class Audit:
    """The books of one worker or server, of either runtime."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.drift: Any = 0  # what the optimiser has added to the iterate
        self.computed: Any = 0  # the sum of its gradients
        self.applied: Any = 0  # the sum of what it has descended along
        self.descended: Tensor | None = None
        self.answers: list[Tensor] = []  # since the last step
        self.sent: list[tuple[int, str, Any]] = []
        self.merges = False  # models, as push gossip does
        self.inboxes: list[Tensor] = []
        self._descend, self._gradient, self._send, self._receive = (
            *(worker.descend, worker.gradient),
            *(worker.send, worker.receive),
        )
        worker.descend, worker.gradient, worker.send, worker.receive = (
            *(self.descend, self.gradient),
            *(self.send, self.receive),
        )

    def descend(self, x: Tensor, g: Tensor) -> Tensor:
        new = self._descend(x, g)
        self.drift = self.drift + (new - self.worker.state.x)  # not x: EAMSGD's is already on its way
        self.applied = self.applied + g
        self.descended = new
        return new

    def gradient(self, x: Tensor, mean_over: Any = None) -> Noted:
        def note(g: Tensor) -> None:
            self.computed = self.computed + g

        return Noted(self._gradient(x, mean_over), note)

    def send(self, to: int, channel: str, payload: Any) -> None:
        self.sent.append((to, channel, payload))
        self._send(to, channel, payload)

    def receive(self, source: int, channel: str, like: Any) -> Any:
        handle = self._receive(source, channel, like)
        return Noted(handle, lambda answer: self.answers.append(answer[0])) if channel == "model" else handle

    def check_pulled(self, x: Tensor, rounds: int) -> None:
        """After a step of pull gossip: the mean of its own model and of those that it was sent."""
        if self.answers:
            own = (1 + rounds - len(self.answers)) * self.descended
            torch.testing.assert_close(x, sum(self.answers, own) / (rounds + 1), rtol=1e-12, atol=1e-15)
        else:
            assert x is self.descended
        self.answers.clear()

    def watch_merging(self, algorithm: Any) -> None:
        """Of push gossip: remember what is merged, and check with which weights."""
        merge, self.merges = algorithm.merge, True

        def noting(worker: Any, s: Any, c: int) -> None:
            models, own = [x for x, _ in s.inbox], s.x
            merge(worker, s, c)
            if worker is self.worker:
                self.inboxes += models
                expected = (sum(models) + c * own) / (len(models) + c) if models else own
                torch.testing.assert_close(s.x, expected, rtol=1e-12, atol=1e-15)

        algorithm.merge = noting

    def tallies(self) -> dict[str, Any]:
        models = [payload[0] for _, channel, payload in self.sent if channel == "push"]
        return {
            "x": self.worker.state.x,
            "drift": self.drift,
            "computed": self.computed,
            "applied": self.applied,
            "pushed": len(models),
            "pushed_sum": sum(models) if models and self.merges else 0,
            "merged": sum(self.worker.split.staleness.values()),
            "merged_sum": sum(self.inboxes) if self.inboxes else 0,
            "oldest": min(self.worker.split.staleness, default=0),
            "version": getattr(self.worker.state, "version", 0),
        }


def start_of(members: int) -> Tensor:
    """(members, d) float64: where each begins, far from one another."""
    return torch.randn(members, 1210, generator=torch.Generator().manual_seed(members), dtype=torch.float64)


def parts_of_a_centre(servers: list[dict[str, Any]], key: str) -> Tensor:
    return torch.cat([server[key] for server in servers])


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def check(method: str, everyone: list[dict[str, Any]], servers: int, start: Tensor) -> None:
    """The balance at the end of a run, from the tallies of all members."""
    workers, centre = everyone[: len(everyone) - servers], everyone[len(everyone) - servers :]
    assert all(member["oldest"] >= 0 for member in everyone)
    total = sum(worker["x"] for worker in workers)
    drift = sum(worker["drift"] for worker in workers)
    if method.startswith("ea"):
        close(total + parts_of_a_centre(centre, "x"), start.sum(0) + drift)
    if method.startswith("adpsgd"):
        close(total, start.sum(0) + drift)
        assert sum(worker["merged"] for worker in workers) > 0
    if method.startswith("gossip_push"):
        assert sum(worker["merged"] for worker in workers) == sum(worker["pushed"] for worker in workers) > 0
        close(sum(worker["merged_sum"] for worker in workers), sum(worker["pushed_sum"] for worker in workers))
    if method.startswith(("downpour", "async_sgd")):
        close(parts_of_a_centre(centre, "applied"), sum(worker["computed"] for worker in workers))
        for server in centre:
            assert server["version"] == server["merged"] == sum(w["pushed"] for w in workers) / servers


# On the virtual cluster ---------------------------------------------------------------------------------------------


class Ledger:
    """Follows the exchanges of a simulation that are half done: one side has changed, the other will."""

    def __init__(self, simulation: Simulation, start: Tensor) -> None:
        self.simulation, self.start = simulation, start
        self.workers, self.servers = simulation.cluster.workers, simulation.cluster.servers
        for worker in simulation.members:
            worker.x0 = start[worker.rank] if not worker.is_server else start[len(self.workers)]
        self.audits = [Audit(worker) for worker in simulation.members]
        self.under_way: dict[tuple[int, int], Tensor] = {}  # (whose, with whom) -> what has still to be taken back
        self.before = {server.rank: server.initial() for server in self.servers}
        self.last: dict[int, Tensor] = {worker.rank: worker.x0 for worker in self.workers}
        self.most_under_way = 0

    def served(self, server: Any, c: Tensor) -> None:
        """An exchange with a centre: who is answered last has still to subtract what that has gained."""
        to, channel, _ = self.audits[server.rank].sent[-1] if self.audits[server.rank].sent else (0, "", None)
        if channel == "centre":
            e = torch.zeros_like(self.start[0])
            whole = dict(server.shards(e))
            whole[server.rank] = c - self.before[server.rank]
            self.under_way[to, server.rank] = server.joined(whole)
            self.before[server.rank] = c
            self.balance()

    def yielded(self, worker: Any, x: Tensor) -> None:
        if self.servers:
            self.under_way = {key: e for key, e in self.under_way.items() if key[0] != worker.rank}
        self.last[worker.rank] = x
        self.balance()

    def balance(self) -> None:
        """What all hold is where they began, what the optimisers have added, and what is half exchanged."""
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        if any(member.state is None for member in self.simulation.members):
            return
        total = sum(worker.state.x for worker in self.workers)
        drift = sum(self.audits[worker.rank].drift for worker in self.workers)
        if self.servers:
            total = total + torch.cat([server.state.x for server in self.servers])
        close(total, self.start[: len(self.workers) + bool(self.servers)].sum(0) + drift + sum(self.under_way.values()))

    def watch_averaging(self, algorithm: Any) -> None:
        """Of AD-PSGD: a passive worker's reply is half an average, until the active one has taken it."""
        take = algorithm.take
        for audit in self.audits:
            send = audit.worker.send

            def noting(to: int, channel: str, payload: Any, send: Any = send, rank: int = audit.worker.rank) -> None:
                if channel == "passive":
                    self.under_way[to, rank] = (self.workers[to].state.sent - payload[0]) / 2
                send(to, channel, payload)

            audit.worker.send = noting

        async def taking(s: Any) -> None:
            [rank] = [worker.rank for worker in self.workers if worker.state is s]
            await take(s)
            self.under_way = {key: e for key, e in self.under_way.items() if key[0] != rank}

        algorithm.take = taking


times = st.floats(0.01, 3)


@st.composite
def clusters(draw: st.DrawFn, nodes: int) -> tuple[dict[str, Any], list[list[float]]]:
    """Links that differ, lose messages and are slow against 0.01 to 3 s of computing; seconds of each gradient."""
    link = {"latency_s": draw(st.floats(1e-4, 2)), "bandwidth": draw(st.floats(1e5, 1e7)), "efficiency": 1.0}
    link["loss"] = draw(st.sampled_from([0.0, 0.2]))
    differs = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1), st.floats(1e-5, 5))
    drawn = {(a, b): latency for a, b, latency in draw(st.lists(differs, max_size=3)) if a != b}
    # One that is as the others are is refused.
    links = [{"link": [*ends], "latency_s": s} for ends, s in drawn.items() if s != link["latency_s"]]
    seconds = draw(st.lists(st.lists(times, min_size=3, max_size=3), min_size=nodes, max_size=nodes))
    return {"inter": link, "links": links}, seconds


def virtual(method: str, config: Config, cluster: dict[str, Any], seconds: list[list[float]]) -> Ledger:
    """A run on a virtual cluster, its balance looked at whenever something has changed."""
    config = {**config, "cluster": {**config["cluster"], **cluster}}
    simulation = Simulation(config, torch.device("cpu"))
    simulation.cluster.seconds_of = lambda worker, draw: seconds[worker][draw % 3]
    ledger = Ledger(simulation, start_of(len(simulation.cluster.workers) + bool(simulation.cluster.servers)))
    yielded: Callable[[Any, Tensor], None] = lambda worker, x: None  # noqa: E731
    if method.startswith("ea"):
        yielded = ledger.yielded
    if method.startswith("adpsgd"):
        ledger.watch_averaging(simulation.algorithm)
        yielded = ledger.yielded
    if method.startswith("gossip_push"):
        for audit in ledger.audits:
            audit.watch_merging(simulation.algorithm)
    if method.startswith("gossip_pull"):

        def yielded(worker: Any, x: Tensor) -> None:
            ledger.audits[worker.rank].check_pulled(x, simulation.algorithm.rounds)  # type: ignore[attr-defined]
            ledger.last[worker.rank] = x
            for other in ledger.workers:  # nobody but a worker itself has changed what it holds
                own = (ledger.last[other.rank], ledger.audits[other.rank].descended)
                assert other.state is None or any(other.state.x is x for x in own)

    try:
        simulation.run(yielded, served=ledger.served)
    finally:
        simulation.close()
    check(method, [audit.tallies() for audit in ledger.audits], len(ledger.servers), ledger.start)
    return ledger


CENTRED = [name for name in METHODS if name.startswith(("ea", "downpour", "async"))]


def nodes_of(method: str) -> int:
    return 4 if method.startswith("adpsgd") else 3


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12)
@given(data=st.data())
def test_on_any_virtual_cluster(method: str, data: st.DataObject) -> None:
    nodes = nodes_of(method)
    shards = data.draw(st.sampled_from([1, 2, 3])) if method in CENTRED else 0
    config = tiny(method, nodes, shards, data.draw(st.integers(0, 9)), "simulated")
    virtual(method, config, *data.draw(clusters(nodes)))


def test_the_balance_has_seen_exchanges_half_done_and_gradients_in_between() -> None:
    """What the tests above are worth: answers take longer than a gradient, so several are under way at once."""
    slow = {"inter": {"latency_s": 1.5, "bandwidth": 1e7, "efficiency": 1.0, "loss": 0.0}}
    for method in ("adpsgd", "easgd"):
        nodes = nodes_of(method)
        config = tiny(method, nodes, int(method in CENTRED), launcher="simulated")
        ledger = virtual(method, config, slow, [[1.0, 0.7, 1.3]] * nodes)
        assert ledger.most_under_way >= 2


# On processes -------------------------------------------------------------------------------------------------------


def audited(cases: list[tuple[str, Config]], start: Tensor) -> list[dict[str, Any]]:
    """In a process of a group: run each configuration; the tallies of this process."""
    told = []
    for method, config in cases:
        parts = assemble(config, torch.device("cpu"))
        worker, mesh = parts.worker, parts.mesh
        x0 = start[min(worker.rank, mesh.workers)]
        worker.initial = lambda worker=worker, x0=x0: worker.own_part(x0)  # type: ignore[method-assign]
        audit = Audit(worker)
        if method.startswith("gossip_push"):
            audit.watch_merging(parts.algorithm)
        for x in parts.iterates():
            if method.startswith("gossip_pull"):
                audit.check_pulled(x, parts.algorithm.rounds)  # type: ignore[attr-defined]
        worker.leave().wait()
        worker.close()
        told.append(audit.tallies())
        dist.barrier()
    return told


@pytest.mark.multiproc
@pytest.mark.parametrize("shards", [0, 1, 2])
def test_on_four_processes_whatever_the_seed(shards: int) -> None:
    names = [name for name in METHODS if (name in CENTRED) == bool(shards)]
    nodes = 4 - shards
    cases = [(name, tiny(name, nodes, shards, seed)) for name in names for seed in range(3)]
    start = start_of(nodes + bool(shards))
    told = run_processes(audited, 4, cases, start)
    for place, (name, _) in enumerate(cases):
        check(name, [process[place] for process in told], shards, start)
