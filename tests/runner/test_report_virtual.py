"""Reports of virtual runs: whose time it is stands beside every time, and runs for the time only have no accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_summary, write_run
from hypothesis import given
from hypothesis import strategies as st

from runner.report import figures, frames, tables
from runner.report.curves import csv_of
from runner.report.formats import csv_text, json_text, latex, markdown, terminal
from runner.report.runs import Run, find_runs

VIRTUAL = {
    "launcher": "simulated",
    "clock": "virtual",
    "cluster": "10gbe",
    "cost": "resnet50_v100",
    "failures": "none",
    "time_as_for": "ResNet-50 on V100",
    "settings": "cost.overlap_backward=false",
}
TIMING_ONLY = VIRTUAL | dict.fromkeys(
    ("dataset", "model", "top1_mean_model", "top1_workers_mean", "loss_mean_model", "consensus_distance")
)
BORROWED = "Time as for ResNet-50 on V100 on cluster 10gbe, accuracy of mlp on digits."
NO_ACCURACY = "Time as for ResNet-50 on V100 on cluster 10gbe, no accuracy."


def finished(**keys: Any) -> Run:
    return Run(Path("results/runs/sgp") / str(keys.get("identity", "aa")), "sgp", "finished", {}, make_summary(**keys))


def columns(*runs: Run) -> list[str]:
    return [column.key for column in tables.comparison(frames.summaries(runs)).columns]


def test_every_table_says_whose_time_it_is() -> None:
    frame = frames.summaries([finished(**VIRTUAL, nodes=nodes) for nodes in (4, 8)])
    for table in (
        tables.comparison(frame),
        tables.pivot(frame, "method", "nodes"),
        tables.run_list([finished(**VIRTUAL)]),
    ):
        assert BORROWED in table.notes
        for text in (terminal(table), markdown(table), json_text(table)):
            assert BORROWED in text
        assert BORROWED in latex(table)
    assert "Time as" not in csv_text(tables.comparison(frame))  # which has no place for notes: the command says them


def test_a_title_names_the_cluster_the_cost_and_what_is_off_its_default() -> None:
    title = tables.comparison(frames.summaries([finished(**VIRTUAL)])).title
    assert title.endswith("virtual clock, cluster 10gbe, cost resnet50_v100, cost.overlap_backward=false")
    assert "failures" not in title
    assert (
        "failures two_die" in tables.comparison(frames.summaries([finished(**VIRTUAL | {"failures": "two_die"})])).title
    )


@pytest.mark.parametrize("key", ["cluster", "cost", "failures"])
def test_what_differs_between_virtual_runs_is_a_column(key: str) -> None:
    one, other = finished(**VIRTUAL), finished(**VIRTUAL | {key: "other"})
    assert key in columns(one, other)
    assert key not in columns(one, finished(**VIRTUAL, seed=1))
    listed = tables.run_list([one, other, finished()])
    assert [column.key for column in listed.columns].count(key) == 1


def test_a_wall_clock_needs_no_cluster_to_be_told_from_a_virtual_one() -> None:
    keys = columns(finished(**VIRTUAL), finished())
    assert "clock" in keys
    assert not {"cluster", "cost", "failures"} & set(keys)
    notes = tables.comparison(frames.summaries([finished(**VIRTUAL), finished()])).notes
    assert notes[-2:] == [BORROWED, "Other times are of what was trained."]


def test_a_virtual_run_whose_time_is_its_own_needs_no_note() -> None:
    own = VIRTUAL | {"cost": "none", "time_as_for": None}
    assert frames.time_notes([make_summary(**own), make_summary()]) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "ResNet-50", "VGG-16"]),
            st.sampled_from(["10gbe", "laptop"]),
            st.sampled_from([None, "digits", "cifar10"]),
        ),
        max_size=8,
    )
)
def test_notes_name_every_combination_in_one_order(runs: list[tuple[str | None, str, str | None]]) -> None:
    rows = [
        {"clock": "virtual", "time_as_for": of, "cluster": cluster, "dataset": dataset, "model": "mlp"}
        for of, cluster, dataset in runs
    ]
    notes = frames.time_notes(rows)
    assert notes == frames.time_notes(rows[::-1])
    for of, cluster, dataset in runs:
        if of or not dataset:
            accuracy = f"accuracy of mlp on {dataset}." if dataset else "no accuracy."
            [note] = [n for n in notes if f"as for {of or 'the cost given'} on" in n and n.endswith(accuracy)]
            assert cluster in note


def test_runs_for_the_time_only_have_no_accuracy() -> None:
    runs = [finished(**TIMING_ONLY, nodes=nodes) for nodes in (32, 1024)]
    frame = frames.summaries(runs)
    table = tables.comparison(frame)
    assert "top1_mean_model" not in [column.key for column in table.columns]
    assert table.notes[-1] == NO_ACCURACY
    assert tables.pivot(frame, "method", "nodes").columns[1].key == "epoch_time_s[nodes=32]"
    listed = tables.run_list(runs)
    shown = dict(zip([column.key for column in listed.columns], listed.texts()[0], strict=True))
    assert shown["top1_mean_model"] == shown["dataset"] == "–"
    assert NO_ACCURACY in listed.notes


def test_beside_others_they_are_told_apart() -> None:
    table = tables.comparison(frames.summaries([finished(**VIRTUAL), finished(**TIMING_ONLY)]))
    assert len(table.rows) == 2
    assert {BORROWED, NO_ACCURACY} <= set(table.notes)


def test_times_of_milliseconds_and_of_hours_are_readable() -> None:
    runs = [finished(**VIRTUAL, nodes=n, epoch_time_s=s) for n, s in ((4, 0.0123), (8, 12.3), (16, 12345.6))]
    table = tables.comparison(frames.summaries(runs), values=["epoch_time_s"])
    assert [row[-1] for row in table.texts()] == ["0.0123", "12.3", "12346"]


def test_times_of_different_things_are_never_averaged() -> None:
    own, other = VIRTUAL | {"time_as_for": None, "cost": "none"}, VIRTUAL | {"time_as_for": "VGG-16 on V100"}
    frame = frames.summaries([finished(**keys, nodes=n) for keys in (VIRTUAL, own, other) for n in (4, 8)])
    for by in (["method"], ["nodes"], ["method", "cluster"]):
        table = tables.comparison(frame, by)
        assert [column.key for column in table.columns][: len(by) + 1] == [*by, "time_as_for"]
        assert not any("Caution" in note for note in table.notes if by == ["nodes"])
    assert [column.key for column in tables.comparison(frame, ["time_as_for"]).columns][:2] == ["time_as_for", "runs"]
    assert tables.pivot(frame, "nodes", "time_as_for").columns[0].key == "nodes"
    assert [column.key for column in tables.pivot(frame, "method", "nodes").columns][:2] == ["method", "time_as_for"]
    assert frames.timed_apart(frames.summaries([finished(**VIRTUAL), finished()]), ["method"]) == ["method", "clock"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for nodes in (4, 8):
        for variant in ("", "overlap=1"):
            write_run(tmp_path, identity=f"{nodes}{variant}", nodes=nodes, variant=variant, epochs=3, **VIRTUAL)
    return tmp_path


def caption(figure: Any) -> str:
    return " ".join(figure.legends[0].get_title().get_text().split())


def test_every_figure_says_whose_time_it_is(results: Path) -> None:
    for x in (None, "epoch", "time", "nodes"):
        figure, _, problems = figures.draw(find_runs(results), x=x, y=None, by=None)
        assert BORROWED in caption(figure)
        assert "cluster 10gbe, cost resnet50_v100, cost.overlap_backward=false" in caption(figure)
        assert problems == []
    assert figure._suptitle.get_text() == "Time per iteration against nodes: ResNet-50 on V100"  # type: ignore[union-attr]
    assert figures.draw(find_runs(results), x="time", y=None, by=None)[0].axes[0].get_xlabel().endswith("virtual clock")


def test_each_cost_has_a_time_axis_of_its_own(results: Path) -> None:
    for nodes in (4, 8):
        own = VIRTUAL | {"cost": "none", "time_as_for": None}
        write_run(results, identity=f"own{nodes}", nodes=nodes, epochs=3, iteration_time_s=1e-3, **own)
    figure, _, _ = figures.draw(find_runs(results), x=None, y=None, by=["method", "nodes"])
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "epoch",
        "training time (s), virtual clock,\nof what was trained",
        "training time (s), virtual clock,\nas for ResNet-50 on V100",
    ]
    assert [len(axis.lines) for axis in figure.axes] == [6, 2, 4]
    figure, _, _ = figures.draw(find_runs(results), x="nodes", y=None, by=["nodes", "method"])
    trained, borrowed = figure.axes
    assert trained.get_xlabel() == "nodes (virtual clock,\nof what was trained)"
    assert borrowed.get_xlabel() == "nodes (virtual clock,\nas for ResNet-50 on V100)"
    assert trained.get_ylim()[1] < 2  # ms, of its own
    title = figure._suptitle.get_text()  # type: ignore[union-attr]
    assert title == "Time per iteration against nodes: ResNet-50 on V100; digits, mlp"
    assert len(figures.draw(find_runs(results), x="nodes", y="top1", by=None)[0].axes) == 1  # accuracy is no time


def test_a_legend_says_what_a_name_is_the_name_of(results: Path) -> None:
    for nodes in (4, 8):
        own = VIRTUAL | {"cost": "none", "time_as_for": None, "topology": "ring"}
        write_run(results, identity=f"own{nodes}", nodes=nodes, epochs=3, **own)
    write_run(results, identity="wall", nodes=4, epochs=3)
    figure, _, _ = figures.draw(find_runs(results), x="epoch", y=None, by=["method", "topology", "cost"])
    assert {str(line.get_label()) for line in figure.axes[0].lines} == {
        "sgp, topology one_peer_exponential, cost resnet50_v100, virtual clock",
        "sgp (overlap=1), topology one_peer_exponential, cost resnet50_v100, virtual clock",
        "sgp, topology ring, cost none, virtual clock",
        "sgp, topology one_peer_exponential, wall clock",
    }


def test_there_is_room_above_the_highest_line(results: Path) -> None:
    for x in ("nodes", "epoch"):
        [axis] = figures.draw(find_runs(results), x=x, y=None, by=None)[0].axes
        highest = max(float(max(line.get_ydata())) for line in axis.lines)  # type: ignore[arg-type]
        assert axis.get_ylim()[1] > highest + 0.04 * (axis.get_ylim()[1] - axis.get_ylim()[0])


@pytest.mark.parametrize(("problem", "found"), [("none", {"timing", "old_timing"}), ("supervised", {"new", "old"})])
def test_runs_are_found_by_their_problem(tmp_path: Path, problem: str, found: set[str]) -> None:
    for identity, keys in {  # the old ones are from before summaries named it
        "new": {"problem": "supervised"},
        "old": {},
        "timing": {"problem": "none", **TIMING_ONLY},
        "old_timing": TIMING_ONLY,
    }.items():
        folder = tmp_path / "runs" / "sgp" / identity
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(make_summary(**keys)))
    assert {run.identity for run in find_runs(tmp_path, where=[f"problem={problem}"])} == found


def test_a_line_shows_through_one_that_lies_upon_it(results: Path) -> None:
    figure, _, _ = figures.draw(find_runs(results), x="nodes", y=None, by=None)
    assert {line.get_label(): line.get_linestyle() for line in figure.axes[0].lines} == {
        "sgp": "-",
        "sgp (overlap=1)": "--",
    }


def test_curves_leave_runs_for_the_time_only_out(results: Path) -> None:
    folder = results / "runs" / "timing" / "aa"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(make_summary(**TIMING_ONLY)))
    (folder / "evaluations.jsonl").touch()
    figure, _, problems = figures.draw(find_runs(results), x="time", y=None, by=None)
    assert problems == []
    assert NO_ACCURACY not in caption(figure)
    assert len(csv_of(find_runs(results))[0].splitlines()) == 1 + 4 * 3
    with pytest.raises(LookupError, match="for the time only"):
        figures.draw(find_runs(results, "timing"), x=None, y=None, by=None)
    with pytest.raises(LookupError, match="no finished run has an evaluation"):
        csv_of(find_runs(results, "timing"))
    figure, _, _ = figures.draw(find_runs(results, "timing"), x="nodes", y=None, by=None)
    assert NO_ACCURACY in caption(figure)


def test_curves_as_csv_name_the_cluster(results: Path) -> None:
    text, _ = csv_of(find_runs(results))
    header, first, *_ = text.splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["clock"], row["cluster"], row["cost"], row["time_as_for"]) == (
        *("virtual", "10gbe", "resnet50_v100"),
        "ResNet-50 on V100",
    )


@pytest.mark.parametrize("kind", ["simulated", "local"])
def test_an_unfinished_run_says_where_it_runs(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "runs" / "sgp" / "aa"
    folder.mkdir(parents=True)
    choices = {
        "algorithm": "sgp",
        "dataset": "digits",
        "model": "mlp",
        "cluster": "10gbe",
        "cost": "x",
        "failures": "none",
        "problem": "none",
    }
    config = {
        "choices": choices,
        "launcher": {"kind": kind},
        "cost": {"of": "ResNet-50"},
        "algorithm": {"worker": "node"},
        "nodes": 32,
        "gpus_per_node": 8,
        "problem": {"kind": "none"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    values = find_runs(tmp_path)[0].values
    virtual = kind == "simulated"
    assert values["launcher"] == kind
    assert values["clock"] == ("virtual" if virtual else "wall")
    assert values["cluster"] == ("10gbe" if virtual else None)
    assert values.get("time_as_for") == ("ResNet-50" if virtual else None)
    assert values["dataset"] is None
    assert values["problem"] == "none"
    assert values["workers"] == 32
