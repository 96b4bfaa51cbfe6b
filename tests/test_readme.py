"""What the README shows is what happens: its example algorithm runs from outside the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str, after: str) -> str:
    """The first code block of a language after a heading."""
    found = re.search(rf"```{language}\n(.*?)```", README[README.index(after) :], re.DOTALL)
    assert found, after
    return found[1]


@pytest.mark.multiproc
def test_the_example_algorithm_runs_from_outside_the_checkout(tmp_path: Path) -> None:
    code = block("python", "## Add an algorithm")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "periodic_averaging.py").write_text(code)
    (tmp_path / "conf" / "algorithm").mkdir(parents=True)
    (tmp_path / "conf" / "algorithm" / "periodic_averaging.yaml").write_text(block("yaml", "## Add an algorithm"))
    typed = shlex.split(block("", "Then, from that folder"))
    command = [str(Path(sys.executable).with_name(typed[0])), *typed[1:], "device=cpu", "epochs=2"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [summary] = (tmp_path / "results" / "runs" / "periodic_averaging").glob("*/summary.json")
    result = json.loads(summary.read_text())
    assert result["algorithm"] == "periodic_averaging"
    assert result["top1_mean_model"] > 0.5


def test_every_option_that_the_readme_names_exists() -> None:
    conf = Path(__file__).parent.parent / "conf"
    for group, option in re.findall(r"\b(algorithm|topology|dataset|model|launcher)=(\w+)", README):
        for name in option.split(","):
            of_users = name in ("periodic_averaging", "mycluster")
            assert of_users or (conf / group / f"{name}.yaml").exists(), f"{group}={name}"
