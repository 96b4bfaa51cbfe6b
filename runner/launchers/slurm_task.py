"""What a task of a SLURM job does: find its place among the others, be one process of the run, and obey the scheduler.

Its job may end before the run does. SLURM says so first, by a signal to all tasks: the one that the job asked for, when
its time is nearly over, and TERM when it is preempted, requeued or cancelled. The run then makes a checkpoint and
stops. After the first it has itself put back into the queue; after TERM that is for SLURM to do, or not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner import config as configs
from runner.config import Config
from runner.results import Row, read_json, write_state

if TYPE_CHECKING:  # it loads torch, and who only asks for a place has no need of that
    from runner.halting import HaltedError

UNTIL_KILLED_S = 900.0
"""A job that is preempted with a period of grace must not end by itself, or SLURM takes it for complete."""
FIRST_PORT, PORTS = 20_000, 12_000
"""Below what Linux gives to outgoing connections, from 32768 on; jobs on one node have ids much closer than this."""


@dataclass(frozen=True)
class Place:
    """Of a task among the processes of its run.

    Args:
        rank: training processes first, node by node; then the servers. None: it has nothing to do.
        local_rank: on its node.
    """

    rank: int | None
    local_rank: int


def place(config: Config, node: int, local: int) -> Place:
    """By SLURM_NODEID and SLURM_LOCALID.

    A node has as many tasks as another; those of a server stand beside the training ones of node 0, or on a node of
    their own after all others.
    """
    per_node, servers = int(config["gpus_per_node"]), configs.servers(config)
    if node < config["nodes"] and local < per_node:
        return Place(node * per_node + local, local)
    server = local - per_node if config["server"]["placement"] == "beside_0" else local
    at_home = node == (0 if config["server"]["placement"] == "beside_0" else config["nodes"])
    return Place(configs.ranks(config) + server if at_home and 0 <= server < servers else None, local)


class SlurmTask:
    """What submitit calls in every task of a job.

    Args:
        folder: of the run, absolute.
        path: where the launching process finds modules, a user's own algorithm among them.
    """

    def __init__(self, folder: str, path: Sequence[str] = ()) -> None:
        self.folder, self.path = folder, list(path)

    def __call__(self) -> None:
        """One process of the run, from start to end, or to where the scheduler stops it."""
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # submitit's own handling would end the job
            signal.signal(number, signal.SIG_IGN)
        sys.path += [entry for entry in self.path if entry not in sys.path]
        folder = Path(self.folder)
        if (folder / "summary.json").exists():
            return  # requeued after its end
        from runner.halting import SIGNALS

        config = configs.load(folder)
        SIGNALS.watch(signal.Signals[f"SIG{config['launcher'].get('signal', 'USR2')}"], signal.SIGTERM)
        here = place(config, int(os.environ["SLURM_NODEID"]), int(os.environ["SLURM_LOCALID"]))
        if here.rank is None:
            return
        _join(config, here)
        if here.rank == 0:
            write_state(folder, "running", **_about())

        from runner.process import main_rank

        halted = main_rank(self.folder, stops=())
        if halted is not None:
            _give_way(folder, here.rank, halted, bool(config["launcher"]["requeue"]))
        if here.rank == 0:
            write_state(folder, "finished", **_about())


def _give_way(folder: Path, rank: int, halted: HaltedError, requeue: bool) -> None:
    """The checkpoint is there; leave. Threads that still wait for messages are not waited for."""
    own_will = halted.signal != signal.SIGTERM
    cancelled = (read_json(folder / "state.json") or {}).get("status") != "running"
    if rank == 0 and own_will and not requeue and not cancelled:
        write_state(folder, "interrupted", f"{halted}, and launcher.requeue=false", **_about())
    elif rank == 0 and not cancelled:
        write_state(folder, "queued", f"{halted}; goes on when SLURM begins it again", **_about())
        if own_will:
            subprocess.run(["scontrol", "requeue", job_id()], check=True, timeout=60)
    if requeue or not own_will:  # SLURM ends all tasks when it takes the job back
        time.sleep(UNTIL_KILLED_S)
    sys.stdout.flush()
    os._exit(1)


def _about() -> Row:
    """What the run's state says of its job."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return {"job": job_id(), "nodes": os.environ["SLURM_JOB_NODELIST"], "restarts": restarts}


def job_id() -> str:
    """Of this job, `<array>_<cell>` for a cell of an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def port(job: int) -> int:
    """Where the tasks of a job meet, on its first node. Cells of an array have an id each, in SLURM_JOB_ID.

    Submitit draws from 20000 to 60000, where it may hit what an outgoing connection has, or had within a minute. A
    site that wants another port sets MASTER_PORT in launcher.setup.
    """
    return FIRST_PORT + job % PORTS


def _join(config: Config, here: Place) -> None:
    """Put this process's place where torch looks for it."""
    from submitit.helpers import TorchDistributedEnvironment

    os.environ.setdefault("MASTER_PORT", str(port(int(os.environ["SLURM_JOB_ID"]))))
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(here.rank), str(configs.processes(config))
    os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"] = str(here.local_rank), str(config["gpus_per_node"])
