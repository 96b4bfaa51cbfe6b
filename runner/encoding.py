"""The state of an algorithm as plain containers of tensors and numbers, and back.

What comes out can be read by `torch.load(weights_only=True)`. A handle is kept as its value: what is under way is
waited for when it is saved, and there at once when it is restored.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from torch import Tensor

from runner.runtimes.engine import Ready

KIND = "kind"
"""Marks a dictionary that stands for something else."""


def encode(value: Any) -> Any:
    """Plain containers.

    Raises:
        TypeError: it holds something that is neither data nor a handle.
    """
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, list):
        return [encode(each) for each in value]
    if isinstance(value, tuple):
        return {KIND: "tuple", "items": [encode(each) for each in value]}
    if isinstance(value, dict):
        return {KIND: "dict", "items": [[encode(key), encode(each)] for key, each in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        of = type(value)
        fields = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {KIND: f"{of.__module__}:{of.__qualname__}", "fields": fields}
    if hasattr(value, "__await__"):
        return {KIND: "handle", "value": encode(_value_of(value))}
    raise TypeError(
        f"a checkpoint cannot hold a {type(value).__qualname__}: an algorithm's state is made of vectors, numbers, "
        "containers, dataclasses and handles"
    )


def _value_of(handle: Any) -> Any:
    steps = handle.__await__()
    try:
        request = next(steps)
        while True:
            request = steps.send(request.wait())  # on real processes; all that is virtual is there
    except StopIteration as stop:
        return stop.value


def decode(value: Any) -> Any:
    """What was encoded."""
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value[KIND]
    if kind == "tuple":
        return tuple(decode(each) for each in value["items"])
    if kind == "dict":
        return {decode(key): decode(each) for key, each in value["items"]}
    if kind == "handle":
        return Ready(decode(value["value"]))
    return _state_class(kind)(**{name: decode(each) for name, each in value["fields"].items()})


def _state_class(kind: str) -> Any:
    """The dataclass of that name, in a module that is loaded already: a checkpoint makes nothing else run."""
    module, _, name = kind.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"the checkpoint holds a {kind}, which is no state of the configuration's algorithm")
    return found
