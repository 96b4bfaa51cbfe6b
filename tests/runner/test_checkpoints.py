"""Checkpoints on disk: complete or not there; the last two are kept; nothing but data is read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from runner import checkpoints

CPU = torch.device("cpu")


class Touch:
    """What does something when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def made(folder: Path, step: int, *, complete: bool = True) -> None:
    for rank in (0, 1):
        checkpoints.save(folder, step, rank, {"x": torch.full((3,), float(step)), "rank": rank})
    if complete:
        checkpoints.complete(folder, step, restarts=0)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    made(tmp_path, 7)
    assert checkpoints.newest(tmp_path) == {"step": 7, "restarts": 0}
    for rank in (0, 1):
        content = checkpoints.load(tmp_path, 7, rank, CPU)
        assert content["rank"] == rank
        assert torch.equal(content["x"], torch.full((3,), 7.0))


def test_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None


def test_one_that_is_not_complete_is_none(tmp_path: Path) -> None:
    made(tmp_path, 3)
    made(tmp_path, 6, complete=False)
    assert checkpoints.newest(tmp_path) == {"step": 3, "restarts": 0}


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        made(tmp_path, step)
    made(tmp_path, 7, complete=False)
    made(tmp_path, 100)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000006", "step-00000100"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    made(tmp_path, 1)
    torch.save({"x": Touch(tmp_path / "touched")}, tmp_path / "checkpoints/step-00000001/rank-00001.pt")
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load(tmp_path, 1, 1, CPU)
    assert not (tmp_path / "touched").exists()
