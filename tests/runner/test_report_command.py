"""The command `experiments` as people type it: output, exit status, messages, and what it may import."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import write_run
from typer.testing import CliRunner, Result

from runner.experiments import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for algorithm in ("allreduce", "sgp"):
        for seed in (0, 1):
            write_run(tmp_path, identity=f"{algorithm}{seed}", algorithm=algorithm, seed=seed, epochs=2)
    write_run(tmp_path, identity="failed", seed=2, status="failed", reason="RuntimeError: worker 3 died")
    broken = write_run(tmp_path, identity="broken", seed=3)
    (broken / "summary.json").write_text("{")
    return tmp_path


def experiments(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_alone_it_prints_help() -> None:
    result = experiments()
    assert result.exit_code == 0
    assert re.search(r"list .*\n.*table .*\n.*plot .*\n.*curves ", result.stdout)


def test_list(results: Path) -> None:
    result = experiments("list", "--results-dir", results)
    assert result.exit_code == 0
    assert result.stdout.count("finished") == 4
    assert "RuntimeError: worker 3 died" in result.stdout
    assert "broken" not in result.stdout
    assert str(results / "runs/sgp/broken/summary.json") in result.stderr
    failed = experiments("list", "sgp", "--status", "failed", "--format", "json", "--results-dir", results)
    assert [row["identity"] for row in json.loads(failed.stdout)["rows"]] == ["failed"]


def test_list_says_what_tells_runs_apart(tmp_path: Path) -> None:
    for identity, settings in (("aa", "model.hidden=[16]"), ("bb", "failures.plan=[{worker:3,dies_at_s:5}]")):
        write_run(tmp_path, identity=identity, settings=settings)
    write_run(tmp_path, identity="cc", status="running")
    listed = experiments("list", "--format", "json", "--results-dir", tmp_path)
    rows = {row["identity"]: row["settings"] for row in json.loads(listed.stdout)["rows"]}
    assert rows == {"aa": "model.hidden=[16]", "bb": "failures.plan=[{worker:3,dies_at_s:5}]", "cc": None}
    same = experiments("list", "--where", "identity=aa", "--format", "json", "--results-dir", tmp_path)
    assert "settings" not in json.loads(same.stdout)["rows"][0]


def test_table(results: Path) -> None:
    result = experiments("table", "--results-dir", results)
    assert result.exit_code == 0
    assert "95.50 ± 0.71" in result.stdout
    assert "Left out: 1 corrupt, 1 failed." in result.stdout
    raw = experiments("table", "--format", "csv", "--where", "seed=0", "--by", "algorithm", "--results-dir", results)
    assert [row["algorithm"] for row in csv.DictReader(io.StringIO(raw.stdout))] == ["allreduce", "sgp"]
    assert "Left out" in raw.stderr


def test_what_is_skipped_is_named_also_where_nothing_else_is_left(results: Path) -> None:
    none_left = experiments("table", "--where", "nodes=5", "--results-dir", results)
    assert none_left.exit_code == 1
    assert f"skipped {results / 'runs/sgp/broken/summary.json'}" in none_left.stderr


def test_the_format_follows_from_the_file(results: Path) -> None:
    path = results / "new/table.tex"
    result = experiments("table", "--rows", "algorithm", "--columns", "nodes", "-o", path, "--results-dir", results)
    assert result.stdout.strip() == str(path)
    assert r"\toprule" in path.read_text()
    refused = experiments("table", "-o", results / "table.docx", "--results-dir", results)
    assert refused.exit_code == 2
    assert ".md" in refused.stderr


def test_plot_prints_the_path_of_the_figure(results: Path) -> None:
    result = experiments("plot", "sgp", "--format", "svg", "--results-dir", results)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()) == results / "figures/sgp-top1.svg"
    assert (results / "figures/sgp-top1.svg").exists()
    named = results / "scaling.png"
    assert experiments("plot", "--x", "nodes", "-o", named, "--results-dir", results).exit_code == 0
    assert named.exists()


def test_curves(results: Path) -> None:
    result = experiments("curves", "--results-dir", results)
    assert len(result.stdout.splitlines()) == 1 + 4 * 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["table", "--values", "top1_mean"], 2, "did you mean top1_mean_model"),
        (["table", "--by", "node"], 2, "did you mean nodes"),
        (["table", "--rows", "nodes"], 2, "--rows and --columns go together"),
        (["table", "--by", "nodes", "--rows", "seed", "--columns", "nodes"], 2, "one or the other"),
        (["table", "--where", "nodes=5"], 1, "nodes is 4"),
        (["table", "spg"], 2, "did you mean sgp"),
        (["list", "--status", "fail"], 2, "did you mean failed"),
        (["list", "--status", "queued"], 1, "no run is queued"),
        (["plot", "--y", "lss"], 2, "'top1', 'error', 'loss'"),
        (["plot", "-o", "a.gif"], 2, ".png, .pdf, .svg"),
        (["plot", "-o", "a.png", "--format", "pdf"], 2, "disagree"),
        (["plot", "--y", "time_per_iteration", "--x", "time"], 2, "--x nodes"),
        (["table", "-o", "/dev/null/x.md"], 1, "/dev/null"),
    ],
)
def test_wrong_input_ends_in_a_message_and_a_status(
    results: Path, arguments: list[str], status: int, message: str
) -> None:
    result = experiments(*arguments, "--results-dir", results)
    assert result.exit_code == status
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["list", "table", "plot", "curves"])
def test_no_runs_says_what_to_type(tmp_path: Path, command: str) -> None:
    result = experiments(command, "--results-dir", tmp_path)
    assert result.exit_code == 1
    assert "run-experiment algorithm=sgp" in result.stderr


def test_nothing_finished_says_where_to_look(tmp_path: Path) -> None:
    write_run(tmp_path, identity="aa", status="running")
    result = experiments("table", "--results-dir", tmp_path)
    assert result.exit_code == 1
    assert "experiments list" in result.stderr


def test_shell_completion_knows_the_experiments(results: Path) -> None:
    environment = os.environ | {
        "_EXPERIMENTS_COMPLETE": "complete_bash",
        "COMP_WORDS": f"experiments list --results-dir {results} s",
        "COMP_CWORD": "4",
    }
    code = "from runner.experiments import app; app(prog_name='experiments')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["sgp"]


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"torch", "pandas", "matplotlib", "numpy", "rich", "hydra"}),
        (["list"], {"torch", "pandas", "matplotlib", "hydra"}),
        (["table"], {"torch", "matplotlib", "hydra"}),
        (["plot"], {"torch", "matplotlib.pyplot", "hydra"}),
    ],
)
def test_what_is_imported(results: Path, arguments: list[str], absent: set[str]) -> None:
    code = f"""
import sys
from runner.experiments import app
try:
    app({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
found = {absent!r} & set(sys.modules)
assert not found, found
"""
    (results / "results").symlink_to(results)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=results, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
