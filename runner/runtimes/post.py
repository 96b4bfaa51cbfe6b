"""Asynchronous messages between real processes, over gloo.

One thread of each process takes in whatever comes from anyone and sorts it; an algorithm's tasks wait for what they
want among that. gloo can wait for a message but not ask whether it is there, so something has to wait for it all the
time. A process has heard everything when all workers have said that they leave, itself among them: nothing overtakes on
its way. That it has said so itself it hears from the next one, for only a message ends its waiting.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from algorithms.worker import Payload
from runner.runtimes.driver import Request, Turn

if TYPE_CHECKING:
    from runner.runtimes.cut import Cut
    from runner.runtimes.processes import ProcessWorker

HEADER = 16
"""Numbers in a header: channel, how far the sender is, parts; their lengths, -1 for a scalar; the scalars."""

FIRST_TAG = 1 << 30
"""Of these messages; those of exchanges are below."""

LEAVING, LEFT, HOLD = 0, -1, -2
"""In place of a channel: a worker leaves; the answer of the next one; all are to stand still."""


class Letter(NamedTuple):
    """One message that has come."""

    sender: int
    draw: int  # how far its sender was
    payload: Payload


class Post:
    """The asynchronous messages of one process.

    Args:
        group: all processes, with no limit of time.
        timeout_s: how long to wait for an answer.
        process_of: the process that speaks for a worker or server.
        member_of: and back.
        heard: called with how far the sender of a message was, by the task that loops over such, in its turn.
    """

    def __init__(
        self,
        worker: ProcessWorker,
        group: dist.ProcessGroup | None,
        dtype: torch.dtype,
        device: torch.device,
        timeout_s: float,
        process_of: Callable[[int], int],
        member_of: Callable[[int], int],
        heard: Callable[[int], None],
    ) -> None:
        self.worker, self.dtype, self.device, self.timeout_s = worker, dtype, device, timeout_s
        self.group = group
        self.process_of, self.member_of, self.heard = process_of, member_of, heard
        self.changed = threading.Condition()
        self.come: dict[int, deque[Letter]] = {}  # by channel
        members = worker.size + len(worker.servers)
        self.others = [member for member in range(members) if member != worker.rank]
        self.leavers = worker.size if self.others else 0  # of whom that has not been heard yet
        self.failure: BaseException | None = None
        self.turn = Turn()
        self.beside: list[threading.Thread] = []
        self.has_left = False
        self.cut: Cut | None = None  # set by whoever wants checkpoints
        self.sent = self.arrived = 0  # messages of algorithms
        self.waiting = 0  # loops over messages that wait for one
        self.looped: set[int] = set()  # their channels
        # What is sent must be waited for too, if only to let go of it.
        self.sending = ThreadPoolExecutor(1, thread_name_prefix="sending")
        self.taking_in = threading.Thread(target=self._watched, args=(self._take_in,), name="taking in", daemon=True)
        self.taking_in.start()

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, to: int, channel: str, payload: Payload) -> None:
        self.worker.split.count_sent(self._send(to, number_of(channel), payload))

    def _send(self, to: int, channel: int, payload: Payload = ()) -> int:
        """Send it; how many bytes of payload that are."""
        vectors = [part.to("cpu") for part in payload if isinstance(part, Tensor)]
        scalars = [float(part) for part in payload if not isinstance(part, Tensor)]
        lengths = [part.numel() if isinstance(part, Tensor) else -1 for part in payload]
        numbers = [channel, self.worker.draw, len(lengths), *lengths, *scalars]
        if len(numbers) > HEADER:
            raise ValueError(f"a message of {len(vectors)} vectors and {len(scalars)} numbers has too many parts")
        header = torch.zeros(HEADER, dtype=torch.float64)
        header[: len(numbers)] = torch.tensor(numbers, dtype=torch.float64)
        process = self.process_of(to)
        works = [
            dist.isend(part, process, self.group, FIRST_TAG + place) for place, part in enumerate([header, *vectors])
        ]
        self.sending.submit(lambda: [work.wait() for work in works if work is not None])
        with self.changed:
            self.sent += channel > 0
        return sum(vector.nbytes for vector in vectors) + 8 * len(scalars)

    def call_hold(self) -> None:
        """Let all processes hold their workers: see `runner.runtimes.cut`."""
        for member in self.others:
            self._send(member, HOLD)
        self._hold()

    def _hold(self) -> None:
        assert self.cut is not None, "a process that can be held has its part in a cut"
        self.cut.begin()
        with self.changed:
            self.changed.notify_all()

    # -- taking in -------------------------------------------------------------------------------------------------

    def _watched(self, task: Callable[[], None]) -> None:
        """In a thread: whoever waits for something learns that it has failed."""
        try:
            task()
        except BaseException as error:
            with self.changed:
                self.failure = self.failure or error
                self.changed.notify_all()

    def _take_in(self) -> None:
        while self.leavers:
            header = torch.empty(HEADER, dtype=torch.float64)
            process = dist.recv(header, group=self.group, tag=FIRST_TAG)
            channel, draw, parts, *rest = header.tolist()
            if channel in (LEAVING, LEFT):
                sender = self.member_of(process)
                if channel == LEAVING and self.worker.rank == (sender + 1) % (len(self.others) + 1):
                    self._send(sender, LEFT)
                with self.changed:
                    self.leavers -= 1
                    self.changed.notify_all()
                continue
            if channel == HOLD:
                self._hold()
                continue
            lengths, scalars = rest[: int(parts)], iter(rest[int(parts) :])
            vectors = [torch.empty(int(length), dtype=self.dtype) for length in lengths if length >= 0]
            for place, vector in enumerate(vectors, start=1):
                dist.recv(vector, process, self.group, FIRST_TAG + place)
            here = iter(vectors)
            payload = [next(scalars) if length < 0 else next(here).to(self.device) for length in lengths]
            with self.changed:
                letters = self.come.setdefault(int(channel), deque())
                letters.append(Letter(self.member_of(process), int(draw), tuple(payload)))
                self.arrived += 1
                self.changed.notify_all()

    def _when(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait; `changed` is held before and after. Whether it was in time.

        Raises:
            Exception: what made another task of this process fail.
        """
        in_time = self.changed.wait_for(lambda: ready() or self.failure is not None, timeout_s)
        if self.failure is not None:
            raise self.failure
        return in_time

    def has_come(self, source: int, channel: int) -> bool:
        return any(letter.sender == source for letter in self.come.get(channel, ()))

    def take(self, source: int, channel: int) -> Payload:
        """The next message of a sender, waited for."""
        with self.changed:
            if not self._when(lambda: self.has_come(source, channel), self.timeout_s):
                raise TimeoutError(
                    f"worker {source} has not answered worker {self.worker.rank} for {self.timeout_s:g} s "
                    "(launcher.timeout_s)"
                )
            letters = self.come[channel]
            place = next(place for place, letter in enumerate(letters) if letter.sender == source)
            letter = letters[place]
            del letters[place]
            return letter.payload

    def next_of(self, channel: int) -> Letter | None:
        """The next message of anybody, waited for; None when nothing can come any more."""
        with self.changed:
            self.looped.add(channel)
            self.waiting += 1
            self._when(lambda: bool(self.come.get(channel)) or self.leavers == 0)
            self.waiting -= 1
            letters = self.come.get(channel)
            return letters.popleft() if letters else None

    def census(self) -> tuple[int, int, int]:
        """(messages sent, messages that have come, loops over messages that are not waiting for one)."""
        loops = sum(thread.is_alive() for thread in self.beside) + self.worker.is_server
        with self.changed:
            unread = sum(len(self.come.get(channel, ())) for channel in self.looped)
            return self.sent, self.arrived, loops - self.waiting + unread

    # -- parting ---------------------------------------------------------------------------------------------------

    def run_beside(self, task: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._watched, args=(task,), name="beside", daemon=True)
        self.beside.append(thread)
        thread.start()

    def leave(self) -> None:
        """Say so, wait for all others to say it, and for the tasks beside to end.

        Worker 0 says it last, so that it can call a hold as long as anybody trains.
        """
        if not self.has_left:
            if self.worker.rank == 0:
                self._become_last()
            self.has_left = True
            for member in self.others if not self.worker.is_server else ():
                self._send(member, LEAVING)
        self._stand_by(lambda: self.leavers == 0)
        for thread in (self.taking_in, *self.beside):
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _become_last(self) -> None:
        while not self.has_left:
            self._stand_by(lambda: self.leavers <= 1)
            with self.turn.lock:  # nobody calls a hold meanwhile
                self.has_left = not self._is_held

    @property
    def _is_held(self) -> bool:
        return self.cut is not None and self.cut.asked

    def _stand_by(self, over: Callable[[], bool]) -> None:
        """Wait for that, and stand still whenever all are to do so."""
        while True:
            with self.changed:
                self._when(lambda: self._is_held or over())
                if not self._is_held:
                    return
            assert self.cut is not None
            self.cut.stand()

    def close(self) -> None:
        self.sending.shutdown()


class Receipt(Request[Payload | None]):
    """One message of a sender: see `Worker.receive`."""

    def __init__(self, post: Post, source: int, channel: str) -> None:
        self.post, self.source, self.channel = post, source, number_of(channel)
        super().__init__(lambda: post.worker.timed(lambda: post.take(source, self.channel)))

    @property
    def arrived(self) -> bool:
        if self._wait is None:
            return True
        with self.post.changed:
            return self.post.has_come(self.source, self.channel)


class Letters:
    """All messages of a channel: see `Worker.messages`."""

    def __init__(self, post: Post, channel: str) -> None:
        self.post, self.channel = post, number_of(channel)

    def __aiter__(self) -> Letters:
        return self

    async def __anext__(self) -> tuple[int, Payload]:
        letter = await Request(lambda: self.post.next_of(self.channel))
        if letter is None:
            raise StopAsyncIteration
        self.post.heard(letter.draw)
        return letter.sender, letter.payload


def number_of(channel: str) -> int:
    """A channel in a header."""
    return 1 + zlib.crc32(channel.encode())
