"""The README's table of methods is what the code says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import method_table


def test_the_readme_is_up_to_date() -> None:
    readme = (method_table.ROOT / "README.md").read_text()
    assert readme == method_table.replaced(readme), "python scripts/method_table.py --write"


@pytest.mark.parametrize(
    ("option", "reads", "writes", "messages", "reductions", "models"),
    [  # counted by hand
        ("allreduce", 0, 0, 0, 1, 1.5),  # a ring over 4 sends 2 x 3/4
        ("sgp", 3, 2, 1, 0, 1),  # p x, and x + what has come
        ("sasgd", 2, 1, 0, 0.125, 0.1875),  # 7 of 8 steps gs + g, the last x - lr gs
        ("local_sgd", 0, 0, 0, 0.125, 0.1875),
    ],
)
def test_what_is_counted_is_what_the_code_does(
    option: str, reads: float, writes: float, messages: float, reductions: float, models: float
) -> None:
    [done], served = method_table.count(option)
    counted = [done.get(key, 0) for key in ("reads", "writes", "messages", "all-reduces")]
    assert counted == [reads, writes, messages, reductions]
    assert done["bytes"] / method_table.MODEL_BYTES == pytest.approx(models, rel=1e-6)
    assert not served


def test_views_are_free_and_what_is_made_is_written() -> None:
    x = torch.ones(method_table.DIMENSION)
    aten = torch.ops.aten
    assert method_table.is_view(aten.slice.Tensor)
    assert not method_table.is_view(aten.add.Tensor)
    assert not method_table.is_view(aten.add_.Tensor)
    assert method_table.whole(x)
    assert not method_table.whole(x[: method_table.DIMENSION // 2])
