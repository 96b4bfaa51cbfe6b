"""Tables: folding equals numpy, every format says the same, golden texts of a small table."""

import csv
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from fake_runs import make_summary, write_run
from hypothesis import given
from hypothesis import strategies as st

from runner.report import frames, tables
from runner.report.formats import FORMATS, Cell, Column, Table, csv_text, json_text, latex, markdown, terminal
from runner.report.metrics import bytes_written, written
from runner.report.runs import Run, find_runs

finite = st.floats(-1e6, 1e6)


def finished(**keys: object) -> Run:
    return Run(Path("results/runs/sgp") / str(keys.get("identity", "aa")), "sgp", "finished", {}, make_summary(**keys))


@pytest.fixture
def small() -> Table:
    runs = [
        finished(algorithm=algorithm, variant=variant, seed=seed, top1_mean_model=top1, epoch_time_s=time_s)
        for algorithm, variant, seed, top1, time_s in (
            ("sgp", "overlap=1", 0, 0.97, 1.25),
            ("sgp", "overlap=1", 1, 0.98, 1.5),
            ("allreduce", "", 0, 0.96, 12.5),
        )
    ]
    return tables.comparison(frames.summaries(runs), values=["top1_mean_model", "epoch_time_s", "bytes_sent"])


TITLE = (
    "digits, mlp, 4 nodes, 1 process per node, batch 32 per process, 128 in all, 10 epochs, "
    "batch norm statistics: own, local launcher, wall clock"
)


def test_markdown(small: Table) -> None:
    assert (
        markdown(small)
        == TITLE
        + """

| method          | workers |   n | top-1, mean model (%) | epoch time (s) | sent per worker |
|-----------------|--------:|----:|----------------------:|---------------:|----------------:|
| allreduce       |       4 |   1 |                 96.00 |           12.5 |           15 MB |
| sgp (overlap=1) |       4 |   2 |          97.50 ± 0.71 |    1.38 ± 0.18 |           15 MB |

± is the sample standard deviation over n runs. Sent: payload over the whole run.
"""
    )


def test_latex(small: Table) -> None:
    assert (
        latex(small)
        == r"""\begin{table}
  \centering
  \caption{"""
        + TITLE
        + r"""}
  \begin{tabular}{lrrrrr}
    \toprule
    method & workers & n & top-1, mean model (\%) & epoch time (s) & sent per worker \\
    \midrule
    allreduce & 4 & 1 & 96.00 & 12.5 & 15 MB \\
    sgp (overlap=1) & 4 & 2 & 97.50 $\pm$ 0.71 & 1.38 $\pm$ 0.18 & 15 MB \\
    \bottomrule
  \end{tabular}
  \par\footnotesize $\pm$ is the sample standard deviation over n runs. Sent: payload over the whole run.
\end{table}
"""
    )


def test_csv(small: Table) -> None:
    top1_std, time_std = np.std([0.97, 0.98], ddof=1), np.std([1.25, 1.5], ddof=1)
    assert csv_text(small).splitlines() == [
        "method,workers,runs,top1_mean_model_mean,top1_mean_model_std,top1_mean_model_n,"
        "epoch_time_s_mean,epoch_time_s_std,epoch_time_s_n,bytes_sent_mean,bytes_sent_std,bytes_sent_n",
        "allreduce,4,1,0.96,,1,12.5,,1,15000000.0,,1",
        f"sgp (overlap=1),4,2,0.975,{top1_std},2,1.375,{time_std},2,15000000.0,0.0,2",
    ]


def test_terminal(small: Table) -> None:
    lines = terminal(small).splitlines()
    assert lines[0] == TITLE
    rows = [line.split() for line in lines if line.startswith(("allreduce", "sgp"))]
    assert rows[0] == ["allreduce", "4", "1", "96.00", "12.5", "15", "MB"]
    assert rows[1] == ["sgp", "(overlap=1)", "4", "2", *["97.50", "±", "0.71", "1.38", "±", "0.18", "15", "MB"]]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 250])
def test_a_list_on_a_narrow_terminal_leaves_columns_out_and_wraps_no_identity(tmp_path: Path, width: int) -> None:
    long = "rank 3 was killed by SIGKILL, while all others waited for it to join a collective that never came"
    write_run(tmp_path, identity="0123456789ab", group="a_long_name/of_an_experiment", algorithm="sgp", experiment="x")
    write_run(tmp_path, identity="ba9876543210", status="failed", reason=long)
    lines = re.sub(r"\x1b\[\d*m", "", terminal(tables.run_list(find_runs(tmp_path)), width=width)).splitlines()
    end = lines.index("")
    assert all(len(line) <= width for line in lines[:end])
    for identity in ("0123456789ab", "ba9876543210"):
        assert any(identity in line for line in lines[:end])
    told = re.sub(r"\s+", " ", " ".join(lines[:end]))
    assert "SIGKILL" in told
    hidden = [line for line in lines[end:] if line.startswith("No room here for: ")]
    assert len(hidden) == (width < 200)
    if hidden:
        assert "when" in hidden[0]
    else:
        assert "2026-02-03" in told


def test_the_usual_table_fits_an_ordinary_terminal() -> None:
    runs = [finished(algorithm=name, seed=seed) for name in ("allreduce", "dpsgd", "sgp") for seed in (0, 1)]
    table = tables.comparison(frames.summaries(runs))
    lines = re.sub(r"\x1b\[\d*m", "", terminal(table, width=80)).splitlines()
    rows = [line for line in lines if line.startswith(("allreduce", "dpsgd", "sgp"))]
    assert [row.split()[3:6] for row in rows] == [["95.50", "±", "0.71"]] * 3
    assert all(len(row) <= 80 and row.rstrip().endswith("15 MB") for row in rows)


def test_every_format_holds_the_same_numbers(small: Table) -> None:
    from_json = json.loads(json_text(small))
    from_csv = list(csv.DictReader(io.StringIO(csv_text(small))))
    for row, record in zip(from_json["rows"], from_csv, strict=True):
        assert row["epoch_time_s"]["mean"] == float(record["epoch_time_s_mean"])
        assert row["epoch_time_s"]["n"] == int(record["epoch_time_s_n"])
        text = written(row["epoch_time_s"]["mean"], row["epoch_time_s"]["std"], "seconds")
        assert text in markdown(small)
        assert text in terminal(small)
        assert text.replace("±", r"$\pm$") in latex(small)
    assert from_json["title"] == TITLE


def test_awkward_text_is_escaped() -> None:
    table = Table("50% & more", [Column("a_b", "a_b|c")], [[Cell(r"x_1 {y}^2 \z #$~ ±")]])
    assert r"50\% \& more" in latex(table)
    assert r"x\_1 \{y\}\textasciicircum{}2 \textbackslash{}z \#\$\textasciitilde{} $\pm$" in latex(table)
    assert r"a_b\|c" in markdown(table)
    assert "[bold]" in terminal(Table("", [Column("a", "a")], [[Cell("[bold]x")]]))


def test_what_is_not_finite_is_null_in_json_and_seen_elsewhere() -> None:
    frame = frames.summaries([finished(loss_mean_model=math.nan, top1_mean_model=None), finished(seed=1)])
    table = tables.comparison(frame, values=["loss_mean_model", "top1_mean_model"])
    assert json.loads(json_text(table))["rows"][0]["loss_mean_model"] == {"mean": None, "std": None, "n": 2}
    assert "nan" in markdown(table)
    assert table.rows[0][-1] == Cell(0.96, None, 1)  # a missing value is left out, and n says so


@given(st.lists(st.tuples(st.sampled_from(["sgp", "dpsgd"]), finite), min_size=1, max_size=12))
def test_folding_equals_numpy(rows: list[tuple[str, float]]) -> None:
    frame = frames.summaries([finished(algorithm=a, seed=i, loss_mean_model=x) for i, (a, x) in enumerate(rows)])
    for row in frames.fold(frame, ["algorithm"], ["loss_mean_model"]).to_dict("records"):
        values = [x for a, x in rows if a == row["algorithm"]]
        assert row["runs"] == row["loss_mean_model_n"] == len(values)
        assert row["loss_mean_model_mean"] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
        if len(values) == 1:
            assert row["loss_mean_model_std"] is None
        else:
            assert row["loss_mean_model_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-6)
        assert (row["loss_mean_model_low"], row["loss_mean_model_high"]) == (min(values), max(values))


def test_settings_that_differ_become_columns_and_leave_the_title() -> None:
    runs = [finished(nodes=n, seed=s, dataset=d) for n in (4, 8) for s in (0, 1) for d in ("digits", "cifar10")]
    table = tables.comparison(frames.summaries(runs))
    assert [column.key for column in table.columns[:4]] == ["method", "workers", "dataset", "runs"]
    assert [row[3].value for row in table.rows] == [2, 2, 2, 2]
    assert "digits" not in table.title
    assert "mlp" in table.title


def test_settings_that_follow_from_others_do_not_become_columns() -> None:
    runs = [
        finished(algorithm=a, topology=t, nodes=n) for a, t in (("sgp", "ring"), ("dpsgd", "torus")) for n in (2, 4)
    ]
    assert frames.row_keys(frames.summaries(runs)) == ["method", "workers"]
    runs.append(finished(algorithm="sgp", topology="torus", nodes=2))
    assert frames.row_keys(frames.summaries(runs)) == ["method", "workers", "topology"]


@pytest.mark.parametrize("by", [None, ["method"], ["nodes"]])
def test_clocks_are_never_averaged(by: list[str] | None) -> None:
    frame = frames.summaries([finished(clock="wall"), finished(clock="virtual")])
    table = tables.comparison(frame, by)
    assert [row[[c.key for c in table.columns].index("clock")].value for row in table.rows] == ["virtual", "wall"]
    across = tables.pivot(frame, "method", "nodes", ["epoch_time_s"])
    assert [[cell.value for cell in row[:2]] for row in across.rows] == [["sgp", "virtual"], ["sgp", "wall"]]


def test_pivot() -> None:
    runs = [
        finished(algorithm=a, nodes=n, seed=s) for a, n in (("sgp", 4), ("sgp", 8), ("allreduce", 4)) for s in (0, 1)
    ]
    table = tables.pivot(frames.summaries(runs), "algorithm", "nodes", ["top1_mean_model"])
    assert [column.header for column in table.columns] == ["algorithm", "nodes 4", "nodes 8"]
    assert [column.key for column in table.columns][1:] == ["top1_mean_model[nodes=4]", "top1_mean_model[nodes=8]"]
    assert "top-1, mean model (%)" in table.title
    assert [row[0].value for row in table.rows] == ["allreduce", "sgp"]
    std = pytest.approx(np.std([0.95, 0.96], ddof=1))
    assert table.rows[0][1] == Cell(pytest.approx(0.955), std, 2)
    assert table.rows[0][2] == Cell(None, None, 0)
    assert "–" in markdown(table)
    two = tables.pivot(frames.summaries(runs), "algorithm", "nodes", ["top1_mean_model", "epoch_time_s"])
    assert two.columns[2].header == "nodes 4: epoch time (s)"


def test_rows_that_hide_more_than_seeds_say_so() -> None:
    mixed = frames.summaries([finished(nodes=4), finished(nodes=8)])
    assert "differ in nodes" in " ".join(tables.comparison(mixed, ["method"]).notes)
    twice = frames.summaries([finished(identity="a"), finished(identity="b")])
    assert "a seed twice" in " ".join(tables.comparison(twice).notes)
    assert "Caution" not in " ".join(tables.comparison(frames.summaries([finished(), finished(seed=1)])).notes)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    frame = frames.summaries([finished()])
    with pytest.raises(ValueError, match=r"--values: there is no 'top1_mean'; did you mean top1_mean_model"):
        tables.comparison(frame, values=["top1_mean"])
    with pytest.raises(ValueError, match=r"--by: there is no 'node'; did you mean nodes"):
        tables.comparison(frame, by=["node"])
    with pytest.raises(ValueError, match="--rows and --columns are both nodes"):
        tables.pivot(frame, "nodes", "nodes")


def test_a_number_that_only_some_algorithm_writes_can_be_shown() -> None:
    table = tables.comparison(
        frames.summaries([finished(staleness_mean=1.5), finished(seed=1)]), values=["staleness_mean"]
    )
    assert table.rows[0][-1] == Cell(1.5, None, 1)


def test_the_list_shows_why_a_run_failed(tmp_path: Path) -> None:
    write_run(tmp_path, identity="aa")
    write_run(tmp_path, identity="bb", seed=1, status="failed", reason="RuntimeError: worker 3 died\nTraceback")
    table = tables.run_list(find_runs(tmp_path))
    assert [[row[0].value, row[2].value, row[-1].value] for row in table.rows] == [
        ["finished", "aa", ""],
        ["failed", "bb", "RuntimeError: worker 3 died"],
    ]
    assert table.notes == ["Times on the wall clock."]
    assert tables.left_out(find_runs(tmp_path)) == "Left out: 1 failed."


def test_numbers_as_people_read_them() -> None:
    assert [bytes_written(x) for x in (0, 999, 4096, 15e6, 3.28e9, 2e15)] == [
        "0 B",
        "999 B",
        "4.1 kB",
        "15 MB",
        "3.28 GB",
        "2 PB",
    ]
    assert written(0.0123, 0.0004, "seconds") == "0.0123 ± 0.0004"
    assert written(0.0123, None, "milliseconds") == "12.3"
    assert written(1e-6, None, "number") == "1.00e-06"
    assert written(math.inf, None, "number") == "inf"
    assert written(None, None, "accuracy") == "–"
    assert set(FORMATS) == {"terminal", "markdown", "latex", "csv", "json"}


@pytest.mark.parametrize(
    ("key", "values"), [("topology", ["ring", "torus"]), ("settings", ["", "model.hidden=[16]"]), ("lr", [0.1, 0.2])]
)
def test_what_was_chosen_by_hand_is_never_folded_nor_hidden(key: str, values: list[object]) -> None:
    """Even where the seeds, or the number of nodes, tell the runs apart."""
    by_seed = [finished(nodes=4, seed=seed, **{key: value}) for seed, value in enumerate(values)]
    assert key in frames.row_keys(frames.summaries(by_seed))
    if key != "lr":  # which follows from the nodes, by way of the global batch
        by_nodes = [finished(nodes=nodes, seed=0, **{key: value}) for nodes, value in zip((2, 4), values, strict=True)]
        assert key in frames.row_keys(frames.summaries(by_nodes))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"clock": "wall"}, {"clock": "virtual"}, "a clock of virtual and wall.*--where clock=virtual.*--mixed"),
        ({"experiment": "sgp/laptop"}, {"experiment": "sgp/tuning_virtual"}, "a scale of laptop and virtual"),
    ],
)
def test_mixtures_are_refused_unless_they_are_asked_for(one: dict[str, str], other: dict[str, str], said: str) -> None:
    frame = frames.summaries([finished(**one), finished(**other)])
    with pytest.raises(ValueError, match=said):
        frames.refuse_mixtures(frame)
    [key] = {"clock", "scale"} & {*said.split()}
    frames.refuse_mixtures(frame, ["nodes", key])
    assert key in [column.key for column in tables.comparison(frame).columns]  # with --mixed: apart, and shown
    frames.refuse_mixtures(frames.summaries([finished(experiment="demo"), finished(experiment="sgp/laptop")]))


def test_a_list_shows_settings_that_differ_and_not_what_all_share(tmp_path: Path) -> None:
    for seed, (identity, settings) in enumerate((("aa", "k=1"), ("bb", "k=1"), ("cc", "k=1, z=2"))):
        write_run(tmp_path, identity=identity, settings=settings, seed=seed)
    shown = tables.run_list(find_runs(tmp_path))
    keys = [column.key for column in shown.columns]
    rows = {row[keys.index("identity")].value: row for row in shown.rows}
    assert {name: row[keys.index("settings")].value for name, row in rows.items()} == {"aa": "", "bb": "", "cc": "z=2"}


def test_a_list_shows_whatever_else_tells_two_rows_apart(tmp_path: Path) -> None:
    write_run(tmp_path, identity="aa", topology="ring", nodes=4)
    write_run(tmp_path, identity="bb", topology="torus", nodes=4)
    write_run(tmp_path, identity="cc", topology="torus", nodes=8, lr=0.7)
    keys = [column.key for column in tables.run_list(find_runs(tmp_path)).columns]
    assert "topology" in keys
    assert "lr" not in keys  # the number of workers tells them apart
