"""The page of `experiments report`: whole, self-contained, honest about what is published, and nothing cut."""

from __future__ import annotations

import copy
import html
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_run
from typer.testing import CliRunner

from runner import identity, studies
from runner.build import ConfigError
from runner.claims.published import beside_measured
from runner.config import Config, freeze, known_lr
from runner.experiments import app
from runner.prepare import resolve
from runner.report.published import rows
from runner.report.study import figures_of, table_of
from runner.study_runs import cells_of, found

RESULTS = Path(__file__).parents[2] / "results"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MEASURE = """<script>onload = () => {
  const inner = document.querySelector("iframe").contentDocument.documentElement;
  document.body.dataset.widths = inner.scrollWidth + "/" + inner.clientWidth;
  const cut = [...inner.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth);
  document.body.dataset.cut = cut.length;
}</script>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page of the SGP paper, from the showcase, and all of its tables and figures."""
    folder = tmp_path_factory.mktemp("page")
    arguments = [
        "--output",
        str(folder / "sgp.html"),
        "--files",
        str(folder),
        "--results-dir",
        str(RESULTS / "showcase"),
    ]
    done = CliRunner().invoke(app, ["report", "sgp", *arguments])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(folder / "sgp.html")
    return folder


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return (made / "sgp.html").read_text()


def test_its_tables_are_those_of_the_showcase(made: Path) -> None:
    kept = sorted((RESULTS / "showcase/tables").glob("sgp-*.md"))
    assert len(kept) == 7
    for table in kept:
        assert (made / table.name).read_text() == table.read_text(), table.name


def test_every_format_is_written(made: Path) -> None:
    for suffix in (".md", ".tex", ".csv", ".json", ".txt"):
        assert (made / f"sgp-scaling{suffix}").stat().st_size > 0
    for suffix in (".png", ".pdf", ".svg"):
        assert (made / f"sgp-scaling-time_per_iteration-nodes{suffix}").stat().st_size > 0


def test_published_values_are_hollow_markers() -> None:
    study = studies.load("sgp/scaling")
    runs, _ = found(cells_of(study, "virtual"), study.preset("virtual"), [RESULTS / "showcase"])
    [(_, figure)], _ = figures_of(study, "virtual", runs)
    drawn = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    for method, milliseconds in (("allreduce", 420), ("sgp", 304), ("sgp (overlap=1)", 271)):
        mark = drawn[f"{method}, published (SlowMo 2019)"]
        assert mark.get_xydata().tolist() == [[32, pytest.approx(milliseconds)]]
        assert mark.get_markerfacecolor() == "none"


def test_a_table_of_what_there_is_not_is_refused() -> None:
    study = studies.load("sgp/scaling")
    runs, _ = found(cells_of(study, "virtual"), study.preset("virtual"), [RESULTS / "showcase"])
    for wrong, said in (
        ({"values": ["iteration_time"]}, "values: there is no 'iteration_time'; did you mean iteration_time_s"),
        ({"by": ["node"]}, "by: there is no 'node'; did you mean nodes"),
    ):
        with pytest.raises(ConfigError, match=rf"conf/experiment/sgp/scaling\.yaml: table: {said}"):
            table_of(replace(study, table=wrong), runs)
    table = table_of(replace(study, table={"values": ["top1", "speedup"]}), runs)
    headers = [column.header for column in table.columns]
    assert table.notes[-1] == "None of these runs has: top-1 (%)."
    assert "speed-up" in headers
    assert not [header for header in headers if "top-1" in header]  # time only: there is none


def test_a_method_looks_the_same_in_all_figures_of_a_study() -> None:
    study = studies.load("sasgd/epoch_time")
    runs, _ = found(cells_of(study, "virtual"), study.preset("virtual"), [RESULTS / "showcase"])
    figures, _ = figures_of(study, "virtual", runs)
    times, speedups = (
        {line.get_label(): (line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.get_lines()}
        for axes in (figure.axes[0] for _, figure in figures[:2])
    )
    assert "allreduce" in times
    assert "allreduce" not in speedups  # it is on one node alone
    assert len(speedups) > 5
    assert all(look == times[method] for method, look in speedups.items() if method != "linear")


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)
        self.sources += [value or "" for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_and_needs_nothing_else(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert all(source.startswith(("#", "data:image/svg+xml;base64,")) for source in reader.sources)
    assert sum(source.startswith("data:") for source in reader.sources) >= 4
    for source in reader.sources:
        assert not source.startswith("#") or f'id="{source[1:]}"' in page


def test_it_says_what_is_claimed_and_how_it_was_measured(page: str) -> None:
    for row in rows("claims"):
        assert (f"· {row['id']}" in page) == (row["paper"] == "sgp")
    assert "run-experiment experiment=sgp/scaling scale=virtual" in page
    assert "epochs 12 (scale=paper: 90)" in page
    assert "That the GPUs were V100" in page
    assert "not finished" not in page


def test_nothing_recalled_is_shown_as_published(page: str) -> None:
    table = beside_measured("sgp", "virtual", [RESULTS / "showcase"])
    assert table is not None
    shown = {row[1].value for row in table.rows}
    assert {"about 1.6 h", "over 5 h", "88.6 %", "76.2 % †", "420 ms"} <= shown
    assert not {"22.0 h", "11.8 h", "75.0 %"} & shown
    assert {row["mark"] for row in rows("sgp")} == {"text", "second"}


def test_a_run_of_ones_own_beside_the_studys_changes_nothing_that_is_measured(tmp_path: Path) -> None:
    cells = cells_of(studies.load("sgp/scaling"), "virtual")
    [cell, *_] = [cell for cell in cells if (cell["choices"]["algorithm"], cell["nodes"]) == ("sgp", 4)]
    cell["epochs"] = 2
    config = resolve(cell)
    folder = write_run(tmp_path, identity=identity.identity(config), group="sgp/virtual", seed=config["seed"])
    (folder / "config.yaml").write_text(freeze(config))
    assert beside_measured("sgp", "virtual", [tmp_path, RESULTS / "showcase"]) == beside_measured(
        "sgp", "virtual", [RESULTS / "showcase"]
    )


def test_slowmos_tables_are_beside_what_was_measured() -> None:
    table = beside_measured("slowmo", "virtual", [RESULTS / "showcase"])
    assert table is not None
    body = {str(row[0].value): [str(cell.value) for cell in row[1:4]] for row in table.rows}
    accuracies = {what: row for what, row in body.items() if what.startswith("accuracy, CIFAR-10, ")}
    assert len(accuracies) == 7
    for _, measured, difference in accuracies.values():  # of another task
        assert float(measured.split()[0]) > 80
        assert difference == "–"
    assert body["time per iteration, ImageNet, osgp, 32 nodes"][1:] == ["273 ms", "the clock is calibrated on it"]
    published, measured, difference = body["time per iteration, ImageNet, allreduce, 32 nodes"]
    assert (published, measured, difference) == ("420 ms", "434 ms", "+3 %")
    assert body["training loss, CIFAR-10, local_sgd"] == ["0.122", "–", "–"]
    assert body["accuracy, WMT16 En-De, sgp with SlowMo"] == ["27.84 BLEU", "–", "–"]
    assert beside_measured("slowmo", "laptop", [RESULTS / "showcase"]) is None


def run_elsewhere(config: Config, results: Path, **measured: Any) -> None:
    """As if a cluster had made that run, and its folder had been copied here."""
    config["launcher"]["kind"], config["device"], config["backend"] = "slurm", "cuda", "nccl"
    config["optimizer"]["lr"] = known_lr(config)
    name, kind = identity.identity(config), config["choices"]
    keys = {"nodes", "gpus_per_node", "epochs", "seed"}
    told = {key: config[key] for key in keys} | {"algorithm": kind["algorithm"], "dataset": kind["dataset"]}
    folder = write_run(results, identity=name, group=kind["experiment"], launcher="slurm", **told, **measured)
    (folder / "config.yaml").write_text(freeze(config))


def test_runs_of_a_cluster_are_reported_where_they_could_not_run(tmp_path: Path) -> None:
    study = studies.load("sgp/slow_nodes")
    for cell in cells_of(study, "paper"):
        run_elsewhere(cell, tmp_path)
    run_elsewhere(cells_of(studies.load("sgp/accuracy"), "paper")[0], tmp_path)  # of another study
    for differs in ({"lr": 0.5}, {"momentum": 0.5}):  # typed beside the study
        [other, _] = cells_of(study, "paper")
        other["optimizer"] |= differs
        run_elsewhere(other, tmp_path)
    runs, problems = found(cells_of(study, "paper"), "sgp/paper", [tmp_path])
    assert sorted(run.values["algorithm"] for run in runs) == ["allreduce", "sgp"]
    assert problems == []
    arguments = ["--scale", "paper", "--results-dir", str(tmp_path), "--output", str(tmp_path / "page.html")]
    done = CliRunner().invoke(app, ["report", "sgp", *arguments])
    assert done.exit_code == 0, done.output
    assert "sgp/slow_nodes" not in done.stderr  # all of its runs are there


def test_runs_of_a_cluster_are_found_also_where_they_could_run(tmp_path: Path) -> None:
    [cell, *_] = cells_of(studies.load("slowmo/accuracy"), "laptop")
    run_elsewhere(copy.deepcopy(cell), tmp_path)
    [run], problems = found([cell], "slowmo/laptop", [tmp_path])
    assert problems == []
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("kind: slurm", "kind: simulated"))
    assert found([cell], "slowmo/laptop", [tmp_path]) == ([], [])


def test_accuracies_of_the_papers_own_tasks_are_held_against_the_published_ones(tmp_path: Path) -> None:
    for cell in cells_of(studies.load("slowmo/accuracy"), "paper"):
        if cell["choices"]["algorithm"] in ("allreduce", "osgp"):
            run_elsewhere(cell, tmp_path, top1_mean_model=0.75)
    table = beside_measured("slowmo", "paper", [tmp_path])
    assert table is not None
    body = {str(row[0].value): [str(cell.value) for cell in row[1:4]] for row in table.rows}
    assert body["accuracy, ImageNet, allreduce"] == ["76.00 %", "75.00 %", "-1.00 points"]
    assert body["accuracy, CIFAR-10, osgp"] == ["93.17 %", "75.00 %", "-18.17 points"]
    assert body["accuracy, ImageNet, sgp"][1:] == ["not run", "–"]
    assert body["time per iteration, ImageNet, osgp, 32 nodes"][2].endswith(" %")  # real ones are not calibrated
    [cell] = [
        cell
        for cell in cells_of(studies.load("sgp/accuracy"), "paper")
        if cell["nodes"] == 32 and cell["choices"]["algorithm"] == "allreduce" and cell["seed"] == 0
    ]
    run_elsewhere(cell, tmp_path, top1_mean_model=0.77)
    table = beside_measured("sgp", "paper", [tmp_path])
    assert table is not None
    assert ["76.2 % †", "77.00 %", "+0.80 points"] in [[str(cell.value) for cell in row[1:4]] for row in table.rows]


def test_the_runs_of_the_showcase_can_be_listed() -> None:
    done = CliRunner().invoke(app, ["list", "--results-dir", str(RESULTS / "showcase")])
    assert done.exit_code == 0, done.output
    assert "finished" in done.stdout
    narrowed = ["list", "sgp", "--where", "problem=supervised", "--results-dir", str(RESULTS / "showcase")]
    assert "top-1, workers' mean (%)" in CliRunner().invoke(app, [*narrowed, "--format", "markdown"]).stdout


def test_what_has_not_run_is_said(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    arguments = ["report", "sasgd", "--output", str(path), "--results-dir", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    number = len(cells_of(studies.load("sasgd/accuracy"), "virtual"))
    assert f"sasgd/accuracy: {number} of {number} runs have not finished" in done.output
    assert "not run" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nobody"], "there is no 'nobody'"), (["sgp", "--scale", "big"], "there is no 'big'")],
)
def test_wrong_names(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["report", *arguments])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("paper", sorted(path.stem for path in (RESULTS / "showcase/reports").glob("*.html")))
def test_a_browser_cuts_nothing_and_complains_of_nothing(paper: str, width: int, tmp_path: Path) -> None:
    outer = tmp_path / "outer.html"
    page = html.escape((RESULTS / f"showcase/reports/{paper}.html").read_text())
    outer.write_text(f'<body>{MEASURE}<iframe width="{width}" height="900" srcdoc="{page}"></iframe></body>')
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options = ["--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1400,1000", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    try:
        done = subprocess.run(
            [*command, *options, profile, outer.as_uri()], capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.skip("Chromium does not answer here")
    if "<html" not in done.stdout:
        pytest.skip(f"Chromium does not run here: {done.stderr[-300:]}")
    assert "CONSOLE" not in done.stderr
    [(scroll, client)] = re.findall(r'data-widths="(\d+)/(\d+)"', done.stdout)
    assert int(scroll) <= int(client)
    if width == 1280:  # on narrower screens a wide table is scrolled
        assert 'data-cut="0"' in done.stdout
