"""Finding, reading and filtering runs: nothing that lies in a results folder may stop a report."""

import json
import math
from pathlib import Path

import pytest
from fake_runs import write_run

from runner.report.runs import Run, filter_runs, find_runs, read_evaluations, unknown_name


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_run(tmp_path, identity="aa", algorithm="allreduce", nodes=4)
    write_run(tmp_path, identity="bb", algorithm="sgp", nodes=8, variant="overlap=1,merge=exact")
    write_run(tmp_path, identity="cc", algorithm="sgp", nodes=4, experiment="sgp/table1")
    write_run(tmp_path, identity="dd", algorithm="sgp", nodes=4, status="failed", reason="ValueError: no\nTraceback")
    return tmp_path


def identities(runs: list[Run]) -> list[str]:
    return sorted(run.identity for run in runs)


def test_runs_are_found_at_any_depth(results: Path) -> None:
    runs = find_runs(results)
    assert identities(runs) == ["aa", "bb", "cc", "dd"]
    assert {run.identity: run.status for run in runs} == dict.fromkeys(["aa", "bb", "cc"], "finished") | {
        "dd": "failed"
    }
    assert identities(find_runs(results, "sgp")) == ["bb", "cc", "dd"]
    assert identities(find_runs(results, "sgp/table1")) == ["cc"]


def test_an_unfinished_run_is_described_by_its_configuration(results: Path) -> None:
    (run,) = find_runs(results, where=["status=failed"])
    assert run.summary is None
    assert [run.values[key] for key in ("algorithm", "nodes", "workers", "model")] == ["sgp", 4, 4, "mlp"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["nodes=4"], ["aa", "cc", "dd"]),
        (["nodes=4.0"], ["aa", "cc", "dd"]),
        (["nodes=8,4", "algorithm=sgp"], ["bb", "cc", "dd"]),
        (["experiment=null", "status=finished"], ["aa", "bb"]),
        (["variant=overlap=1,merge=exact"], ["bb"]),
        (["method=sgp (overlap=1,merge=exact)"], ["bb"]),
    ],
)
def test_filters_compare_by_type(results: Path, where: list[str], expected: list[str]) -> None:
    assert identities(find_runs(results, where=where)) == expected


def test_text_that_looks_like_a_number_is_text(tmp_path: Path) -> None:
    write_run(tmp_path, identity="aa", dataset="4")
    assert identities(find_runs(tmp_path, where=["dataset=4"])) == ["aa"]
    with pytest.raises(LookupError, match=r"no run with dataset=4\.0; dataset is 4"):
        find_runs(tmp_path, where=["dataset=4.0"])


def test_a_key_with_dots_is_one_of_the_configuration(tmp_path: Path) -> None:
    for identity, overlap, hidden in (("aa", 0, [16]), ("bb", 1, [16, 8])):
        config = write_run(tmp_path, identity=identity) / "config.yaml"
        content = json.loads(config.read_text())
        content["algorithm"]["overlap"], content["model"]["hidden"] = overlap, hidden
        config.write_text(json.dumps(content))
    write_run(tmp_path, identity="cc")  # its algorithm has no such setting
    for identity, text in (
        ("dd", "{"),
        ("ee", "a: &x [*x]"),
        ("ff", "[" * 5000),
        ("gg", "7"),
        ("hh", "? &x 2026-01-01\n: 1\n"),
    ):
        (write_run(tmp_path, identity=identity) / "config.yaml").write_text(text)
    runs = find_runs(tmp_path)
    chosen = filter_runs(runs, ["algorithm.overlap=1"])
    assert [run.identity for run in chosen if run.readable] == ["bb"]
    problems = {run.identity: run.problem for run in chosen if not run.readable}
    assert problems.keys() == {"dd", "ee", "ff", "gg"}
    assert all("config.yaml: cannot be read" in (problem or "") for problem in problems.values())
    runs = [run for run in runs if run.identity < "dd"]
    assert identities(filter_runs(runs, ["algorithm.overlap=0,1"])) == ["aa", "bb"]
    assert identities(filter_runs(runs, ["model.hidden=[16, 8]"])) == ["bb"]
    with pytest.raises(ValueError, match=r"--where: there is no 'algorithm.overlp'; did you mean algorithm.overlap"):
        filter_runs(runs, ["algorithm.overlp=1"])
    with pytest.raises(LookupError, match=r"no run with algorithm.overlap=2; algorithm.overlap is 0, 1"):
        filter_runs(runs, ["algorithm.overlap=2"])


def test_wrong_filters_are_named_with_what_is_allowed(results: Path) -> None:
    runs = find_runs(results)
    with pytest.raises(ValueError, match=r"--where: there is no 'node'; did you mean nodes\?"):
        filter_runs(runs, ["node=4"])
    with pytest.raises(ValueError, match="write key=value"):
        filter_runs(runs, ["nodes"])
    with pytest.raises(LookupError, match="no run with nodes=5; nodes is 4, 8"):
        filter_runs(runs, ["nodes=5"])
    with pytest.raises(
        ValueError, match=r"experiment: there is no 'spg'; did you mean sgp.*known: allreduce, sgp, sgp/table1"
    ):
        find_runs(results, "spg")
    with pytest.raises(ValueError, match="experiment"):
        find_runs(results, "../..")


def test_the_nearest_name_comes_first() -> None:
    message = str(unknown_name("--values", "top1", ["loss", "top1_mean_model", "top1_centre"]))
    assert message.startswith("--values: there is no 'top1'; did you mean top1_centre or top1_mean_model?")


@pytest.mark.parametrize("folder", ["", "runs", "runs/sgp"])
def test_no_runs_says_what_to_type(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(LookupError, match="run-experiment algorithm=sgp"):
        find_runs(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no valid JSON"),
        (b'{"algorithm": "sg', "no valid JSON"),
        (b"\xff\xfe\x00", "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"{}", "names no algorithm"),
        (b'{"algorithm": "sgp", "identity": "cc"}', "the summary of run cc, in a folder of another name"),
        (b'{"algorithm": "sgp", "nodes": "four"}', "nodes is 'four', not a whole number"),
        (b'{"algorithm": "sgp", "top1_mean_model": [1]}', r"top1_mean_model is \[1\], not a number"),
    ],
)
def test_a_broken_summary_is_named_and_left_out(results: Path, content: bytes, problem: str) -> None:
    path = results / "runs/sgp/bb/summary.json"
    path.write_bytes(content)
    (broken,) = (run for run in find_runs(results, where=["nodes=4"]) if run.problem)
    assert (broken.status, broken.summary, broken.identity) == ("corrupt", None, "bb")
    assert broken.problem is not None
    assert str(path) in broken.problem
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(broken.problem)


def test_foreign_things_are_named_and_do_not_count(results: Path) -> None:
    (results / "runs/notes.txt").write_text("x")
    (results / "runs/sgp/table1/more.csv").write_text("x")
    (results / "runs/.DS_Store").write_text("x")
    (results / "runs/loop").symlink_to(results / "runs/loop2")
    foreign = [run for run in find_runs(results) if run.status == "foreign"]
    assert sorted(run.folder.name for run in foreign) == ["loop", "more.csv", "notes.txt"]
    assert all(run.problem and str(run.folder) in run.problem for run in foreign)


def test_a_finished_run_needs_no_readable_state(results: Path) -> None:
    (results / "runs/sgp/bb/state.json").write_text("{")
    (run,) = (run for run in find_runs(results) if run.identity == "bb")
    assert run.status == "finished"
    assert run.summary is not None
    assert run.problem is not None


def test_finished_without_a_summary_is_not_finished(results: Path) -> None:
    (results / "runs/sgp/bb/summary.json").unlink()
    (run,) = (run for run in find_runs(results) if run.identity == "bb")
    assert run.status == "corrupt"
    assert "no summary.json" in (run.problem or "")


def test_a_folder_with_only_a_broken_configuration_is_a_run_being_prepared(tmp_path: Path) -> None:
    folder = tmp_path / "runs/sgp/aa"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("a: [")
    (run,) = find_runs(tmp_path)
    assert run.status == "unknown"
    assert run.values["method"] == "?"


def test_evaluations_survive_truncation_repeats_and_noise(results: Path) -> None:
    run = find_runs(results, "allreduce")[0]
    path = run.folder / "evaluations.jsonl"
    rows = [{"epoch": 2, "loss_mean_model": math.nan}, {"epoch": 1, "time_s": 1}, {"epoch": 1, "time_s": 5}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '[]\n{"epoch": "x"}\n{"epoch": 3, "ti')
    got, problem = read_evaluations(run)
    assert [row["epoch"] for row in got] == [1, 2]
    assert got[0]["time_s"] == 5
    assert problem == f"{path}: skipped line 4, 5, 6, not an evaluation"
    path.unlink()
    assert read_evaluations(run)[0] == []
    assert str(path) in (read_evaluations(run)[1] or "")
