"""Hydra's and OmegaConf's errors in words for users: the key, the value, what is allowed."""

from __future__ import annotations

from dataclasses import fields

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from runner.build import ConfigError, nearest
from runner.config import EvaluationSchema, Schema, conf_dir

NO_PRESET = (
    "the file sets no keys of a run. A preset must begin with the line `# @package _global_`, and say "
    "more than that; a study must lie in conf/experiment/<paper> of the project, beside a preset of the paper's scale"
)
CAUSES = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError)


def check_keys(composed: DictConfig) -> None:
    """Hydra lets `+key=value` add any key, also to the nodes whose keys are known, and takes any YAML for an option.

    Raises:
        ConfigError: a key that nobody reads, an option that is no mapping.
    """
    for each in fields(Schema):
        node = composed.get(each.name)
        if each.type == "Any" and not isinstance(node, DictConfig):
            chosen = f"where {node} is an option, a preset says `defaults: [override /{each.name}: {node}]`"
            raise ConfigError(f"{each.name}: holds {node}, and must have a key and its value on each line; {chosen}")
    for prefix, node, schema in (("", composed, Schema), ("evaluation.", composed.evaluation, EvaluationSchema)):
        known = {field.name for field in fields(schema)}
        for key in sorted(map(str, set(node) - known)):
            raise ConfigError(f"{prefix}{key}: there is no such key; {nearest(key, known)}")


def explain(error: BaseException, arguments: list[str]) -> str:
    """One or two lines for an error that Hydra raised while composing."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, OverrideParseException):
            return (
                f"{link.override}: cannot be read; write key=value, lists as key=[1,2], sweeps (-m) as key=1,2, "
                "values with other characters in two pairs of quotes, as key=\"'~/a b'\""
            )
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _missing_option(link)
        if isinstance(link, yaml.MarkedYAMLError):
            return _bad_yaml(link)
        if isinstance(link, UnicodeDecodeError):
            return f"--config-dir: a YAML file there is not UTF-8 text ({link.reason}); save it as UTF-8"
        if isinstance(link, InterpolationResolutionError):
            return f"{link.full_key}: {_first_line(link)}; name a key that there is, or write a value"
        if isinstance(link, GrammarParseError):
            return f"--config-dir: {_first_line(link.__cause__ or link)}; what begins with ${{ must end with }}"
    for link in chain:
        if isinstance(link, ValidationError):
            return f"{_typed(str(link.full_key), arguments)}: {_kind_wanted(_first_line(link))}"
        if isinstance(link, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(link, arguments)
    return _in_our_words(_first_line(error), arguments)


def _in_our_words(message: str, arguments: list[str]) -> str:
    if message.startswith("Ambiguous value for argument"):
        typed = message.partition("'")[2].rstrip("'")
        return f"{typed}: several values are a sweep, which needs -m; a list is written key=[a,b]"
    if message.startswith("Config group override"):
        typed = next((a for a in arguments if (conf_dir() / a.lstrip("+").partition("=")[0]).is_dir()), "a group")
        return f"{typed}: must be the name of an option; --help lists them"
    if "@experiment." in message:  # its defaults are of the group that it stands in, for want of its first line
        return f"{_typed('experiment', arguments)}: {NO_PRESET}"
    return message


def _kind_wanted(message: str) -> str:
    """OmegaConf's words on a value of another type, in ours."""
    kinds = {"converted to Integer": "a whole number", "converted to Float": "a number", "valid bool": "true or false"}
    return next((f"must be {kind}" for words, kind in kinds.items() if words in message), message)


def _bad_yaml(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}: " if mark is not None else ""
    return f"{where}cannot be read as YAML ({error.problem or error.context}); mend the file"


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = [str(known) for known in (error.options or ())]
    if _first_line(error).startswith("In 'launcher/auto'"):
        return f"DISTSGD_LAUNCHER={option}: there is no such launcher; --help lists them"
    if not group or not options:
        return _first_line(error)
    return f"{group}={option}: there is no such {group}; {nearest(option, options)} (--config-dir DIR adds your own)"


def _unknown_key(error: OmegaConfBaseException, arguments: list[str]) -> str:
    parent = error.parent_node
    known = [str(key) for key in parent if key != "hydra"] if isinstance(parent, DictConfig) else []
    key = str(error.full_key or error.key)
    if key.partition(".")[0] == "experiment":
        return f"{_typed('experiment', arguments)}: {NO_PRESET}"
    group = key.partition(".")[0]
    option = _typed(group, arguments)
    of = f" of {option}" if group not in (key, option) else ""
    return f"{key}: there is no such key{of}; {nearest(key.rpartition('.')[2], known)}"


def _typed(key: str, arguments: list[str]) -> str:
    """What was typed for a key, "key=value"; the key where nothing was."""
    return next((each for each in arguments if each.lstrip("+").startswith(f"{key}=")), key)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
