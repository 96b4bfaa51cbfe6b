"""What SLURM runs is what the local launcher runs, and stands in the same table."""

from __future__ import annotations

import json
from pathlib import Path

from commands.commandline import content, type_in
from continued import numbers

PATIENCE_S = "300"
RUN = ("nodes=4", "gpus_per_node=2", "device=cpu", "model.hidden=[16]", "batch_size=8", "epochs=2")
METHODS = {
    "sgp": ("algorithm=sgp", "algorithm.overlap=1", "algorithm.merge=exact", "algorithm.worker=gpu"),
    "allreduce": ("algorithm=allreduce",),
    "easgd": ("algorithm=easgd",),
}


def the_only(folder: Path, method: str) -> dict[str, Path]:
    """The runs of a method, by launcher."""
    found = [path.parent for path in folder.glob(f"results/runs/{method}/*/summary.json")]
    return {content(run / "summary.json")["launcher"]: run for run in found}


def test_four_nodes_of_two_tasks(slurm: Path) -> None:
    for method in METHODS.values():
        done = type_in(*RUN, *method, "launcher=slurm", "launcher.mem=6G", "launcher.time=10", cwd=slurm)
        assert done.status == 0, done.stderr
    waited = type_in("wait", "--timeout", PATIENCE_S, cwd=slurm, command="experiments")
    assert waited.status == 0, waited.stdout + waited.stderr
    for method in METHODS.values():
        assert type_in(*RUN, *method, "launcher=local", cwd=slurm).status == 0

    both = {name: the_only(slurm, name) for name in METHODS}
    assert all(sorted(runs) == ["local", "slurm"] for runs in both.values())
    assert numbers(both["sgp"]["slurm"]) == numbers(both["sgp"]["local"])
    assert len(numbers(both["easgd"]["slurm"])) == 9  # eight processes, and the evaluations
    for runs in both.values():
        mine, theirs = (content(runs[launcher] / "summary.json") for launcher in ("slurm", "local"))
        assert mine["bytes_sent"] == theirs["bytes_sent"] or mine["algorithm"] == "easgd"  # whose workers share work
        assert abs(mine["loss_mean_model"] - theirs["loss_mean_model"]) < 0.2

    table = type_in("table", "--by", "launcher,algorithm", "--format", "json", cwd=slurm, command="experiments")
    rows = {(row["launcher"], row["algorithm"]) for row in json.loads(table.stdout)["rows"]}
    assert rows == {(launcher, name) for launcher in ("local", "slurm") for name in METHODS}
