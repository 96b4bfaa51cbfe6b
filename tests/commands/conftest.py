"""Runs that several tests look at: each is made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import SMALL, Done, type_in

SWEEP = ("-m", "algorithm=allreduce,dpsgd,sgp", "gpus_per_node=1,2", "nodes=2", "epochs=3", "evaluation.every=2")


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The current directory of a finished sweep of six cells, which nobody may change, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    return folder, type_in(*SMALL, *SWEEP, cwd=folder)
