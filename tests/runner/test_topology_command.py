"""`experiments topology`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from runner.config import conf_dir
from runner.experiments import app


def ask(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["topology", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", sorted(p.stem for p in (conf_dir() / "topology").glob("*.yaml") if p.stem != "none"))
def test_every_topology_is_described(name: str) -> None:
    status, text = ask(name, "--workers", "8")
    assert status == 0, text
    assert "8 workers" in text
    assert "spectral gap" in text


def test_settings_can_be_given() -> None:
    assert "not symmetric" in ask("ring", "-n", "4", "--option", "directed=true")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rung"], ["rung", "ring"]),
        (["hypercube", "-n", "6"], ["hypercube", "6", "use 4 or 8"]),
        (["ring", "--option", "directd=true"], ["directd", "directed"]),
        (["torus", "--option", "rows=abc"], ["rows", "abc", "whole number"]),
    ],
)
def test_mistakes_are_explained(arguments: list[str], words: list[str]) -> None:
    status, text = ask(*arguments)
    assert status == 2
    assert "Traceback" not in text
    for word in words:
        assert word in text
