"""Hosts of a small cluster emulated on this machine: network namespaces on a bridge, their links shaped by tc's tbf.

Needs Linux, root, and iproute2's `ip` and `tc`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

BRIDGE = "fidelity"
SHAPE = ("burst", "512k", "latency", "50ms")  # tbf: as much may leave at once; as long may a packet queue


def why_not() -> str | None:
    """The reason why hosts cannot be emulated here; None where they can."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"`{tool}` is missing (package iproute2)"
    try:
        with emulated_hosts(1, 1e9):
            return None
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}`: {error.stderr.strip()}"


@contextlib.contextmanager
def emulated_hosts(count: int, bits_per_s: float) -> Iterator[list[str]]:
    """The names of so many network namespaces, each with an `eth0` of that rate both ways; gone at the end.

    Raises:
        subprocess.CalledProcessError: the kernel, or who asks, does not allow it.
    """
    hosts = [f"{BRIDGE}{i}" for i in range(count)]
    _remove()  # what an earlier life has left that was killed
    try:
        _do(f"ip link add {BRIDGE} type bridge")
        _do(f"ip link set {BRIDGE} up")
        for i, host in enumerate(hosts):
            _do(f"ip netns add {host}")
            _do(f"ip link add {_port(host)} type veth peer name eth0 netns {host}")
            _do(f"ip link set {_port(host)} master {BRIDGE} up")
            inside = f"ip netns exec {host}"
            _do(f"{inside} ip address add 10.213.0.{i + 1}/24 dev eth0")
            _do(f"{inside} ip link set eth0 up")
            _do(f"{inside} ip link set lo up")
            shape = f"root tbf rate {bits_per_s:.0f}bit {' '.join(SHAPE)}"
            _do(f"{inside} tc qdisc add dev eth0 {shape}")  # what the host sends
            _do(f"tc qdisc add dev {_port(host)} {shape}")  # what it receives
        yield hosts
    finally:
        _remove()


def _port(host: str) -> str:
    """The bridge's end of a host's cable."""
    return f"{host}p"


def _do(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, text=True)


def _remove() -> None:
    for host in Path("/run/netns").glob(f"{BRIDGE}[0-9]*"):
        # A cable goes with its namespace, but some time later: the next hosts' would find its name taken.
        subprocess.run(["ip", "link", "delete", _port(host.name)], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
