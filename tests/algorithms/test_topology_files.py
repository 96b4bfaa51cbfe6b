"""The files in conf/topology: what they name exists, and they state the functions' own defaults."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from algorithms import topologies
from algorithms.topology import Topology

CONF = Path(__file__).parents[2] / "conf" / "topology"


def targets(node: Any) -> list[dict[str, Any]]:
    """Every node with a `_target_` in a file."""
    if isinstance(node, list):
        return [found for item in node for found in targets(item)]
    if not isinstance(node, dict):
        return []
    return [node] if node.get("_target_") else targets(list(node.values()))


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_configuration_files_name_functions_that_exist(path: Path) -> None:
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    nodes = targets(content)
    assert nodes or path.stem == "none"
    for node in nodes:
        module, _, function = node["_target_"].rpartition(".")
        options = {key: value for key, value in node.items() if key != "_target_"}
        graph = getattr(import_module(module), function)(8, **options)
        assert isinstance(graph, Topology)
        assert graph.size == 8


def test_every_generator_has_a_configuration_file_with_its_defaults() -> None:
    generators = {
        name: function
        for name, function in inspect.getmembers(topologies, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == topologies.__name__ and name != "sequence"
    }
    assert len(generators) == 11
    for name, function in generators.items():
        content = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
        parameters = list(inspect.signature(function).parameters.values())[1:]
        assert content == {
            "_target_": f"algorithms.topologies.{name}",
            **{parameter.name: parameter.default for parameter in parameters},
        }
