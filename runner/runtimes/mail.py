"""Asynchronous messages on the virtual cluster, and how asynchronous workers share their work and part.

A worker leaves when it will send nothing more unasked. When all have left, and no message is under way, nothing can
come any more: the loops over messages end, and with them the tasks beside, the servers, and the waiting for all this.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from algorithms.worker import Payload
from runner.runtimes.engine import Pending

if TYPE_CHECKING:
    from runner.runtimes.simulator import Cluster, VirtualWorker


class Claims:
    """Mini-batches that the workers take from one another: whoever is faster does more.

    Args:
        total: of all workers.
    """

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0

    def take(self) -> int | None:
        """The number of the next one; None when all are taken."""
        if self.taken == self.total:
            return None
        self.taken += 1
        return self.taken - 1


@dataclass(slots=True)
class Letter:
    """One asynchronous message.

    Args:
        draw: how far its sender was.
        vectors: in it, in whole vectors (d,).
        lives: of its sender and its receiver, when it left: see `Mail`.
        losses: how often it was lost and sent again.
        number: among those from its sender to that life of its receiver on this channel.
    """

    source: VirtualWorker
    target: int
    channel: str
    draw: int
    payload: Payload
    nbytes: int
    vectors: float
    lives: tuple[int, int]
    number: int
    losses: int = 0


class Mail:
    """The asynchronous messages of one worker or server: those that have come, and who waits for which.

    A message that was lost and sent again, or that a link slower than now carries, holds up those that left after it.
    What a worker has sent before its death arrives; but once it is back, all is lost that is still under way or unread
    from or to its former life, so that nobody takes the answer to a question of that life for one to a later question.
    """

    def __init__(self, worker: VirtualWorker) -> None:
        self.worker = worker
        self.life = 0  # a death and a return each begin another
        self.sent: Counter[tuple[int, int, str]] = Counter()  # by receiver, its life, and channel
        self.taken: Counter[tuple[int, str]] = Counter()  # by sender and channel, in this life
        self.early: dict[tuple[int, str, int], Letter] = {}
        self.come: dict[str, deque[tuple[int, Payload]]] = {}  # by channel: (sender, message)
        self.receiving: dict[tuple[int, str], deque[Receive]] = {}
        self.loops: dict[str, Messages] = {}

    def receive(self, source: int, channel: str) -> Receive:
        receive = Receive(self.worker, source, channel)
        waiting = self.receiving.setdefault((source, channel), deque())
        if not waiting:  # or those before have the first right
            for letter in self.come.get(channel, ()):
                if letter[0] == source:
                    self.come[channel].remove(letter)
                    receive.complete(letter[1])
                    return receive
        waiting.append(receive)
        if source in self.worker.cluster.farewells.gone:
            self.gone(source)
        return receive

    def messages(self, channel: str) -> Messages:
        if channel not in self.loops:
            self.loops[channel] = Messages(self.worker, channel)
        return self.loops[channel]

    def next_number(self, target: Mail, channel: str) -> int:
        """Of a message to that one."""
        way = target.worker.rank, target.life, channel
        self.sent[way] += 1
        return self.sent[way] - 1

    def take(self, letter: Letter) -> None:
        """A message is here: its turn comes after those that left before it."""
        source, channel, farewells = letter.source.rank, letter.channel, self.worker.cluster.farewells
        if letter.lives[1] != self.life:
            farewells.arrived()
            return
        self.early[source, channel, letter.number] = letter
        while (next_one := self.early.pop((source, channel, self.taken[source, channel]), None)) is not None:
            self.taken[source, channel] += 1
            self._take(next_one)
            farewells.arrived()

    def _take(self, letter: Letter) -> None:
        source, channel, worker = letter.source.rank, letter.channel, self.worker
        of_former_life = letter.lives[0] != letter.source.letters.life and letter.source.task is not None
        if worker.task is None or of_former_life:  # the dead take nothing in
            return
        worker.hear(letter.draw)
        waiting = self.receiving.get((source, channel))
        if waiting:
            waiting.popleft().complete(letter.payload)
        else:
            self.come.setdefault(channel, deque()).append((source, letter.payload))
            if channel in self.loops:
                self.loops[channel].wake()

    def gone(self, source: int) -> None:
        """A sender has died, or is back: what it has not sent, or what is lost, is not waited for."""
        cluster = self.worker.cluster
        sent, is_back = cluster.members[source].letters.sent, source not in cluster.farewells.gone
        for (sender, channel), waiting in list(self.receiving.items()):
            if sender == source:
                way = self.worker.rank, self.life, channel
                under_way = 0 if is_back else sent[way] - self.taken[source, channel]
                unsent = [waiting.pop() for _ in range(len(waiting) - under_way)]
                for receive in reversed(unsent):
                    receive.complete(None)

    def clear(self) -> None:
        """Another life begins."""
        self.life += 1
        held_up = len(self.early)
        for letters in (self.taken, self.early, self.come, self.receiving, self.loops):
            letters.clear()
        for _ in range(held_up):
            self.worker.cluster.farewells.arrived()


class Receive(Pending[Payload | None]):
    """One message under way: see `Worker.receive`."""

    __slots__ = ("channel", "source", "worker")

    def __init__(self, worker: VirtualWorker, source: int, channel: str) -> None:
        super().__init__()
        self.worker, self.source, self.channel = worker, source, channel

    def __await__(self) -> Generator[Pending[Payload | None], None, Payload | None]:
        if not self.done:
            begun_s = self.worker.engine.now
            try:
                yield self
            finally:  # also where the worker dies meanwhile
                self.worker.split.wait_s += self.worker.engine.now - begun_s
        return self.value

    def describe(self) -> str:
        return f"a message of worker {self.source} on {self.channel!r}"


class Messages(Pending[None]):
    """All messages of a channel: see `Worker.messages`. One task loops over them."""

    __slots__ = ("channel", "worker")

    def __init__(self, worker: VirtualWorker, channel: str) -> None:
        super().__init__()
        self.worker, self.channel = worker, channel

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> tuple[int, Payload]:
        come = self.worker.letters.come.setdefault(self.channel, deque())
        while not come:
            if self.worker.cluster.farewells.all_said:
                raise StopAsyncIteration
            await self
        return come.popleft()

    def __await__(self) -> Generator[Pending[None], None, None]:
        yield self

    def describe(self) -> str:
        return f"messages on {self.channel!r}"


class Leave(Pending[None]):
    """A worker's leaving: see `Worker.leave`."""

    __slots__ = ("worker",)

    def __init__(self, worker: VirtualWorker) -> None:
        super().__init__()
        self.worker = worker

    def __await__(self) -> Generator[Pending[Any], None, None]:
        farewells = self.worker.cluster.farewells
        if farewells.all_said:
            return
        begun_s = self.worker.engine.now
        farewells.say(self)
        if not self.done:
            yield self
        self.worker.split.wait_s += self.worker.engine.now - begun_s

    def describe(self) -> str:
        missing = self.worker.cluster.farewells.missing()
        return "the others to leave: " + (", ".join(map(str, missing[:8])) or "messages are under way")


class Farewells:
    """Who has left, and what is still under way."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.under_way = 0
        self.leaving: dict[int, Leave] = {}
        self.gone: dict[int, None] = {}  # the dead, once that is known
        self.all_said = False

    def missing(self) -> list[int]:
        return [w.rank for w in self.cluster.workers if w.rank not in self.leaving and w.rank not in self.gone]

    def say(self, leave: Leave) -> None:
        self.leaving[leave.worker.rank] = leave
        self.look()

    def arrived(self) -> None:
        """A message is under way no more."""
        self.under_way -= 1
        self.look()

    def look(self) -> None:
        """Whether that was the last there was to wait for."""
        # What is under way first: it alone costs nothing to ask, and is asked after every message.
        if self.under_way or self.all_said or not self.leaving or self.missing():
            return
        self.all_said = True
        for worker in self.cluster.members:
            for loop in list(worker.letters.loops.values()):
                loop.wake()
        for leave in self.leaving.values():
            leave.complete(None)

    def note_death(self, rank: int) -> None:
        """The others know that a worker is dead."""
        self.gone[rank] = None
        for worker in self.cluster.members:
            worker.letters.gone(rank)
        self.look()

    def note_return(self, rank: int) -> None:
        """A worker is back: whatever it has missed, or not sent, it will not make up for."""
        self.gone.pop(rank, None)
        self.leaving.pop(rank, None)
        self.cluster.members[rank].letters.clear()
        for worker in self.cluster.members:
            worker.letters.gone(rank)
            for unread in worker.letters.come.values():
                kept = [letter for letter in unread if letter[0] != rank]
                unread.clear()
                unread.extend(kept)
