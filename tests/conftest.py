"""No test is timed, hypothesis's examples included; what tests of numerics share."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ["DISTSGD_LAUNCHER"] = "local"  # also where there is a SLURM: tests of it say launcher=slurm


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One CPU thread for torch, as a worker has: the number of threads changes the last bits of a gradient."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
