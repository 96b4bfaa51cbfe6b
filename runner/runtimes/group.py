"""The process group of a run: which backend, which network interface, how long to wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

from runner.config import Config, on_slurm

SIOCGIFADDR = 0x8915  # Linux: the address of an interface


@contextlib.contextmanager
def process_group(config: Config) -> Iterator[None]:
    """Join this process, whose place torch's elastic launch has put into the environment, to those of its run."""
    backend = "gloo" if config["backend"] == "gloo" else "cpu:gloo,cuda:nccl"
    # gloo otherwise asks the resolver for this host's name, which hangs where it has none.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface(_meeting_place(config)))
    timeout = timedelta(seconds=config["launcher"]["timeout_s"])
    # Without `device_id`: with it torch splits NCCL's communicator for each subgroup, and all ranks must take part.
    dist.init_process_group(backend, timeout=timeout)
    yield
    dist.destroy_process_group()


def _meeting_place(config: Config) -> str | None:
    """Where all machines of the run reach the first one, host:port; None where there is but one machine."""
    if on_slurm(config):
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    rendezvous: str | None = config["launcher"].get("rendezvous")
    return rendezvous


def interface(rendezvous: str | None) -> str:
    """The network interface from which this machine reaches the rendezvous (host:port); without one, loopback."""
    if rendezvous is None:
        return "lo"
    host, _, port = rendezvous.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # of a datagram socket: sends nothing
        address = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                if fcntl.ioctl(probe, SIOCGIFADDR, name.encode().ljust(256, b"\0"))[20:24] == address:
                    return name
    return "lo"
