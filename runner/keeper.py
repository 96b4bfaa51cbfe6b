"""Checkpoints of a run of real processes: when one is due, what a process puts into it, and going on from one."""

from __future__ import annotations

import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from runner import checkpoints
from runner.config import Config
from runner.evaluation import gather
from runner.halting import POLL_S, SIGNALS, Halt, HaltedError, default_store
from runner.kept import Epochs
from runner.parts import Parts
from runner.recording import Journal, Recorder
from runner.results import read_json, write_json
from runner.runtimes.cut import Cut, settle
from runner.runtimes.mesh import SharedClaims

Saved = dict[str, Any]


class Keeper:
    """One process's part in its run's checkpoints. Made by all processes alike.

    `saved` is what this process has to go on from; None at the start of a run.
    """

    def __init__(self, parts: Parts, config: Config, folder: Path) -> None:
        self.parts, self.config, self.folder = parts, config, folder
        self.every = config["checkpoint_every"]
        self.x: Tensor = parts.problem.x0
        self.recorder: Recorder | None = None
        self.epochs: Epochs | None = None
        self.cut: Cut | None = None
        self.restarts = 0
        self.saved: Saved | None = None
        last = self._last()
        if last is not None:
            self.saved = saved = checkpoints.load(folder, last, parts.mesh.rank, parts.problem.device)
            self.x = saved["x"]
            parts.worker.load(saved["worker"])
            if isinstance(parts.worker.claims, SharedClaims):
                parts.worker.claims.before = saved["claimed"]
        self.next_due = self._next(parts.worker.draw)

    def _last(self) -> int | None:
        """The step of the newest complete checkpoint as the first process finds it.

        The others may look at another state of a disk that they share.
        """
        store = default_store()
        if dist.get_rank() == 0:
            self.restarts = count_attempt(self.folder) - 1
            last = checkpoints.newest(self.folder)
            store.set("checkpoint", str(last["step"]) if last else "")
        step = store.get("checkpoint").decode()
        return int(step) if step else None

    def _next(self, draw: int) -> int | None:
        return None if self.every is None else (draw // self.every + 1) * self.every

    def journal(self, process: int) -> Journal:
        """The files of this process, without what was written after the checkpoint."""
        return Journal(self.folder, process, self.config["tensorboard"], self.saved and self.saved["journal"])

    def begin(self, recorder: Recorder | None, epochs: Epochs | None = None) -> Tensor:
        """The clock starts; where this process stands."""
        self.recorder, self.epochs = recorder, epochs
        if self.saved is not None:
            if recorder is not None:
                recorder.load(self.saved["recorder"])
            if epochs is not None:
                epochs.load(self.saved["epochs"])
        dist.barrier()
        self.parts.clock.restart(0.0 if self.saved is None else self.saved["clock_s"])
        return self.x

    def _is_due(self) -> bool:
        """Between two steps: whether a checkpoint is due by their number."""
        draw = self.parts.worker.draw
        if self.next_due is None or draw < self.next_due:
            return False
        self.next_due = self._next(draw)
        return draw < self.parts.worker.draws  # at the end of training there is something better

    def _write(self) -> int:
        """Collective: the checkpoint of this moment; its step."""
        worker, recorder = self.parts.worker, self.recorder
        # Servers and workers that take mini-batches from one another are not all equally far.
        step = int(gather([worker.draw]).max())
        if self.parts.mesh.rank == 0:
            checkpoints.begin(self.folder, step)  # workers that are done keep the largest number as it is
        dist.barrier()
        content = {
            "worker": worker.save(),
            "x": self.x,
            "recorder": recorder and recorder.state(),
            "journal": recorder and recorder.journal.state(worker.draw),
            "epochs": self.epochs and self.epochs.state(),
            "clock_s": self.parts.clock.stopped_s,
            "claimed": worker.claims.taken if isinstance(worker.claims, SharedClaims) else None,
        }
        checkpoints.save(self.folder, step, self.parts.mesh.rank, content)
        dist.barrier()
        if self.parts.mesh.rank == 0:
            checkpoints.complete(self.folder, step, restarts=self.restarts)
        dist.barrier()
        return step


def count_attempt(folder: Path) -> int:
    """How often the processes of this run have begun, now included; by the first of them, which says who it is."""
    attempts: int = (read_json(folder / "attempts.json") or {"begun": 0})["begun"] + 1
    write_json(folder / "attempts.json", {"begun": attempts, "host": platform.node(), "pid": os.getpid()})
    return attempts


class SynchronousKeeper(Keeper):
    """All processes are at the same step."""

    def begin(self, recorder: Recorder | None, epochs: Epochs | None = None) -> Tensor:
        x = super().begin(recorder, epochs)
        worker = self.parts.worker
        self.halt = Halt(default_store(), dist.get_rank(), dist.get_world_size(), lambda: worker.draw)
        return x

    def step(self, x: Tensor) -> None:
        """After each step of training, and what is done at its end.

        Raises:
            HaltedError: all processes leave here.
        """
        due, halts = self._is_due(), self.halt.is_at(self.parts.worker.draw)
        if due or halts:
            self.x = x
            with self.parts.clock.paused():
                step = self._write()
            if halts:
                raise HaltedError(step, self.halt.number)

    def finish(self) -> None:
        """Training is over."""
        self.halt.close()


class AsynchronousKeeper(Keeper):
    """Worker 0 says when all are to stand still: see `runner.runtimes.cut`."""

    def begin(self, recorder: Recorder | None, epochs: Epochs | None = None) -> Tensor:
        x = super().begin(recorder, epochs)
        post = self.parts.worker.post
        if post is not None:
            self.cut = post.cut = Cut(self.parts.worker, self._save)
        dist.barrier()  # nobody calls before all can hear
        if self.parts.mesh.rank == 0:
            threading.Thread(target=self._heed, name="heed", daemon=True).start()
        return x

    def _heed(self) -> None:
        """Worker 0 calls them at a signal wherever it is itself, also where it waits for the others to leave."""
        post, cut = self.parts.worker.post, self.cut
        assert post is not None
        assert cut is not None
        SIGNALS.wait()
        while True:  # the cut of just now may have been saved before the signal
            with post.turn.lock:
                if post.has_left or post.failure is not None:
                    return
                if not cut.asked:
                    post.call_hold()
            time.sleep(POLL_S)

    def step(self, x: Tensor) -> None:
        """After each step of a worker, or of a server; in its turn.

        Raises:
            HaltedError: all processes leave here.
        """
        self.x = x
        worker, cut = self.parts.worker, self.cut
        assert worker.post is not None
        assert cut is not None
        if worker.rank == 0 and not worker.post.has_left and not cut.asked and self._is_due():
            worker.post.call_hold()
        if cut.asked and not worker.is_server:
            worker.post.turn.lock.release()
            try:
                cut.stand()
            finally:
                worker.post.turn.lock.acquire()

    def follow(self) -> None:
        """A process that computes gradients for the first one of its worker: all workers are held.

        Raises:
            HaltedError: all processes leave here.
        """
        with self.parts.clock.paused():
            settle(lambda: (0, 0, 0))
            halted = self._save()
        if halted is not None:
            raise halted

    def _save(self) -> HaltedError | None:
        step = self._write()
        number = int(gather([SIGNALS.number or 0])[0])  # worker 0's
        return HaltedError(step, number) if number else None
