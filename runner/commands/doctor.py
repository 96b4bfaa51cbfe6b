"""`experiments doctor`: what runs need on this machine, checked one by one, with what to do where it is missing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Level = Literal["ok", "absent", "warning", "failed"]
PYTHON = ((3, 11), (3, 14))  # from, below
TORCH = (2, 8)
PATIENCE_S = 30.0
RESOLVING_S = 5.0
LITTLE_DISK, HARDLY_ANY_DISK = 5e9, 2e8  # bytes
SITE = ("DISTSGD_CONFIG_DIR", "DISTSGD_LAUNCHER")
NO_SLURM = "runs start here, with launcher=local or simulated"


@dataclass(frozen=True)
class Finding:
    """What was found: `absent` is what some runs would need and others not, `failed` what every run needs."""

    level: Level
    what: str
    remedy: str = ""

    def lines(self) -> list[str]:
        return [f"{self.level:<8} {self.what}", *([f"{'':<8} -> {self.remedy}"] if self.remedy else [])]


def examine(results_dir: Path) -> int:
    """Check everything, printing line by line.

    Returns:
        The exit status: 1 if anything has failed.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        python,
        torch,
        gloo,
        host_name,
        site,
        slurm,
        data_sets,
        lambda: results(results_dir),
    ]
    levels = []
    for check in checks:
        for finding in check():
            levels.append(finding.level)
            print("\n".join(finding.lines()), flush=True)
    failed, warnings = levels.count("failed"), levels.count("warning")
    print(f"\n{failed} failed, {warnings} warning{'' if warnings == 1 else 's'}")
    return 1 if failed else 0


def python() -> Iterator[Finding]:
    """Its version."""
    version, (least, below) = sys.version_info[:2], PYTHON
    if least <= version < below:
        yield Finding("ok", f"Python {platform.python_version()}")
    else:
        told = f"Python {platform.python_version()}: must be {least[0]}.{least[1]} to {below[0]}.{below[1] - 1}"
        yield Finding("failed", told, "make a virtual environment with another one")


def torch() -> Iterator[Finding]:
    """Torch, torchvision, GPUs and NCCL."""
    try:
        import torch
        import torch.distributed as dist
        import torchvision
    except Exception as error:  # a broken installation raises nearly anything
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Finding(
            "failed", f"torch, torchvision: {said}", "install the two together: pip install torch torchvision"
        )
        return
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    told = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if version < TORCH:
        yield Finding(
            "failed", f"{told}: must be torch {TORCH[0]}.{TORCH[1]} or newer", "pip install -U torch torchvision"
        )
        return
    yield Finding("ok", told)
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    nccl = dist.is_nccl_available()
    if gpus:
        names = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
        yield Finding("ok", f"GPUs: {names}, CUDA {torch.version.cuda}")
        if nccl:
            yield Finding("ok", f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
        else:
            yield Finding("warning", "NCCL: this torch has none", "install torch's CUDA build, or use backend=gloo")
    elif shutil.which("nvidia-smi"):
        yield Finding("warning", "GPUs: nvidia-smi is here, but torch sees none", _why_no_gpu(torch.version.cuda))
    else:
        yield Finding("absent", f"GPUs: none here, runs use the {os.cpu_count()} CPU cores")


def _why_no_gpu(cuda: str | None) -> str:
    if cuda is None:
        return "this torch is built for CPUs only; install a CUDA build"
    return f"torch is built for CUDA {cuda}: `nvidia-smi` says whether the driver is as new; see CUDA_VISIBLE_DEVICES"


def gloo() -> Iterator[Finding]:
    """An all-reduce of two processes, on the interface of local runs and on the one that others can reach."""
    try:
        from runner.runtimes.group import interface
    except Exception:  # without torch, which has been told
        return
    names = {"lo": "between processes of this machine"}
    address = _address()
    if address is not None and not address.startswith("127."):
        names.setdefault(interface(f"{address}:1"), "between machines")
    for name, what in names.items():
        said = _all_reduce(name)
        if said is None:
            yield Finding("ok", f"gloo on {name}, {what}")
        else:
            remedy = "see whether a firewall or container forbids connections to itself"
            yield Finding("failed" if name == "lo" else "warning", f"gloo on {name}, {what}: {said}", remedy)


def _all_reduce(interface: str) -> str | None:
    """What went wrong; None where two processes have added up their numbers."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "runner.commands.two_ranks"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(port), interface, str(PATIENCE_S)], stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        for rank in ranks:
            _, stderr = rank.communicate(timeout=2 * PATIENCE_S)
            if rank.returncode != 0:
                return (stderr.strip().splitlines() or [f"exit status {rank.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        return f"no answer within {2 * PATIENCE_S:g} s"
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
            if rank.stderr is not None:
                rank.stderr.close()
    return None


def host_name() -> Iterator[Finding]:
    """Whether others could find this host by its name."""
    name, address = socket.gethostname(), _address()
    remedy = f"enter {name} with its address in /etc/hosts or DNS"
    if address is None:
        yield Finding("warning", f"host name {name}: does not resolve, which may hang runs on several machines", remedy)
    elif address.startswith("127."):
        yield Finding("absent", f"host name {name}: is {address}, so other machines cannot reach this one by it")
    else:
        yield Finding("ok", f"host name {name}: is {address}")


def _address() -> str | None:
    """What this host's name resolves to; a resolver may hang for minutes, so it is given seconds."""
    found: list[str] = []

    def resolve() -> None:
        try:
            found.append(socket.gethostbyname(socket.gethostname()))
        except OSError:
            return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(RESOLVING_S)
    return found[0] if found else None


def site() -> Iterator[Finding]:
    """The options of a site, where the environment names any."""
    from runner.build import ConfigError
    from runner.composing import compose

    named = [f"{name}={os.environ[name]}" for name in SITE if os.environ.get(name)]
    if not named:
        return
    try:
        compose(["dry_run=true"])
    except ConfigError as error:
        yield Finding("failed", str(error))
    else:
        yield Finding("ok", ", ".join(named))


def slurm() -> Iterator[Finding]:
    """Its commands, and submitit."""
    if shutil.which("sbatch") is None:
        yield Finding("absent", f"SLURM: there is no sbatch here; {NO_SLURM}")
        return
    remedy = f"is SLURM up? `sinfo` should say; without it {NO_SLURM}"
    for command in (["sbatch", "--version"], ["sinfo", "--noheader", "--format=%P: %D nodes %T"], ["squeue", "--me"]):
        said, good = _answer(command)
        name = " ".join(command[:2]) if command[0] == "sbatch" else command[0]
        if not good:
            yield Finding("failed", f"{name}: {said}", remedy)
            return
        if command[0] == "sbatch":
            yield Finding("ok", f"SLURM: {said}")
        if command[0] == "sinfo":
            yield Finding("ok", "partitions: " + ", ".join(said.splitlines()))
    yield Finding("ok", "squeue answers")
    said, good = _answer(["sacct", "--noheader", "--format=JobID", "--starttime=now"])
    if good:
        yield Finding("ok", "sacct answers: what became of a job is known for long")
    else:
        told = f"sacct: {said.splitlines()[0]}; what became of a job is read from its own output"
        yield Finding("absent", told)
    try:
        yield Finding("ok", f"submitit {metadata.version('submitit')}")
    except metadata.PackageNotFoundError:
        yield Finding("failed", "submitit: is not installed", "pip install 'submitit>=1.5'")


def _answer(command: list[str]) -> tuple[str, bool]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "has not answered within 10 s", False
    except OSError as error:
        return f"cannot be started: {error.strerror}", False
    text = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()
    return text or ("" if done.returncode == 0 else f"exit status {done.returncode}"), done.returncode == 0


def data_sets() -> Iterator[Finding]:
    """Which are found where, without reading them."""
    try:
        from runner.data import cifar, fashion_mnist, files
    except Exception:  # without torch, which has been told
        return
    yield Finding("ok", "data sets digits and synthetic: embedded")
    known = {
        "fashion_mnist": (fashion_mnist.layouts(None), fashion_mnist.REMEDY),
        "cifar10": (cifar.layouts("cifar10", None), cifar.REMEDY),
        "cifar100": (cifar.layouts("cifar100", None), cifar.REMEDY),
    }
    for name, (layouts, remedy) in known.items():
        found = files.complete(layouts)
        if found is not None:
            yield Finding("ok", f"data set {name}: {found.folder}")
        else:
            yield Finding("absent", f"data set {name}: not in {layouts[0].folder}, nor where else it may be", remedy)
    folder = files.base(None) / "imagenet"
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        yield Finding("ok", f"data set imagenet: {folder}")
    else:
        remedy = "set DISTSGD_DATA to the folder above it, or dataset.root"
        yield Finding("absent", f"data set imagenet: no train/ and val/ in {folder}", remedy)


def results(results_dir: Path) -> Iterator[Finding]:
    """Whether runs can be written where they go, locked, and how much room there is."""
    from runner.build import ConfigError
    from runner.results import check_writable, lock

    there = results_dir.absolute()
    while not there.exists():
        there = there.parent
    told = f"results in {results_dir}"
    try:
        if there == results_dir.absolute():
            check_writable(str(results_dir))
            with lock(results_dir / "runs" / f"doctor-{os.getpid()}"):
                pass
        elif not os.access(there, os.W_OK):
            raise ConfigError(f"{there} cannot be written")
    except (ConfigError, OSError) as error:
        yield Finding("failed", f"{told}: {error}", "choose another folder with results_dir=...")
        return
    yield Finding("ok", f"{told}: can be written")
    free = shutil.disk_usage(there).free
    room = f"free disk space there: {free / 1e9:.3g} GB"
    if free < HARDLY_ANY_DISK:
        yield Finding("failed", room, "make room, or choose another folder with results_dir=...")
    elif free < LITTLE_DISK:
        yield Finding("warning", room, "checkpoints may fill it")
    else:
        yield Finding("ok", room)
