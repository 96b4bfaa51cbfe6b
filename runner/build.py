"""Making objects from configuration nodes: `_target_` names a callable, the other keys are its arguments.

Wrong keys, types and values are reported with the key as the user typed it. Hydra itself stays in the launching
process; every rank builds from the frozen configuration with these few lines.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


class ConfigError(ValueError):
    """The configuration asks for what cannot be: the message names key, value, what is allowed, what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known ones, then all of them."""
    names = sorted(known)
    close = [other for other in names if name and other.startswith(name)][:3]
    close = close or [other for other in names if name.lower() == other.lower()]
    close = close or difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    rest = f", and {len(names) - 40} more" if len(names) > 40 else ""
    return f"{hint}known: {', '.join(names[:40]) or 'none'}{rest}"


def locate(target: object, key: str) -> Callable[..., Any]:
    """The callable that `target` ("package.module.name") names.

    Raises:
        ConfigError: nothing of that name can be imported.
    """
    if not isinstance(target, str):
        raise ConfigError(f"{key}._target_={target or 'null'}: must name what to call, as package.module.name")
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{key}._target_={target}: cannot be imported ({error}); "
            "put its module on PYTHONPATH or start from its folder"
        ) from error
    if not callable(found):
        raise ConfigError(f"{key}._target_={target}: is not callable")
    return typing.cast("Callable[..., Any]", found)


def build(node: Mapping[str, Any], key: str, *args: Any, **given: Any) -> Any:
    """Call the node's `_target_` with `args`, its own keys and `given`.

    Args:
        node: one group of the configuration, e.g. `{"_target_": "algorithms.sgp.SGP", "overlap": 1}`.
        key: where it stands in the configuration, for messages.

    Raises:
        ConfigError: unknown key, wrong type, or a value the target refuses.
    """
    target = locate(node.get("_target_"), key)
    options = {name: value for name, value in node.items() if name != "_target_"}
    _check_options(target, options, key, len(args), given)
    for name, value in options.items():
        if isinstance(value, dict) and "_target_" in value:
            options[name] = build(value, f"{key}.{name}")
    try:
        return target(*args, **options, **given)
    except ConfigError:
        raise
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        message = str(error)
        names_its_key = re.match(r"[\w.]+=", message) or message.startswith(f"{key}.")
        raise ConfigError(message if names_its_key else f"{key}: {message}") from error


def _check_options(
    target: Callable[..., Any], options: Mapping[str, Any], key: str, positional: int, given: Iterable[str]
) -> None:
    parameters = list(inspect.signature(target).parameters.values())[positional:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    settings = {p.name for p in parameters} - set(given)  # what is left for the configuration to say
    # A dataclass's own annotations, not its __init__'s: each is read where the class that has it stands.
    annotated = target.__init__ if inspect.isclass(target) and not dataclasses.is_dataclass(target) else target
    try:
        hints = typing.get_type_hints(annotated)
    except (NameError, TypeError):  # annotations that only a type checker can read
        hints = {}
    for name, value in options.items():
        if name not in settings:
            raise ConfigError(f"{key}.{name}: {_title(target)} has no such setting; {nearest(name, settings)}")
        if name in hints and not _fits(value, hints[name]):
            raise ConfigError(f"{key}.{name}={value!r}: must be {_spell(hints[name])}")


_PLAIN = (bool, int, float, str, type(None))
_LISTS = (list, tuple, Sequence)


def _title(target: Callable[..., Any]) -> str:
    return getattr(target, "__qualname__", repr(target))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value fits a type hint; hints beyond YAML's own types are left to the target."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        plain = [option for option in options if option in _PLAIN or typing.get_origin(option)]
        return any(_fits(value, option) for option in plain or options)
    if origin in _LISTS and {*typing.get_args(hint)} <= {*_PLAIN, ...}:
        return isinstance(value, list)
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    return True


def _spell(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(option) for option in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spell(option) for option in typing.get_args(hint))
    if origin in _LISTS:
        return "a list, [a,b]"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a name", type(None): "null"}
    return names.get(hint, str(hint))
