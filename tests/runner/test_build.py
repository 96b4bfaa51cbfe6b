"""Objects from configuration nodes: what fits is passed on, what does not is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.build import ConfigError, build, locate, nearest

HERE = __name__


@dataclass
class Method:
    """What a user's own class may look like."""

    overlap: int = 0
    rate: float = 0.5
    biased: bool = False
    merge: Literal["arrived", "exact"] = "arrived"
    name: str = "x"
    limit: int | None = None
    scale: float | Literal["auto"] = 1.0
    widths: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise ValueError(f"algorithm.overlap={self.overlap}: must be 0 or more")
        if self.overlap > 99:
            raise ValueError("too much overlap")
        if self.widths and not self.widths[0]:
            raise ConfigError("algorithm.widths: starts with 0")


def sized(size: int, /, *, seed: int, steps: int = 3) -> tuple[int, int, int]:
    """A function with arguments that the runner gives."""
    return size, seed, steps


def anything(**settings: object) -> dict[str, object]:
    """A function that takes what it gets."""
    return settings


NOT_CALLABLE = 3


def node(**settings: object) -> dict[str, object]:
    return {"_target_": f"{HERE}.Method", **settings}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"overlap": 2, "rate": 1, "biased": True, "merge": "exact", "name": "y"},
        {"limit": None, "scale": "auto"},
        {"limit": 3, "scale": 2, "widths": [1, 2]},
    ],
)
def test_what_fits_is_passed_on(settings):
    assert build(node(**settings), "algorithm") == Method(**settings)


def test_the_runner_adds_its_own_arguments():
    assert build({"_target_": f"{HERE}.sized", "steps": 5}, "topology", 4, seed=1) == (4, 1, 5)
    assert build({"_target_": f"{HERE}.anything", "a": 1}, "model", b=2) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1.5}, "algorithm.overlap=1.5: must be a whole number"),
        ({"overlap": True}, "algorithm.overlap=True: must be a whole number"),
        ({"overlap": "2"}, "algorithm.overlap='2': must be a whole number"),
        ({"overlap": None}, "algorithm.overlap=None: must be a whole number"),
        ({"rate": "fast"}, "algorithm.rate='fast': must be a number"),
        ({"rate": False}, "algorithm.rate=False: must be a number"),
        ({"biased": 1}, "algorithm.biased=1: must be true or false"),
        ({"biased": "yes"}, "algorithm.biased='yes': must be true or false"),
        ({"merge": "exakt"}, "algorithm.merge='exakt': must be one of arrived, exact"),
        ({"name": 3}, "algorithm.name=3: must be a name"),
        ({"limit": "none"}, "algorithm.limit='none': must be a whole number or null"),
        ({"scale": "big"}, "algorithm.scale='big': must be a number or one of auto"),
        ({"overlap": -1}, "algorithm.overlap=-1: must be 0 or more"),  # the target's own words, with its key
        ({"overlap": 100}, "algorithm: too much overlap"),  # the target's own words, without one
        ({"widths": [0]}, "algorithm.widths: starts with 0"),
        ({"overlpa": 1}, "algorithm.overlpa: Method has no such setting; did you mean overlap? known: biased, limit, "),
        ({"zzz": 1}, "algorithm.zzz: Method has no such setting; known: biased, limit, merge, "),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        build(node(**settings), "algorithm")
    assert str(caught.value).startswith(message)


@settings(deadline=None)
@given(st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3))
def test_a_plain_type_takes_its_own_values_only(value):
    """Booleans are no numbers, and whole numbers are numbers."""
    accepts = {
        "overlap": type(value) is int and 0 <= value <= 99,
        "rate": type(value) in (int, float),
        "biased": type(value) is bool,
        "name": type(value) is str,
        "limit": value is None or type(value) is int,
    }
    for key, accepted in accepts.items():
        if accepted:
            assert getattr(build(node(**{key: value}), "algorithm"), key) is value
        else:
            with pytest.raises(ConfigError, match=rf"^algorithm(\.{key}=.*)?: "):
                build(node(**{key: value}), "algorithm")


@pytest.mark.parametrize("key", ["size", "seed"])
def test_what_the_runner_gives_is_no_setting(key):
    with pytest.raises(ConfigError, match=rf"topology\.{key}: sized has no such setting; .*known: steps$"):
        build({"_target_": f"{HERE}.sized", key: 1}, "topology", 4, seed=1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module.Method", r"algorithm\._target_=no_such_module\.Method: cannot be imported \(No module named"),
        (f"{HERE}.Mehtod", r"cannot be imported \(module .* has no attribute 'Mehtod'\); put its module on PYTHONPATH"),
        (f"{HERE}.NOT_CALLABLE", r"NOT_CALLABLE: is not callable"),
        ("not a name", r"algorithm\._target_=not a name: cannot be imported"),
        ("", r"algorithm\._target_=: "),
        (None, r"algorithm\._target_=null: must name what to call"),
        (3, r"algorithm\._target_=3: must name what to call"),
    ],
)
def test_a_target_that_is_not_there_is_refused(target, message):
    with pytest.raises(ConfigError, match=message):
        build({"_target_": target}, "algorithm")


def test_a_node_without_target_is_refused():
    with pytest.raises(ConfigError, match=r"algorithm\._target_=null: must name"):
        build({"overlap": 1}, "algorithm")


def test_locate_finds_functions_and_classes():
    assert locate("torch.optim.SGD", "optimizer") is torch.optim.SGD
    assert locate("models.mlp", "model").__name__ == "mlp"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("spg", ["sgp", "dpsgd", "allreduce"], "did you mean sgp or dpsgd? known: allreduce, dpsgd, sgp"),
        ("zzz", ["sgp", "dpsgd"], "known: dpsgd, sgp"),
        ("x", [], "known: none"),
    ],
)
def test_the_nearest_names_come_first(name, known, hint):
    assert nearest(name, known) == hint
