"""Figures: what is drawn is read back from the axes; files keep their text as text."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from fake_runs import SPEED, write_run
from matplotlib.figure import Figure

from runner.report import figures, frames
from runner.report.curves import csv_of, folded_curves, top1_curve
from runner.report.looks import DISTINCT, Labels
from runner.report.runs import find_runs


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for algorithm in SPEED:
        for nodes in (4, 8):
            for seed in (0, 1):
                identity = f"{algorithm}-{nodes}-{seed}"
                write_run(tmp_path, identity=identity, algorithm=algorithm, nodes=nodes, seed=seed, epochs=3)
    return tmp_path


def evaluations(results: Path, run: str, key: str) -> np.ndarray:
    (path,) = results.glob(f"runs/*/{run}/evaluations.jsonl")
    return np.array([json.loads(line)[key] for line in path.read_text().splitlines()])


def test_no_two_lines_look_the_same() -> None:
    names = [f"hier_avg (K1={k})" for k in range(9)] + [f"k_avg (period={k})" for k in range(9)] + ["allreduce", "sgp"]
    lines = [(name,) for name in names]
    labels = Labels(["method"], lines)
    looks = [(look["color"], str(look["linestyle"])) for look in map(labels.look, lines)]
    assert len({*looks}) == len(lines)
    many = [(f"sgp (overlap={k})",) for k in range(DISTINCT + 1)]
    with pytest.raises(ValueError, match=f"{DISTINCT + 1} lines: more than can be told apart"):
        Labels(["method"], many)


def drawn(figure: Figure, panel: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in figure.axes[panel].lines
    }


def test_learning_curves_are_means_over_seeds(results: Path) -> None:
    figure, name, problems = figures.draw(find_runs(results), x=None, y=None, by=None)
    assert (name, problems, len(figure.axes)) == ("top1", [], 2)
    assert [axis.get_xlabel() for axis in figure.axes] == ["epoch", "training time (s), wall clock"]
    assert figure.axes[0].get_ylabel() == "top-1 (%)"
    by_epoch, by_time = drawn(figure, 0), drawn(figure, 1)
    assert list(by_epoch) == [f"{a}, {n} nodes" for a in ("allreduce", "dpsgd", "sgp") for n in (4, 8)]
    seeds = [evaluations(results, f"sgp-8-{seed}", "top1_mean_model") for seed in (0, 1)]
    times = [evaluations(results, f"sgp-8-{seed}", "time_s") for seed in (0, 1)]
    np.testing.assert_array_equal(by_epoch["sgp, 8 nodes"][0], [1, 2, 3])
    np.testing.assert_allclose(by_epoch["sgp, 8 nodes"][1], 100 * np.mean(seeds, axis=0))
    np.testing.assert_allclose(by_time["sgp, 8 nodes"][0], np.mean(times, axis=0))
    band = figure.axes[0].collections[-1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(100 * np.max(seeds))
    assert band[:, 1].min() == pytest.approx(100 * np.min(seeds))


def test_colours_tell_methods_and_styles_tell_nodes(results: Path) -> None:
    figure, _, _ = figures.draw(find_runs(results), x="epoch", y="loss", by=None)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["sgp, 4 nodes"].get_color() == lines["sgp, 8 nodes"].get_color() == "#0072B2"
    assert lines["allreduce, 8 nodes"].get_color() == "#D55E00"
    assert lines["sgp, 8 nodes"].get_linestyle() == "--"
    assert lines["sgp, 4 nodes"].get_linestyle() != "--"
    assert len({line.get_color() for line in lines.values()}) == 3


def test_time_per_iteration_against_nodes(results: Path) -> None:
    figure, name, _ = figures.draw(find_runs(results), x="nodes", y=None, by=None)
    assert name == "time_per_iteration-nodes"
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["4", "8"]
    nodes, milliseconds = drawn(figure, 0)["dpsgd"]
    times = [
        [
            json.loads(next(results.glob(f"runs/*/dpsgd-{n}-{s}/summary.json")).read_text())["iteration_time_s"]
            for s in (0, 1)
        ]
        for n in nodes
    ]
    np.testing.assert_allclose(milliseconds, 1000 * np.mean(times, axis=1))


def test_the_time_of_an_epoch_is_split_into_stacked_bars(results: Path) -> None:
    figure, name, _ = figures.draw(find_runs(results), x="nodes", y="time_split", by=None)
    assert name == "time_split-nodes"
    assert [axis.get_title() for axis in figure.axes] == ["allreduce", "dpsgd", "sgp"]
    axis = figure.axes[2]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["4", "8"]
    seconds = [
        np.mean(
            [json.loads(path.read_text())["epoch_time_s"] for path in results.glob(f"runs/*/sgp-{n}-*/summary.json")]
        )
        for n in (4, 8)
    ]
    below = np.zeros(2)
    for bars, share, label in zip(axis.containers, (0.75, 0.2, 0.05), figures.SPLIT.values(), strict=True):
        assert bars.get_label() == label
        np.testing.assert_allclose([bar.get_y() for bar in bars], below)
        np.testing.assert_allclose([bar.get_height() for bar in bars], share * np.array(seconds))
        below = below + [bar.get_height() for bar in bars]


def test_many_panels_are_put_into_rows_and_too_many_are_refused(results: Path) -> None:
    for tau in range(1, 7):
        write_run(results, identity=f"easgd-{tau}", algorithm="easgd", variant=f"tau={tau}", nodes=4, epochs=3)
    figure, _, _ = figures.draw(find_runs(results), x="nodes", y="time_split", by=None)
    assert len(figure.axes) == 9
    assert figure.get_figwidth() < 15
    for tau in range(7, 24):
        write_run(results, identity=f"easgd-{tau}", algorithm="easgd", variant=f"tau={tau}", nodes=4, epochs=3)
    with pytest.raises(ValueError, match="26 panels"):
        figures.draw(find_runs(results), x="nodes", y="time_split", by=None)


def test_each_clock_has_its_own_time_axis(results: Path) -> None:
    write_run(results, identity="virtual", clock="virtual", launcher="simulated", nodes=4, epochs=3, epoch_time_s=4000)
    figure, _, _ = figures.draw(find_runs(results), x=None, y=None, by=["algorithm"])
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "epoch",
        "training time (h), virtual clock",
        "training time (s), wall clock",
    ]
    assert list(drawn(figure, 1)) == ["sgp, virtual clock"]
    np.testing.assert_allclose(drawn(figure, 1)["sgp, virtual clock"][0], np.array([1, 2, 3]) * 4000 / 3600)
    assert len(figures.draw(find_runs(results), x="nodes", y=None, by=None)[0].axes) == 2


def test_times_that_end_far_apart_have_a_logarithmic_axis(results: Path) -> None:
    figure, _, _ = figures.draw(find_runs(results), x="time", y="error", by=None)
    assert figure.axes[0].get_xscale() == "linear"
    write_run(results, identity="slow", algorithm="easgd", nodes=4, epochs=3, epoch_time_s=40)
    figure, name, _ = figures.draw(find_runs(results), x="time", y="error", by=None)
    assert (name, figure.axes[0].get_xscale()) == ("error-time", "log")
    seeds = [1 - evaluations(results, f"sgp-8-{seed}", "top1_mean_model") for seed in (0, 1)]
    np.testing.assert_allclose(drawn(figure, 0)["sgp, 8 nodes"][1], 100 * np.mean(seeds, axis=0))


def test_a_seed_that_diverged_breaks_the_line_and_is_counted(results: Path) -> None:
    (path,) = results.glob("runs/*/sgp-4-1/evaluations.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["loss_mean_model"] = math.nan
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure, _, _ = figures.draw(find_runs(results), x="epoch", y="loss", by=None)
    _, loss = drawn(figure, 0)["sgp, 4 nodes (1 of 2 diverged)"]
    assert np.isfinite(loss).tolist() == [True, True, False]


def test_seeds_on_different_epochs_are_interpolated_on_their_common_ones(results: Path) -> None:
    (path,) = results.glob("runs/*/sgp-4-1/evaluations.jsonl")
    path.write_text(
        '{"epoch": 1, "time_s": 10, "loss_mean_model": 4}\n{"epoch": 2.5, "time_s": 40, "loss_mean_model": 1}\n'
        '{"epoch": 3, "time_s": 50, "loss_mean_model": 1}\n'
    )
    curves, _ = folded_curves(find_runs(results, where=["nodes=4", "algorithm=sgp"]), ["method"], "loss_mean_model")
    other = evaluations(results, "sgp-4-0", "loss_mean_model")
    np.testing.assert_array_equal(curves[0].epoch, [1, 2, 2.5, 3])
    between = (other[1] + other[2]) / 2
    np.testing.assert_allclose(curves[0].mean * 2, [other[0] + 4, other[1] + 2, between + 1, other[2] + 1])
    assert curves[0].runs == 2


def test_a_file_that_was_cut_at_a_lines_end_is_named_and_left_out(results: Path) -> None:
    (path,) = results.glob("runs/*/sgp-4-1/evaluations.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    curves, problems = folded_curves(find_runs(results), ["method", "nodes"], "loss_mean_model")
    assert problems == [f"skipped {path}: it ends at epoch 2 of 3; rerun=true makes it again"]
    assert {curve.key: (curve.runs, curve.epoch.tolist()) for curve in curves}["sgp", 4] == (1, [1, 2, 3])
    (run,) = (run for run in find_runs(results) if run.identity == "sgp-4-1")
    assert top1_curve(run) == ([], problems[0])  # what claims are told
    frame, unread = frames.with_time_to(frames.summaries([run]), [run], 0.1)  # what tables are told
    assert (frame["time_to_target_s"].tolist(), unread) == ([None], problems)


@pytest.mark.parametrize("value", ['"abc"', "[1]", "{}", "true", "1" + 400 * "0"])
@pytest.mark.parametrize("key", ["epoch", "time_s", "top1_mean_model"])
def test_a_row_that_holds_something_else_than_numbers_is_skipped(key: str, value: str, results: Path) -> None:
    (path,) = results.glob("runs/*/sgp-4-1/evaluations.jsonl")
    first, *others = path.read_text().splitlines()
    row = json.loads(first) | {key: "HERE"}
    path.write_text("\n".join([json.dumps(row).replace('"HERE"', value), *others]))
    _, _, problems = figures.draw(find_runs(results), x=None, y="error", by=None)
    assert problems == [f"{path}: skipped line 1, not an evaluation"]


def test_unreadable_curves_are_named_and_left_out(results: Path) -> None:
    (path,) = results.glob("runs/*/sgp-4-1/evaluations.jsonl")
    path.write_bytes(b"\x00\xff")
    _, _, problems = figures.draw(find_runs(results), x=None, y=None, by=None)
    assert problems == [f"{path}: skipped line 1, not an evaluation"]
    for path in results.glob("runs/*/*/evaluations.jsonl"):
        path.unlink()
    with pytest.raises(LookupError, match="no finished run has an evaluation"):
        figures.draw(find_runs(results), x=None, y=None, by=None)


def test_a_combination_that_does_not_exist_is_refused(results: Path) -> None:
    with pytest.raises(ValueError, match="--x nodes"):
        figures.draw(find_runs(results), x="epoch", y="time_per_iteration", by=None)
    with pytest.raises(ValueError, match="--by: there is no 'algoritm'"):
        figures.draw(find_runs(results), x=None, y=None, by=["algoritm"])


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_files(results: Path, form: str) -> None:
    path = results / "figures" / f"a.{form}"
    figures.save(figures.draw(find_runs(results), x=None, y=None, by=None)[0], path)
    content = path.read_bytes()
    figures.save(figures.draw(find_runs(results), x=None, y=None, by=None)[0], path)
    assert path.read_bytes() == content, "the same runs make the same file"
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[form])
    if form == "pdf":
        assert b"/Type /Font" in content
        assert b"/Subtype /Type3" not in content
    if form == "svg":
        assert b">sgp, 8 nodes</text>" in content


def test_nothing_is_cut_with_many_methods_and_long_names(tmp_path: Path) -> None:
    for index in range(9):
        write_run(
            tmp_path,
            identity=str(index),
            algorithm=f"method{index}",
            variant="a_setting=with_a_long_name, " * (1 + index % 4),
            epochs=1,
        )
    figure, _, _ = figures.draw(find_runs(tmp_path), x=None, y=None, by=None)
    figures.save(figure, tmp_path / "many.png")
    figure.set_dpi(200)  # as it was saved, so that all is measured in the same pixels
    figure.draw_without_rendering()
    page = figure.bbox
    for artist in (*figure.legends, *figure.texts, *figure.axes):
        box = artist.get_window_extent() if not hasattr(artist, "get_tightbbox") else artist.get_tightbbox()
        assert box.x0 >= page.x0 - 1
        assert box.y0 >= page.y0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y1 <= page.y1 + 1
    assert figure.axes[0].get_window_extent().height > 300


def test_curves_as_csv(results: Path) -> None:
    text, problems = csv_of(find_runs(results))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert problems == []
    assert len(rows) == 12 * 3
    mine = [row for row in rows if row["identity"] == "sgp-8-1"]
    assert [float(row["top1_mean_model"]) for row in mine] == evaluations(
        results, "sgp-8-1", "top1_mean_model"
    ).tolist()
    assert {(row["algorithm"], row["nodes"], row["seed"], row["clock"]) for row in mine} == {("sgp", "8", "1", "wall")}


def test_speed_up_against_nodes(results: Path) -> None:
    for nodes, iteration_time_s in ((2, 0.5), (4, 0.25), (8, 0.2)):
        size = {"nodes": nodes, "workers": nodes, "global_batch_size": 256}
        write_run(results, identity=f"n{nodes}", algorithm="osgp", iteration_time_s=iteration_time_s, **size)
    runs = find_runs(results, where=["algorithm=osgp"])
    figure, name, _ = figures.draw(runs, x="nodes", y="speedup", by=None)
    assert name == "speedup-nodes"
    lines = drawn(figure, 0)
    np.testing.assert_allclose(lines["osgp"], [[2, 4, 8], [1, 2, 2.5]])
    np.testing.assert_allclose(lines["linear"], [[2, 4, 8], [1, 2, 4]])
    with pytest.raises(ValueError, match="a run has one speedup"):
        figures.draw(runs, x="epoch", y="speedup", by=None)
