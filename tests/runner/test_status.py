"""`experiments status`, `logs`, `wait` and `cancel` on folders made by hand: what they print, their exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_run
from typer.testing import CliRunner, Result

from runner.commands.status import TAIL_BYTES, tail
from runner.experiments import app
from runner.report.formats import Cell, Column, Table
from runner.report.screen import screen

ROOT = Path(__file__).parents[2]
FULL = "rank 1: OSError: full"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in every state, of three nodes' sizes."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    write_run(results, identity="aa0000000001", seed=0)
    running = write_run(results, identity="ab0000000002", seed=1, status="running")
    rows(running, 300, epochs=2.5)
    failed = write_run(
        results, identity="bb0000000003", nodes=8, status="failed", reason="rank 1: OSError: full\nTrace"
    )
    (failed / "log").mkdir()
    for rank in (0, 1):
        (failed / f"log/rank-0000{rank}.log").write_text(f"I am {rank}\nlast words\n")
    report = {"rank": 1, "time": 1.0, "error": "OSError: full", "traceback": "Traceback\nOSError: full"}
    (failed / "log/rank-00001.error.json").write_text(json.dumps(report))
    write_run(results, identity="cc0000000004", algorithm="allreduce", status="interrupted", reason="stopped by SIGINT")
    for folder in (results / "runs").glob("*/*"):
        more = "\nalgorithm.overlap=1" if folder == running else ""
        (folder / "overrides.txt").write_text(f"epochs=10\nseed=9{more}\n")
    return results


def rows(folder: Path, count: int, epochs: float, clock: str = "wall") -> None:
    """What its rank 0 has written so far, the last line not complete."""
    (folder / "evaluations.jsonl").unlink()
    with (folder / "rank-00000.jsonl").open("w") as file:
        for step in range(1, count + 1):
            row = {"clock": clock, "time_s": step / 10, "worker": 0, "step": step, "epoch": epochs * step / count}
            file.write(json.dumps(row) + "\n")
        file.write('{"clock": "wa')


def experiments(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def status(*arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(experiments("status", "--json", *arguments).stdout)["rows"]
    return rows


def test_a_line_a_run_the_reasons_and_a_summary(results: Path) -> None:
    result = experiments("status")
    assert result.exit_code == 1  # one has failed
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["status", "identity", "run", "epoch", "time", "left", "top-1", "(%)"]
    told = {line.split()[0]: line for line in lines[2:6]}
    running = r"running +ab0000000002 +sgp 4 nodes seed 1 algorithm\.overlap=1 +2\.5/10 +30 s +90 s +–$"
    assert re.match(running, told["running"])
    assert re.search(r"finished .* 10/10 .* 95\.00$", told["finished"])
    assert lines[7:] == [
        "cc0000000004 interrupted: stopped by SIGINT",
        "bb0000000003 failed: rank 1: OSError: full",
        "    results/runs/sgp/bb0000000003/log/rank-00001.log",
        "",
        "1 running, 1 failed, 1 interrupted, 1 finished",
    ]
    assert experiments("status", "--where", "status=running").exit_code == 0


def test_json_has_raw_numbers_and_paths(results: Path) -> None:
    [row] = status("ab")
    assert {key: row[key] for key in ("status", "epoch", "epochs", "time_s", "left_s", "restarts", "job")} == {
        "status": "running",
        "epoch": 2.5,
        "epochs": 10,
        "time_s": 30.0,
        "left_s": 90.0,
        "restarts": 0,
        "job": None,
    }
    [row] = status("bb0")
    assert (row["reason"], row["log"]) == ("rank 1: OSError: full", "results/runs/sgp/bb0000000003/log/rank-00001.log")


def test_the_pace_of_a_virtual_clock_is_not_ours(results: Path) -> None:
    folder = write_run(results, identity="dd0000000005", status="running", clock="virtual")
    rows(folder, 300, epochs=5)
    rows_ = [line.replace('"wall"', '"virtual"') for line in (folder / "rank-00000.jsonl").read_text().splitlines()]
    (folder / "rank-00000.jsonl").write_text("\n".join(rows_))
    [row] = status("dd")
    assert row["clock"] == "virtual"
    assert row["left_s"] > 1e6  # half way, and begun in February
    assert "30 s virtual" in experiments("status", "dd").stdout


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (["sgp"], ["aa", "ab", "bb"]),
        (["allreduce", "aa"], ["aa", "cc"]),
        (["results/runs/sgp/bb0000000003"], ["bb"]),
        (["bb0000000003", "bb"], ["bb"]),
        (["--where", "nodes=8"], ["bb"]),
    ],
)
def test_runs_are_named_by_experiment_identity_or_folder(results: Path, which: list[str], found: list[str]) -> None:
    assert sorted(row["identity"][:2] for row in status(*which)) == found


@pytest.mark.parametrize(
    ("arguments", "exit_status", "message"),
    [
        (["status", "a"], 2, "a: is the beginning of 2 identities, type more of it: aa0000000001, ab0000000002"),
        (["status", "spg"], 2, "no experiment, identity or folder 'spg'; did you mean sgp? known: allreduce, sgp"),
        (["status", "aa0000000007"], 2, "did you mean aa0000000001"),
        (["status", "--where", "nodes=5"], 1, "nodes is 4, 8"),
        (["logs", "sgp"], 2, "sgp: means 3 runs, name one of them: results/runs/sgp/aa0000000001, "),
        (
            ["logs", "bb", "--rank", "7"],
            2,
            "--rank 7: has no log in results/runs/sgp/bb0000000003/log; there are ranks 0",
        ),
        (["logs", "bb", "--submission"], 2, "is no job of SLURM"),
        (["cancel"], 2, "say which runs, or --all"),
        (["cancel", "--all"], 1, "none of these runs has a job to cancel"),
        (["cancel", "ab"], 1, "press Ctrl-C where it was started): results/runs/sgp/ab0000000002"),
        (["resubmit", "aa"], 1, "none of these runs has failed or was interrupted"),
        (["resubmit"], 2, "Run 2 runs again? There is nobody to ask; add --yes"),
    ],
)
def test_wrong_input_ends_in_a_message(results: Path, arguments: list[str], exit_status: int, message: str) -> None:
    result = experiments(*arguments)
    assert message in result.stderr
    assert result.exit_code == exit_status
    assert "Traceback" not in result.stderr


def test_the_log_is_that_of_the_rank_that_failed_first(results: Path) -> None:
    result = experiments("logs", "bb")
    assert result.stdout == "I am 1\nlast words\nTraceback\nOSError: full\n"
    assert result.stderr.splitlines() == [
        "==> results/runs/sgp/bb0000000003/log/rank-00001.log <==",
        "==> failed (rank 1: OSError: full) <==",
    ]
    assert experiments("logs", "bb", "--rank", "0", "-n", "1").stdout == "last words\n"
    (results / "runs/sgp/bb0000000003/log/rank-00001.log").write_text("Traceback\nOSError: full\n")
    assert experiments("logs", "bb").stdout == "Traceback\nOSError: full\n"  # once is enough
    assert "it is not there yet" in experiments("logs", "ab").stderr


def test_waiting_for_what_is_over(results: Path) -> None:
    done = experiments("wait", "aa")
    assert done.exit_code == 0
    assert re.fullmatch(
        r"[\d:]{8}  aa0000000001  sgp 4 nodes seed 0: finished, top-1 95\.00 %\n1 finished\n", done.stdout
    )
    failed = experiments("wait", "aa", "bb")
    assert failed.exit_code == 1
    assert f"sgp 8 nodes seed 0: failed: {FULL}\n" in failed.stdout
    late = experiments("wait", "--timeout", "0")
    assert late.exit_code == 124
    assert late.stdout.endswith("after 0 s: 1 running, 1 failed, 1 interrupted, 1 finished\n")


def test_the_tail_of_a_file_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert tail(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in tail(path)] == [1, 2]
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(2000)) + "[1]\nnonsense\n")
    assert [row["step"] for row in tail(path)][-1] == 1999
    assert len(tail(path)) < TAIL_BYTES / 10


def test_a_narrow_terminal_leaves_out_and_cuts() -> None:
    columns = [Column("a", "a"), Column("b", "bb", "count", spare=1), Column("c", "c", wraps=True)]
    table = Table("", columns, [[Cell("failed"), Cell(12), Cell("c" * 40)]], ["a note"])
    assert screen(table).splitlines() == ["a       bb  c", "─" * 52, f"failed  12  {'c' * 40}", "", "a note"]
    assert screen(table, 40).splitlines()[2] == f"failed  12  {'c' * 27}…"
    narrow = screen(table, 30, colour=True).splitlines()
    assert narrow[2] == f"\x1b[31mfailed\x1b[0m  {'c' * 21}…"
    assert narrow[-1].startswith("No room here for: bb.")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["status"], {"torch", "pandas", "rich"}),
        (["logs", "aa"], {"torch", "pandas", "rich"}),
        (["wait", "aa"], {"torch", "pandas", "rich"}),
        (["cancel", "aa"], {"torch", "pandas", "rich"}),
    ],
)
def test_what_is_imported(results: Path, arguments: list[str], absent: set[str]) -> None:
    code = f"""
import sys
from runner.experiments import app
try:
    app({arguments!r})
except SystemExit:
    pass
found = {absent!r} & set(sys.modules)
assert not found, found
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=results.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
