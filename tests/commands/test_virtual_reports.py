"""The second half of `make demo`, small: virtual runs end in the same table and figures as real ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import Done, content, rows, runs, type_in

pytestmark = pytest.mark.multiproc

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text()
LINES = re.findall(r"@\$\(BIN\)/(run-experiment|experiments) (.*demo_virtual.*)", MAKEFILE)
SMALLER = ("nodes=4", "gpus_per_node=2", "epochs=2", "model.hidden=[16]", "batch_size=8")
NOTE = "Time as for ResNet-50 on V100 on cluster 10gbe, accuracy of mlp on digits."


def test_the_race_of_the_demo(tmp_path: Path, here: Callable[..., Done]) -> None:
    said = []
    for command, typed in LINES:
        arguments = typed.replace("nodes=32", "nodes=4").split()
        if command == "run-experiment":
            smaller = [a for a in arguments if not a.startswith("nodes=")]
            assert here(*smaller, *SMALLER).status == 0
        else:
            done = type_in(*arguments, cwd=tmp_path, command=command)
            assert (done.status, done.stderr) == (0, "")
            said.append(done.stdout)
    table, *pictures = said
    assert NOTE in table
    assert re.findall(r"^(allreduce|dpsgd|sgp(?: \(overlap=1\))?)\s+4 ", table, re.MULTILINE) == [
        *("allreduce", "dpsgd", "sgp"),
        "sgp (overlap=1)",
    ]
    assert len(pictures) == 2
    for path in pictures:
        assert (tmp_path / path.strip()).read_bytes().startswith(b"\x89PNG")
    assert len(runs(tmp_path)) == 4
    for run in runs(tmp_path):
        summary, last = content(run / "summary.json"), rows(run / "evaluations.jsonl")[-1]
        assert (summary["clock"], summary["cluster"]) == ("virtual", "10gbe")
        assert (last["clock"], last["time_s"]) == ("virtual", pytest.approx(summary["training_time_s"], rel=0.05))


def test_runs_for_the_time_only(tmp_path: Path, here: Callable[..., Done]) -> None:
    timing = ("problem=none", "cost=resnet50_v100", "launcher=simulated", "epochs=1", "problem.train_samples=100000")
    done = here("-m", "algorithm=allreduce,sgp", "nodes=8,64", *timing)
    assert done.status == 0
    assert "virtual clock, cluster=10gbe: time as for ResNet-50 on V100, no accuracy" in done.stdout
    table = type_in("table", cwd=tmp_path, command="experiments")
    assert "Time as for ResNet-50 on V100 on cluster 10gbe, no accuracy." in table.stdout
    assert "top-1" not in table.stdout
    assert type_in("plot", "--x", "nodes", cwd=tmp_path, command="experiments").status == 0
    refused = type_in("plot", cwd=tmp_path, command="experiments")
    assert refused.status == 1
    assert "experiments plot --x nodes" in refused.stderr
    as_csv = type_in("table", "--format", "csv", cwd=tmp_path, command="experiments")
    assert "no accuracy" in as_csv.stderr
