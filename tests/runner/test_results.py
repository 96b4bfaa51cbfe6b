"""The run's folder: appended to, replaced whole, moved aside, held by one launcher at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from harness import configure
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.build import ConfigError
from runner.identity import identity
from runner.results import (
    RowWriter,
    check_writable,
    deserted,
    lock,
    read_json,
    read_rows,
    run_folder,
    set_aside,
    status,
    write_json,
    write_state,
)

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
rows = st.lists(st.dictionaries(st.text(), values), max_size=8)


def write(path: Path, content: list[dict[str, Any]]) -> None:
    writer = RowWriter(path)
    for row in content:
        writer.write(row)
    writer.close()


@patient
@given(rows, rows)
def test_rows_are_appended_and_come_back(first, second):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, first)
        before = path.read_bytes()
        write(path, second)
        assert path.read_bytes().startswith(before)
        assert list(read_rows(path)) == first + second


@patient
@given(rows, st.data())
def test_a_file_cut_anywhere_gives_the_rows_that_are_whole(content, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, content)
        text = path.read_bytes()
        cut = data.draw(st.integers(0, len(text)))
        path.write_bytes(text[:cut])
        assert list(read_rows(path)) == content[: text[:cut].count(b"\n")]


def test_rows_can_be_followed_while_they_are_written(tmp_path):
    writer = RowWriter(tmp_path / "rows.jsonl", flush_s=0.0)
    for step in range(3):
        writer.write({"step": step})
        assert list(read_rows(tmp_path / "rows.jsonl")) == [{"step": k} for k in range(step + 1)]
    writer.close()


def test_json_is_replaced_whole_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"top1": 0.5})
    with path.open() as reader:  # someone who is reading the old one meanwhile
        write_json(path, {"top1": 0.75, "loss": None})
        assert json.load(reader) == {"top1": 0.5}
    assert read_json(path) == {"top1": 0.75, "loss": None}
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "\x00"])
def test_what_is_no_json_object_is_none(tmp_path, text):
    assert read_json(tmp_path / "missing.json") is None
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") is None


def test_status_is_the_states_until_the_summary_stands(tmp_path):
    assert status(tmp_path) is None
    for word in ("queued", "running", "failed", "interrupted"):
        write_state(tmp_path, word, reason="because")
        assert status(tmp_path) == word
    state = read_json(tmp_path / "state.json")
    assert state is not None
    assert set(state) == {"status", "reason", "updated"}
    write_json(tmp_path / "summary.json", {})
    assert status(tmp_path) == "finished"


def test_set_aside_loses_nothing(tmp_path):
    for attempt in range(3):
        folder = tmp_path / "sgp" / "abc"
        (folder / "log").mkdir(parents=True)
        (folder / "log" / "rank.log").write_text(f"attempt {attempt}")
        set_aside(folder)
        assert not folder.exists()
    kept = sorted((tmp_path / "sgp" / ".earlier").glob("*/log/rank.log"))
    assert [path.parents[1].name for path in kept] == ["abc-1", "abc-2", "abc-3"]
    assert [path.read_text() for path in kept] == [f"attempt {attempt}" for attempt in range(3)]


HOLD = """
import sys, time
from pathlib import Path
from runner.results import lock
with lock(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that takes the lock, says whether it got it, and keeps it until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_launcher_holds_a_run(tmp_path):
    folder = tmp_path / "sgp" / "abc"
    with holder(folder) as other:
        assert said(other) == "True"
        with lock(folder) as mine:
            assert not mine
        with lock(folder) as mine:  # being refused has not broken the other's hold
            assert not mine
        with lock(tmp_path / "sgp" / "another") as mine:
            assert mine
        other.communicate()
    with lock(folder) as mine:
        assert mine
        with holder(folder) as other:
            assert said(other) == "False"
            other.communicate()
    assert list(folder.parent.iterdir()) == []


def test_a_dead_holder_holds_nothing(tmp_path):
    with holder(tmp_path / "abc") as other:
        assert said(other) == "True"
        other.send_signal(signal.SIGKILL)
        other.communicate()
    with lock(tmp_path / "abc") as mine:
        assert mine


CONTEND = """
import sys
from pathlib import Path
from runner.results import lock
folder, times = Path(sys.argv[1]), 0
while times < 200:
    with lock(folder) as mine:
        if mine:
            (folder.parent / "mark").touch(exist_ok=False)  # fails if another holder has put it there
            (folder.parent / "mark").unlink()
            times += 1
"""


def test_two_never_hold_it_at_once(tmp_path):
    """The lock's file comes and goes under contention."""
    command = [sys.executable, "-c", CONTEND, str(tmp_path / "abc")]
    contenders = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in contenders] == ["", "", ""]
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_deserted_when_its_launcher_was_killed(tmp_path):
    folder = tmp_path / "abc"
    assert not deserted(folder)  # nobody was ever there
    with holder(folder) as other:
        assert said(other) == "True"
        assert not deserted(folder)
        other.kill()
    assert deserted(folder)
    with lock(folder) as mine:
        assert mine
        assert not deserted(folder)
    assert not deserted(folder)  # its launcher has left in good order


ASK = """
import sys
from pathlib import Path
from runner.results import deserted
print("asking", flush=True)
while True:
    deserted(Path(sys.argv[1]))
"""


def test_asking_whether_a_run_is_deserted_keeps_no_launcher_out(tmp_path):
    folder = tmp_path / "abc"
    with subprocess.Popen([sys.executable, "-c", ASK, str(folder)], stdout=subprocess.PIPE, text=True) as asker:
        assert said(asker) == "asking"
        for _ in range(300):
            (tmp_path / ".abc.lock").touch()  # as a killed launcher leaves it
            with lock(folder) as mine:
                assert mine
        asker.kill()


def test_an_error_inside_releases_the_lock(tmp_path):
    with pytest.raises(RuntimeError, match="inside"), lock(tmp_path / "abc"):
        raise RuntimeError("inside")
    with lock(tmp_path / "abc") as mine:
        assert mine


def test_results_dir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"results_dir=.*file: cannot be written \(.+\); choose another"):
        check_writable(str(tmp_path / "file"))
    check_writable(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder" / "runs").iterdir()) == []


def test_a_run_lives_under_its_experiment_or_its_algorithm(tmp_path, monkeypatch):
    plain = configure("nodes=2", results_dir=tmp_path)
    assert run_folder(plain) == tmp_path / "runs" / "allreduce" / identity(plain)
    named = configure("nodes=2", "experiment=demo", results_dir=tmp_path)
    assert run_folder(named) == tmp_path / "runs" / "demo" / identity(named)
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = configure("nodes=2", results_dir="'~/results'")
    assert run_folder(at_home).is_relative_to(tmp_path / "results")
