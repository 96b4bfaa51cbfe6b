"""Processes of virtual runs, started from many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.launchers import InterruptedRunError, RunFailedError, local
from runner.launchers.virtual import SideBySide

pytestmark = pytest.mark.multiproc


def test_each_ends_with_its_own_exit_status(tmp_path: Path) -> None:
    """Of a folder that is not there, each fails with 1; a status that another thread had read would be 255."""
    local.warm_up()
    side_by_side = SideBySide()

    def launch(number: int) -> str:
        with pytest.raises(RunFailedError) as caught:
            side_by_side.launch(tmp_path / str(number))
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(launch, range(32)))
    assert all("ended with exit code 1;" in each for each in told)


def test_after_a_stop_nothing_begins(tmp_path: Path) -> None:
    side_by_side = SideBySide()
    side_by_side.stop(15)
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM"):
        side_by_side.launch(tmp_path)
