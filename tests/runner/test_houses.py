"""The layout of the house: what may import what, what loads torch, and what every method brings along."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.build import build, locate
from runner.identity import GROUPS, VIRTUAL_GROUPS

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "algorithms": {"torch"},
    "models": {"torch", "torchvision"},
    "runner": {"algorithms", "models"},
    "scripts": {"runner", "algorithms", "models"},
}
FLOORS = set(MAY_IMPORT) | {"tests", "harness"}
FOUNDATIONS = {"__init__", "worker", "topology", "topologies", "stepwise", "blocks"}  # which methods stand on
METHODS = sorted({path.stem for path in (ROOT / "algorithms").glob("*.py")} - FOUNDATIONS)
METHOD_FILES = sorted((ROOT / "conf/algorithm").glob("*.yaml"))
OPTIONS = sorted(path for group in GROUPS for path in (ROOT / "conf" / group).glob("*.yaml"))


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what a file stands on"
            names.add(str(node.module).partition(".")[0])
    return names - sys.stdlib_module_names - {"__future__"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_down_only(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        upward = imported(path) & FLOORS - MAY_IMPORT[folder] - {folder}
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}"
        if folder in {"algorithms", "models"}:
            foreign = imported(path) - MAY_IMPORT[folder] - {folder}
            assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_commands_and_reports_load_no_torch():
    def found(part: str) -> list[Path]:
        return sorted((ROOT / "runner" / part).glob("[a-z]*.py"))

    modules = [
        *("runner.main", "runner.experiments", "runner.config", "runner.identity", "runner.results", "runner.build"),
        *("runner.complaints", "runner.graphs", "runner.schedules", "runner.launch", "runner.launchers.local"),
        *(
            "runner.composing",
            "runner.sweeps",
            "runner.launchers.slurm",
            "runner.launchers.sbatch",
            "runner.launchers.snapshot",
        ),
        *("runner.jobs", "runner.launchers.queue", "runner.launchers.verdict", "runner.launchers.failures"),
        *(f"runner.{part}.{path.stem}" for part in ("report", "commands") for path in found(part)),
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} loads torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_names_its_paper(method):
    docstring = ast.get_docstring(ast.parse((ROOT / "algorithms" / f"{method}.py").read_text()))
    assert docstring
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", docstring)


def read(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def settings_of(node: dict[str, Any]) -> dict[str, Any]:
    """The method's own, without what the runner reads."""
    return {key: value for key, value in node.items() if key not in {"worker", "budget", "lr_per", "defaults"}}


def leaves_open(node: dict[str, Any]) -> set[str]:
    """Settings that a node, or one inside it, does not name."""
    target = locate(node["_target_"], "algorithm")
    unnamed = {f"{target.__name__}.{field.name}" for field in dataclasses.fields(target) if field.name not in node}
    return unnamed.union(*(leaves_open(inner) for inner in node.values() if isinstance(inner, dict)))


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_a_method_and_its_file_agree(path):
    node = read(path)
    method = locate(node["_target_"], "algorithm")
    assert method.__module__.partition(".")[0] == "algorithms"
    assert method.topology in {"none", "column_stochastic", "doubly_stochastic", "bipartite"}
    assert inspect.isasyncgenfunction(method.run)
    assert node["worker"] in {"node", "gpu"}
    assert ("budget" in node) == (not method.synchronous)
    if method.__module__ == f"algorithms.{path.stem}":  # the method as its class has it, and not another one of it
        settings = settings_of(node)
        assert not leaves_open(settings)
        assert build(settings, "algorithm") == method()


def test_every_method_has_a_file():
    assert {locate(read(path)["_target_"], "algorithm").__module__ for path in METHOD_FILES} == {
        f"algorithms.{method}" for method in METHODS
    }


def test_every_group_of_the_tree_enters_a_runs_identity():
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert groups == {*GROUPS, *VIRTUAL_GROUPS, "launcher", "experiment"}


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_option_names_a_callable_and_its_settings(path):
    node = read(path)
    if node.get("_target_") is None:  # topology=none, sequences and phases; problem
        return
    known = set(inspect.signature(locate(node.pop("_target_"), path.parent.name)).parameters)
    assert set(settings_of(node)) - {"reference_lr"} <= known


def test_the_ledger_is_complete():
    command = [sys.executable, str(ROOT / "scripts/update_ledger.py"), "--check"]
    check = subprocess.run(command, capture_output=True, text=True)
    assert check.returncode == 0, f"run scripts/update_ledger.py: {check.stdout}{check.stderr}"
