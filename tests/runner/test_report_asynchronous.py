"""Reports of methods with a centre, and of stale messages: whose accuracy it is, and how late what was merged was."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import make_summary, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.launch import outcome
from runner.launchers.progress import View
from runner.report import figures, frames, staleness, tables
from runner.report.curves import csv_of
from runner.report.formats import Table, markdown
from runner.report.runs import Run, find_runs

CENTRE = {"algorithm": "easgd", "evaluated_model": "centre", "top1_centre": 0.9, "top1_mean_model": 0.5}


def finished(**keys: Any) -> Run:
    return Run(Path("results/runs/sgp") / str(keys.get("identity", "aa")), "sgp", "finished", {}, make_summary(**keys))


def cells(table: Table, *keys: str) -> list[list[Any]]:
    places = [[column.key for column in table.columns].index(key) for key in keys]
    return [[row[place].value for place in places] for row in table.rows]


def test_where_all_have_a_centre_the_column_is_that_of_the_centre() -> None:
    runs = [finished(**CENTRE, seed=seed) for seed in (0, 1)]
    for table in (tables.comparison(frames.summaries(runs)), tables.run_list(runs)):
        assert "top-1, centre (%)" in markdown(table)
        assert "90.00" in markdown(table)
        assert "evaluated_model" not in [column.key for column in table.columns]
    assert "top-1, centre (%)" in tables.pivot(frames.summaries(runs), "method", "nodes").title


def test_where_some_have_a_centre_every_row_names_its_model() -> None:
    runs = [finished(**CENTRE), finished(top1_mean_model=0.8)]
    for table in (tables.comparison(frames.summaries(runs)), tables.run_list(runs)):
        assert cells(table, "method" if table.title else "group", "evaluated_model", "top1")[:1] != []
        assert sorted(cells(table, "evaluated_model", "top1")) == [["centre", 0.9], ["mean", 0.8]]
        assert "top-1 (%)" in markdown(table)
        assert "top-1 of" in markdown(table)


def test_a_grid_names_the_model_by_row_or_in_the_heading() -> None:
    frame = frames.summaries([finished(**CENTRE), finished(top1_mean_model=0.8)])
    down = tables.pivot(frame, "algorithm", "nodes")
    assert cells(down, "algorithm", "evaluated_model", "top1[nodes=4]") == [
        ["easgd", "centre", 0.9],
        ["sgp", "mean", 0.8],
    ]
    across = tables.pivot(frame, "nodes", "algorithm")
    assert [column.header for column in across.columns] == [
        "nodes",
        "algorithm easgd (centre)",
        "algorithm sgp (mean model)",
    ]
    assert [cell.value for cell in across.rows[0]] == [4, 0.9, 0.8]


def test_accuracies_of_different_models_are_never_averaged() -> None:
    frame = frames.summaries([finished(**CENTRE), finished(top1_mean_model=0.8)])
    assert cells(tables.comparison(frame, by=["nodes"]), "evaluated_model", "top1") == [["centre", 0.9], ["mean", 0.8]]
    assert "evaluated_model" not in frames.evaluated_apart(frame, ["nodes"], ["epoch_time_s"])


def test_older_summaries_and_runs_for_the_time_only_have_no_centre() -> None:
    old = make_summary()
    del old["evaluated_model"]
    run = Run(Path("aa"), "sgp", "finished", {}, old)
    assert run.values["top1"] == run.values["top1_mean_model"] == 0.95
    timing = finished(**CENTRE | {"top1_centre": None, "top1_mean_model": None, "clock": "virtual", "dataset": None})
    table = tables.comparison(frames.summaries([timing, finished()]))
    assert "top1_mean_model" in [column.key for column in table.columns]


def test_curves_are_those_of_the_evaluated_model(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = write_run(tmp_path, identity=f"e{seed}", seed=seed, epochs=2, **CENTRE)
        rows = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
        rows = [row | {"top1_centre": 0.3 * row["epoch"] + 0.1 * seed} for row in rows]
        (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure, _, _ = figures.draw(find_runs(tmp_path), x="epoch", y=None, by=None)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [35, 65])
    assert figure.get_suptitle().startswith("Top-1 of the centre: ")
    write_run(tmp_path, identity="s", epochs=2)
    for x in ("epoch", "nodes"):
        figure, _, _ = figures.draw(find_runs(tmp_path), x=x, y="top1", by=["nodes"] if x == "epoch" else None)
        names = [line.get_label() for line in figure.axes[0].lines]
        assert [name.rpartition(", ")[2] for name in names] == ["centre", "mean model"]
    assert "evaluated_model" in csv_of(find_runs(tmp_path))[0].splitlines()[0]


def test_a_run_that_ends_says_whose_accuracy_it_is() -> None:
    assert outcome(make_summary(**CENTRE, epoch_time_s=2.0)) == "top-1 90.00 % (centre)  2 s per epoch"
    assert outcome(make_summary(epoch_time_s=2.0)) == "top-1 95.00 % (mean model)  2 s per epoch"
    view = View(epochs=4, model="centre")
    place = {"clock": "virtual", "time_s": 2.5, "step": 10, "epoch": 1.0, "samples": 64}
    view.evaluated({**place, "top1_mean_model": 0.5, "top1_centre": 0.75})
    assert view.words() == "epoch 1.0/4  top-1 75.0 % (centre)  virtual time 2.5 s"


@pytest.mark.parametrize(
    ("means", "shown"), [([None], False), ([0.0, None], False), ([0.0, 1.5], True), ([None, 2.0], True)]
)
def test_there_is_a_column_of_staleness_where_any_run_has_some(means: list[float | None], shown: bool) -> None:
    runs = [finished(staleness_mean=mean, algorithm=f"a{i}") for i, mean in enumerate(means)]
    table = tables.comparison(frames.summaries(runs))
    assert ("staleness_mean" in [column.key for column in table.columns]) is shown
    assert ("Staleness: " in " ".join(table.notes)) is shown
    if shown:
        assert [value for [value] in cells(table, "staleness_mean")] == means


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.integers(0, 40), st.integers(1, 1000)), min_size=1, max_size=4))
def test_histograms_of_seeds_add_up(every: list[dict[int, int]]) -> None:
    texts = [",".join(f"{age}:{count}" for age, count in sorted(each.items())) for each in every]
    frame = frames.summaries([finished(staleness=text, seed=seed) for seed, text in enumerate(texts)])
    total = sum((Counter(each) for each in every), Counter())
    assert staleness.folded(frame, ["method"]) == ({("sgp",): total} if total else {})
    if total:
        ages = np.repeat(list(total), list(total.values()))
        assert staleness.mean(total) == pytest.approx(ages.mean())


def test_the_histogram_shows_shares_by_method(tmp_path: Path) -> None:
    write_run(tmp_path, identity="a", algorithm="async_sgd", staleness="0:10,3:30")
    write_run(tmp_path, identity="b", algorithm="async_sgd", seed=1, staleness="1:40")
    write_run(tmp_path, identity="c", algorithm="osgp", staleness="1:7")
    write_run(tmp_path, identity="d", algorithm="sgp", staleness="0:50")
    write_run(tmp_path, identity="e", algorithm="allreduce", staleness="")
    figure, name, problems = figures.draw(find_runs(tmp_path), x="staleness", y=None, by=None)
    assert (name, problems) == ("staleness", [])
    steps = {patch.get_label(): patch.get_data() for patch in figure.axes[0].patches if patch.get_label()}
    assert list(steps) == ["async_sgd: mean 1.62", "osgp: mean 1"]
    np.testing.assert_allclose(steps["async_sgd: mean 1.62"].values, [12.5, 50, 0, 37.5])
    np.testing.assert_allclose(steps["async_sgd: mean 1.62"].edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(steps["osgp: mean 1"].values, [0, 100])
    assert "Never late: sgp." in figure.legends[0].get_title().get_text().replace("\n", " ")
    for form, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        figures.save(figure, tmp_path / f"staleness.{form}")
        assert (tmp_path / f"staleness.{form}").read_bytes().startswith(start)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, identity="a", algorithm="allreduce")
    with pytest.raises(LookupError, match="none of these runs has recorded a staleness"):
        figures.draw(find_runs(tmp_path), x="staleness", y=None, by=None)
    with pytest.raises(ValueError, match=r"--y loss --x staleness: .* leave --y out"):
        figures.draw(find_runs(tmp_path), x="staleness", y="loss", by=None)
    write_run(tmp_path, identity="b", staleness="0:1,x")
    [run] = [run for run in find_runs(tmp_path) if run.identity == "b"]
    assert run.status == "corrupt"
    assert run.problem is not None
    assert "staleness is '0:1,x', not counts by age such as 0:120,1:30" in run.problem
