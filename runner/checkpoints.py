"""Checkpoints of a run on disk: all that its processes were at a step, complete or not there at all.

    checkpoints/step-00000120/rank-00000.pt ...   one file for each process
                              complete.json       last, when all of them are there

Every file appears by rename. What a file holds is made of tensors and plain containers, and read as nothing else.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.launchers import RunFailedError
from runner.results import Row, read_json, write_json

if TYPE_CHECKING:
    import torch

KEPT = 2
"""Complete ones. The newest may be on a disk that has not got it yet when a machine goes down."""


def begin(folder: Path, step: int) -> None:
    """Before any process writes its part, by one of them: what is there of that step counts no more."""
    (_place(folder, step) / "complete.json").unlink(missing_ok=True)


def save(folder: Path, step: int, rank: int, content: dict[str, Any]) -> None:
    """Write one process's part of the checkpoint of a step."""
    import torch  # here: whoever only asks what there is needs none of it

    there = _place(folder, step)
    there.mkdir(parents=True, exist_ok=True)
    path = there / f"rank-{rank:05d}.pt"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def complete(folder: Path, step: int, **about: Any) -> None:
    """All processes have written theirs. By one of them; older checkpoints go."""
    write_json(_place(folder, step) / "complete.json", {"step": step, **about})
    kept = _complete(folder)[-KEPT:]
    for there in (folder / "checkpoints").glob("step-*"):
        if there not in kept and there < kept[-1]:  # also what was never completed
            (there / "complete.json").unlink(missing_ok=True)
            shutil.rmtree(there, ignore_errors=True)


def newest(folder: Path) -> Row | None:
    """What `complete` said of the newest complete checkpoint of a run's folder; None where there is none."""
    found = (read_json(there / "complete.json") for there in reversed(_complete(folder)))
    return next((about for about in found if about is not None), None)  # a file may be empty after a power failure


def load(folder: Path, step: int, rank: int, device: torch.device) -> dict[str, Any]:
    """One process's part, on its device."""
    import torch

    path = _place(folder, step) / f"rank-{rank:05d}.pt"
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, KeyError, EOFError) as error:  # what torch makes of a damaged file
        raise RunFailedError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove {path.parent} to go on from the "
            "checkpoint before, or begin again with rerun=true"
        ) from error
    return content


def _place(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "checkpoints").glob("step-*/complete.json"))
