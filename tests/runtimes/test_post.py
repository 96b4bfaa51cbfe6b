"""Asynchronous messages between real gloo processes: their order, their content, and the parting of the workers."""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from harness import DOUBLE, SMALL, configure, run_processes

from runner.config import Config
from runner.parts import assemble

pytestmark = pytest.mark.multiproc

PLAIN = ("algorithm=gossip_push", "algorithm.budget=equal", *SMALL, *DOUBLE)
SERVED = ("algorithm=async_sgd", "algorithm.budget=equal", *SMALL, *DOUBLE)
MANY = 25


class Talk:
    """A method that does what the script of that name says, and notes it."""

    def __init__(self, name: str) -> None:
        self.script, self.server, self.notes = globals()[name], globals().get(f"{name}_server"), []

    async def run(self, worker: Any) -> AsyncGenerator[Any, None]:
        await self.script(worker, self.notes)
        for nothing in ():
            yield nothing

    async def serve(self, worker: Any) -> AsyncGenerator[Any, None]:
        await self.server(worker, self.notes)
        for nothing in ():
            yield nothing


def talks(cases: list[tuple[Config, str]]) -> list[Any]:
    """In a process of a group: follow the scripts, one after the other; what each has noted."""
    noted = []
    for config, name in cases:
        parts = assemble(config, torch.device("cpu"))
        talk = parts.algorithm = Talk(name)  # type: ignore[assignment]
        try:
            list(parts.iterates())
        except RuntimeError as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            talk.notes.append((str(error), last.name))
            parts.worker.post.failure = None  # for the others, who wait; a launcher would end them
        parts.worker.leave().wait()
        parts.worker.close()
        dist.barrier()  # the messages of the next case are not for this one
        noted.append(talk.notes)
    return noted


async def loop(worker: Any, channel: str, notes: list[Any]) -> None:
    async for sender, message in worker.messages(channel, like=(0.0,)):
        notes.append((sender, channel, *message))


async def in_order(worker: Any, notes: list[Any]) -> None:
    worker.beside(loop(worker, "a", notes))
    worker.beside(loop(worker, "b", notes))
    others = [j for j in range(worker.size) if j != worker.rank]
    x = worker.initial()
    for number in range(MANY):
        for j in others:
            worker.send(j, "a", (float(number),))
            worker.send(j, "b", (x[: 1 + 7 * number], number / 3, x))
            worker.send(j, "c", (float(number), x + j))
        if number % 5 == worker.rank:
            await worker.gradient(x)
    for j in reversed(others):
        for _ in range(MANY):
            number, there = await worker.receive(j, "c", like=(0.0, x))
            assert torch.equal(there, x + worker.rank)
            notes.append((j, "c", number))
    assert worker.split.bytes_sent == 8 * len(others) * sum(3 + (1 + 7 * k) + 2 * len(x) for k in range(MANY))


def check_in_order(noted: list[Any]) -> None:
    for rank, notes in enumerate(noted):
        for j in range(len(noted)):
            if j == rank:
                continue
            for channel in "abc":
                messages = [note[2:] for note in notes if note[:2] == (j, channel)]
                if channel == "b":
                    assert [len(part) for part, *_ in messages] == [1 + 7 * number for number in range(MANY)]
                    assert [third for _, third, _ in messages] == [number / 3 for number in range(MANY)]
                else:
                    assert [number for number, *_ in messages] == list(range(MANY))


async def late_question(worker: Any, notes: list[Any]) -> None:
    """All but worker 0 leave at once; that one asks them, and each other worker too once it has been asked."""

    async def answering() -> None:
        async for j, (question,) in worker.messages("question", like=(0.0,)):
            worker.send(j, "answer", (question + worker.rank, worker.initial()))

    worker.beside(answering())
    if worker.rank == 0:
        await worker.gradient(worker.initial())
        for question in range(3):
            for j in range(1, worker.size):
                worker.send(j, "question", (10.0 * question,))
                time.sleep(0.01)  # they have said that they leave, and wait
                answer, x = await worker.receive(j, "answer", like=(0.0, worker.initial()))
                assert torch.equal(x, worker.initial())
                notes.append((j, question, answer))


def check_late_question(noted: list[Any]) -> None:
    assert noted[0] == [(j, q, 10.0 * q + j) for q in range(3) for j in range(1, len(noted))]


async def arrival(worker: Any, notes: list[Any]) -> None:
    if worker.rank == 0:
        receipt = worker.receive(1, "a", like=(0.0,))
        notes.append(receipt.arrived)
        worker.send(1, "go", (0.0,))
        while not receipt.arrived:
            time.sleep(0.001)
        notes.append((await receipt)[0])
        notes.append(receipt.arrived)
    if worker.rank == 1:
        await worker.receive(0, "go", like=(0.0,))
        worker.send(0, "a", (0.1,))


def check_arrival(noted: list[Any]) -> None:
    assert noted[0] == [False, 0.1, True]


async def failing(worker: Any, notes: list[Any]) -> None:
    """Worker 1's task beside breaks while the worker waits for something else."""

    async def breaking() -> None:
        async for _ in worker.messages("a", like=(0.0,)):
            raise RuntimeError("the task beside is broken")

    if worker.rank == 0:
        worker.send(1, "a", (0.0,))
    if worker.rank == 1:
        worker.beside(breaking())
        await worker.receive(0, "never", like=(0.0,))


def check_failing(noted: list[Any]) -> None:
    assert noted[1] == [("the task beside is broken", "breaking")]


async def pushes(worker: Any, notes: list[Any]) -> None:
    for number in range(MANY):
        for server, part in worker.shards(worker.initial() + number).items():
            worker.send(server, "push", (part, float(number)))
        if number % 10 == 0:
            parts = {}
            for server, part in worker.shards(worker.initial()).items():
                worker.send(server, "fetch", ())
                [parts[server]] = await worker.receive(server, "part", like=(part,))
            assert torch.equal(worker.joined(parts), worker.initial())
    notes.append(len(worker.servers))


async def pushes_server(worker: Any, notes: list[Any]) -> None:
    x = worker.initial()

    async def answering() -> None:
        async for j, _ in worker.messages("fetch", like=()):
            worker.send(j, "part", (x,))

    worker.beside(answering())
    async for sender, (part, number) in worker.messages("push", like=(x, 0.0)):
        assert torch.equal(part, x + number)
        notes.append((sender, number))


def check_pushes(noted: list[Any]) -> None:
    servers = noted[0][0]
    for notes in noted[-servers:]:
        for j in range(len(noted) - servers):
            assert [number for sender, number in notes if sender == j] == list(range(MANY))


@pytest.mark.parametrize("n", [2, 4])
def test_messages_and_parting(n: int) -> None:
    config = configure(*PLAIN, f"nodes={n}")
    names = ["in_order", *["late_question"] * 8, "arrival", "failing", "late_question"]
    noted = run_processes(talks, n, [(config, name) for name in names])
    for case, name in enumerate(names):
        globals()[f"check_{name}"]([notes[case] for notes in noted])


@pytest.mark.parametrize(("n", "shards"), [(1, 1), (2, 3)])
def test_servers_hear_everything_and_end(n: int, shards: int) -> None:
    config = configure(*SERVED, f"nodes={n}", f"server.shards={shards}")
    noted = run_processes(talks, n + shards, [(config, "pushes")] * 3)
    for case in range(3):
        check_pushes([notes[case] for notes in noted])


async def nothing(worker: Any, notes: list[Any]) -> None:
    worker.beside(loop(worker, "a", notes))
    notes.append(worker.size)


def test_one_worker_has_nobody_to_wait_for() -> None:
    config = configure(*PLAIN, "nodes=1")
    assert run_processes(talks, 1, [(config, "nothing")]) == [[[1]]]
