"""Studies: every line of every preset composes, and what is typed beside one reaches all of its lines."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from runner import studies
from runner.build import ConfigError
from runner.composing import compose_all
from runner.deviations import deviations_of, paper_setting
from runner.identity import identity
from runner.prepare import resolve
from runner.report.frames import SETTINGS
from runner.report.metrics import METRICS
from runner.report.runs import finished
from runner.report.study import check
from runner.study_runs import cells_of

RESULTS = Path(__file__).parents[2] / "results/showcase"
CASES = [(name, scale) for name in studies.names() for scale in studies.load(name).lines]


SIMULATED_TOO = {("gossip/failures", "laptop"), ("sgp/slow_nodes", "laptop")}
"""Whose trouble only the simulator can make."""


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_every_line_composes(name: str, scale: str) -> None:
    study = studies.load(name)
    cells = cells_of(study, scale)
    for config in cells:
        assert config["choices"]["experiment"] == study.preset(scale)
        assert (config["launcher"]["kind"] == "simulated") == (scale == "virtual" or (name, scale) in SIMULATED_TOO)
    if scale == "virtual":  # others need data, or processes, that may not be here
        assert len({identity(resolve(config)) for config in cells}) == len(cells)


def lines_of(*typed: str) -> list[list[str]]:
    return [line for study, scale in studies.asked([*typed]) for line in studies.expand(study, scale, [*typed])]


def test_a_scale_is_virtual_unless_another_is_named() -> None:
    assert lines_of("experiment=sgp/scaling") == lines_of("scale=virtual", "experiment=sgp/scaling")


def test_several_studies_are_the_lines_of_each() -> None:
    both = lines_of("experiment=sgp/scaling,sgp/accuracy", "scale=laptop")
    assert both == [
        *lines_of("experiment=sgp/scaling", "scale=laptop"), *lines_of("experiment=sgp/accuracy", "scale=laptop"),
    ]  # fmt: skip


def test_what_is_typed_goes_into_every_line_in_place_of_what_is_there() -> None:
    plain = lines_of("experiment=sgp/accuracy", "scale=laptop")
    typed = ("-m", "experiment=sgp/accuracy", "scale=laptop", "seed=7", "--config-dir", "x", "dry_run=true")
    lines = lines_of(*typed)
    assert len(lines) == len(plain)
    for line, before in zip(lines, plain, strict=True):
        assert "seed=0,1,2" in before
        assert [word for word in line if word.startswith("seed=")] == ["seed=7"]
        assert line[:2] == ["-m", "experiment=sgp/laptop"]
        assert "dry_run=true" in line
        assert line[-2:] == ["--config-dir", "x"]
    assert studies.narrowing([*typed]) == "-seed=7"
    assert studies.narrowing(["experiment=sgp/accuracy", "scale=laptop", "results_dir=x", "launcher.threads=1"]) == ""


def test_a_typed_method_chooses_among_the_lines() -> None:
    lines = lines_of("experiment=sgp/accuracy", "algorithm=sgp,dpsgd", "seed=5")
    methods = [[word for word in line if word.startswith("algorithm=")] for line in lines]
    by_method = (["algorithm=sgp"], ["algorithm=dpsgd"], ["algorithm=sgp"])  # the last with overlap
    assert methods == [method for method in by_method for _nodes in (4, 8, 16, 32)]
    rates = studies.tuned("sgp")["virtual"]
    for line in lines:
        [nodes] = [word for word in line if word.startswith("nodes=")]
        [method] = [word for word in line if word.startswith("algorithm=")]
        assert f"optimizer.reference_lr={rates[f'{method} {nodes}']:g}" in line
    with pytest.raises(ConfigError, match="algorithm=easgd: sgp/accuracy has no run of easgd"):
        lines_of("experiment=sgp/accuracy", "algorithm=easgd")
    with pytest.raises(ConfigError, match=r"algorithm=sgp,allredcue: sgp/accuracy has no run of allredcue .*allreduce"):
        lines_of("experiment=sgp/accuracy", "algorithm=sgp,allredcue")
    with pytest.raises(ConfigError, match="algorithm=sgp: sgp/accuracy has no run of sgp"):
        lines_of("experiment=sgp/accuracy", "algorithm=dpsgd", "algorithm=sgp")  # no run is of both


def test_what_is_typed_has_the_rate_that_was_found_for_it() -> None:
    def rate(*typed: str) -> float:
        lines = lines_of("experiment=gossip/error_against_time", "algorithm=easgd", *typed)
        [words] = {word for line in lines if "nodes=8" in line or typed for word in line if "reference_lr" in word}
        return float(words.partition("=")[2])

    rates = studies.tuned("gossip")["virtual"]
    assert rate("nodes=128") == rates["algorithm=easgd nodes=128"] < rate("nodes=8") == rates["algorithm=easgd nodes=8"]
    assert rate("optimizer.reference_lr=0.3") == 0.3


@pytest.mark.parametrize(
    "line", [["algorithm=sgp", "nodes=4"], ["experiment=demo"], ["experiment=sgp/virtual", "-m"], []]
)
def test_anything_else_asks_for_no_study(line: list[str]) -> None:
    assert studies.asked(line) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            ["experiment=sgp/scaling", "scale=virtuel"],
            "scale=virtuel: not a scale of sgp/scaling; did you mean virtual",
        ),
        (["experiment=sgp/scaling", "scale="], "scale=: not a scale of sgp/scaling"),
        (["algorithm=sgp", "scale=paper"], "scale=paper: belongs to a study"),
        (["experiment=sgp/scalling"], "experiment=sgp/scalling: there is no such study; did you mean sgp/scaling"),
        (["experiment=sgp/scaling,sgp/virtual"], "experiment=sgp/virtual: is a preset and no study"),
        (["experiment=spg/scaling"], "experiment=spg/scaling: there is no such study; did you mean sgp/scaling"),
        (["experiment=SGP/scaling"], "experiment=SGP/scaling: there is no such study; did you mean sgp/scaling"),
        (["experiment=sgp/mine", "--config-dir", "conf"], "no such study; .*not in a --config-dir"),
        (["experiment=scaling"], "experiment=scaling: write the paper too: sgp/scaling"),
        (["experiment=sgp/scaling", "experiment=sgp/accuracy"], "is not the only one"),
        (["experiment=sgp"], "experiment=sgp: there is no such study"),
        (
            ["experiment=sgp/tuned"],
            "experiment=sgp/tuned: holds learning rates and is no preset; did you mean sgp/tuning",
        ),
    ],
)
def test_what_cannot_be_is_refused(line: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        studies.asked(line)


def test_several_studies_may_have_blanks_between_them() -> None:
    assert [study.name for study, _ in studies.asked(["experiment=sgp/scaling, sgp/accuracy"])] == [
        "sgp/scaling", "sgp/accuracy",
    ]  # fmt: skip


def test_a_quote_that_is_not_closed_is_told_by_file(conf: Path) -> None:
    write_study(conf, "  - algorithm=sgp 'failures.plan=[]\n")
    with pytest.raises(ConfigError, match=r"mine/one\.yaml: laptop: a line cannot be read .*; mend its quotes"):
        studies.load("mine/one")


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("{x: nods, y: top1}", "figures: x: nods: cannot be drawn; did you mean nodes"),
        ("{x: nodes, y: time_per_iteratio}", "figures: y: .*did you mean time_per_iteration"),
        ("{x: nodes, bye: [method]}", "figures: bye: there is no such key; did you mean by"),
        ("{x: nodes, where: nodes=4}", "figures: where: nodes=4: must be a list"),
        ("{x: nodes, where: [nodes]}", "figures: where: nodes: write key=value"),
        ("{x: nodes, where: [clusterr=10gbe]}", "figures: where: there is no 'clusterr'; did you mean cluster"),
        ("{x: nodes, by: [nodez]}", "figures: by: there is no 'nodez'; did you mean nodes"),
        ("{x: nodes, published: slowmoo}", "figures: published: slowmoo: cannot be drawn; did you mean slowmo"),
        ("{x: epoch, y: speedup}", "figures: --y speedup --x epoch: .*draw it with --x nodes"),
    ],
)
def test_a_figure_that_there_is_not_is_refused(figure: str, said: str, conf: Path) -> None:
    write_study(conf, f"  - algorithm=sgp\nfigures: [{figure}]\n")
    with pytest.raises(ConfigError, match=said):
        check(studies.load("mine/one"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{values: [epoch_time]}", "table: values: there is no 'epoch_time'; did you mean epoch_time_s"),
        ("{values: [time_to_target_s]}", "table: values: time_to_target_s: to which"),
        ("{by: [nodez]}", "table: by: there is no 'nodez'; did you mean nodes"),
        ("{rows: method, columns: node}", "table: columns: there is no 'node'; did you mean nodes"),
    ],
)
def test_a_name_that_there_is_not_is_refused(table: str, said: str, conf: Path) -> None:
    write_study(conf, f"  - algorithm=sgp\ntable: {table}\n")
    with pytest.raises(ConfigError, match=rf"mine/one\.yaml: {said}"):
        check(studies.load("mine/one"))


def test_what_runs_say_of_themselves_can_be_asked_for() -> None:
    known = {*SETTINGS, *METRICS, "staleness", "status", "group"}  # which make no rows
    for run in finished("sgp/virtual", [RESULTS])[0].values():
        assert run.values.keys() <= known


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{values: epoch_time_s}", "table: values: epoch_time_s: must be a list of words"),
        ("{values: null}", "table: values: None: must be a list of words"),
        ("{values: []}", r"table: values: \[\]: must be a list of words"),
        ("{by: [[method]]}", "table: by: .*: must be a list of words"),
        ("{rows: [method], columns: nodes}", "table: rows: .*: must be a word"),
    ],
)
def test_a_table_of_another_shape_is_refused(table: str, said: str, conf: Path) -> None:
    write_study(conf, f"  - algorithm=sgp\ntable: {table}\n")
    with pytest.raises(ConfigError, match=said):
        studies.load("mine/one")


def test_a_target_is_a_fraction(conf: Path) -> None:
    write_study(conf, "  - algorithm=sgp\ntarget: 80\n")
    with pytest.raises(ConfigError, match=r"target: 80: must be a top-1 as a fraction"):
        studies.load("mine/one")


def test_lines_that_are_the_same_run_are_one_cell() -> None:
    lines = {"virtual": ["algorithm=sgp", "algorithm=sgp algorithm.overlap=0", "algorithm=sgp algorithm.overlap=1"]}
    cells = cells_of(dataclasses.replace(studies.load("sgp/scaling"), lines=lines), "virtual")
    assert len(cells) == len({identity(resolve(config)) for config in cells}) == 24  # 2 methods, 4 sizes, 3 seeds


@pytest.mark.parametrize("flags", [[], ["--config-dir", "."]])
def test_a_mistake_in_one_of_several_lines_names_the_line(flags: list[str]) -> None:
    lines = [["-m", "algorithm=sgp", *flags], ["-m", "algorithm=easgd", "algorithm.tua=3", *flags]]
    with pytest.raises(ConfigError) as raised:
        compose_all(lines)
    assert str(raised.value).startswith("algorithm.tua")
    assert "(in the line: -m algorithm=easgd algorithm.tua=3" in str(raised.value)


def test_parts_of_a_study_have_names_that_files_can_have() -> None:
    typed = ["experiment=sgp/accuracy", "cluster.compute.slow={3: 4}", "nodes=4,8", "--config-dir=x"]
    assert re.fullmatch(r"-cluster\.compute\.slow=_3_4_-nodes=4,8-\w{6}", studies.narrowing(typed))
    long = [studies.narrowing([f"seed={','.join(map(str, range(count)))}"]) for count in (200, 201)]
    assert len({*long}) == 2
    assert max(map(len, long)) < 255 - len("sgp-accuracy-time_per_iteration-nodes-virtual.png")


def test_a_misspelt_key_of_a_study_is_named(conf: Path) -> None:
    (conf / "experiment/mine").mkdir(parents=True)
    (conf / "experiment/mine/one.yaml").write_text("title: One\nsource: none\nvirtaul:\n  - algorithm=sgp\n")
    with pytest.raises(ConfigError, match=r"mine/one\.yaml: virtaul: there is no such key; .*virtual"):
        studies.load("mine/one")


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the project's conf/."""
    monkeypatch.setattr(studies, "conf_dir", lambda: tmp_path)
    return tmp_path


def write_study(folder: Path, lines: str) -> None:
    (folder / "experiment/mine").mkdir(parents=True)
    (folder / "experiment/mine/one.yaml").write_text(f"title: One\nsource: none\nlaptop:\n{lines}")


def test_lists_stand_for_the_lines_that_have_one_of_each(conf: Path) -> None:
    write_study(
        conf,
        """
  - algorithm=allreduce nodes=1
  - sizes: [nodes=2 batch_size=8, nodes=4 batch_size=4]
    methods: [algorithm=sgp, "algorithm=dpsgd,easgd seed=1,2"]
    trouble: ["", "'cluster.compute.slow={3: 4.0}'"]
""",
    )
    slow = "cluster.compute.slow={3: 4.0}"
    assert studies.load("mine/one").whole_lines("laptop") == [
        ["algorithm=allreduce", "nodes=1"],
        ["nodes=2", "batch_size=8", "algorithm=sgp"],
        ["nodes=2", "batch_size=8", "algorithm=sgp", slow],
        ["nodes=2", "batch_size=8", "algorithm=dpsgd,easgd", "seed=1,2"],
        ["nodes=2", "batch_size=8", "algorithm=dpsgd,easgd", "seed=1,2", slow],
        ["nodes=4", "batch_size=4", "algorithm=sgp"],
        ["nodes=4", "batch_size=4", "algorithm=sgp", slow],
        ["nodes=4", "batch_size=4", "algorithm=dpsgd,easgd", "seed=1,2"],
        ["nodes=4", "batch_size=4", "algorithm=dpsgd,easgd", "seed=1,2", slow],
    ]


@pytest.mark.parametrize(
    "lines",
    [
        "  - nodes: 4\n",
        "  - methods: algorithm=sgp\n",
        "  - [algorithm=sgp]\n",
        "  - {methods: [algorithm=sgp], nodes: []}\n",
    ],
)
def test_lines_of_another_shape_are_refused(lines: str, conf: Path) -> None:
    write_study(conf, lines)
    with pytest.raises(ConfigError, match=r"mine/one\.yaml: .*: must be a list of parts of lines"):
        studies.load("mine/one")


@pytest.mark.parametrize("lines", ["", "  5\n", "  algorithm=sgp\n", "  methods: [algorithm=sgp]\n", "  []\n"])
def test_lines_that_are_no_list_are_refused(lines: str, conf: Path) -> None:
    write_study(conf, lines)
    with pytest.raises(ConfigError, match=r"mine/one\.yaml: laptop: .*must be a list"):
        studies.load("mine/one")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("common: 5", "common: 5: must be a mapping"),
        ("common: {laptopp: seed=1}", "common: laptopp: not a scale; did you mean laptop"),
        ("common: {laptop: [seed=1]}", r"common: laptop: \['seed=1'\]: must be a part of a line"),
        ("table: [a]", r"table: \['a'\]: must be a mapping"),
        ("table: {bye: [method]}", "table: bye: there is no such key; did you mean by"),
        ("table: {rows: method, by: [nodes]}", "table: by: there is no such key"),
        ("table: {rows: method}", "table: has one of rows and columns; name both"),
        ("notes: hello", "notes: hello: must be a list"),
        ("notes: [5]", "notes: 5: must be words, or words by scale"),
        ("notes: [{virtaul: hello}]", "notes: .*virtaul.*: must be words, or words by scale"),
        ("figures: {x: nodes}", "figures: .*: must be a list"),
        ("figures: [x]", "figures: x: must be options of `experiments plot`"),
        ("target: much", "target: much: must be a number"),
    ],
)
def test_other_keys_of_another_shape_are_refused(text: str, said: str, conf: Path) -> None:
    write_study(conf, f"  - algorithm=sgp\n{text}\n")
    with pytest.raises(ConfigError, match=f"mine/one.yaml: {said}"):
        studies.load("mine/one")


def test_a_note_may_be_of_one_scale(conf: Path) -> None:
    write_study(conf, "  - algorithm=sgp\nnotes: [always, {virtual: there}, {laptop: here, paper: on a cluster}]\n")
    study = studies.load("mine/one")
    assert study.notes_at("laptop") == ["always", "here"]
    assert study.notes_at("virtual") == ["always", "there"]
    assert study.notes_at("paper") == ["always", "on a cluster"]


def test_a_study_without_a_title_or_a_source_is_refused(conf: Path) -> None:
    write_study(conf, "  - algorithm=sgp\n")
    path = conf / "experiment/mine/one.yaml"
    whole = path.read_text()
    for line, key in (("title: One\n", "title"), ("source: none\n", "source")):
        path.write_text(whole.replace(line, ""))
        with pytest.raises(ConfigError, match=rf"mine/one\.yaml: {key}: is missing"):
            studies.load("mine/one")


def test_a_study_of_ones_own_needs_a_preset_but_none_of_the_paper(conf: Path) -> None:
    write_study(conf, "  - algorithm=sgp\n")
    with pytest.raises(ConfigError, match=r"mine/laptop\.yaml: is missing; mine/one needs it"):
        studies.asked(["experiment=mine/one", "scale=laptop"])
    (conf / "experiment/mine/laptop.yaml").write_text("# @package _global_\n")
    [(study, _)] = studies.asked(["experiment=mine/one", "scale=laptop"])
    assert (paper_setting("mine"), deviations_of(study, [])) == ("", [])


def test_each_method_gets_the_rate_that_was_found_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"algorithm=sgp": 0.05, "algorithm=allreduce": 0.2, "algorithm=allreduce nodes=4": 0.4}
    monkeypatch.setattr(studies, "tuned", lambda paper: {"laptop": rates})

    def lines(line: str) -> list[list[str]]:
        return [words[2:] for words in studies.Study("sgp/x", "", "", {"laptop": [line]}).commands("laptop")]

    assert lines("algorithm=allreduce,dpsgd,sgp nodes=4 seed=0,1") == [
        ["algorithm=allreduce", "nodes=4", "seed=0,1", "optimizer.reference_lr=0.4"],  # the most particular one
        ["algorithm=dpsgd", "nodes=4", "seed=0,1"],
        ["algorithm=sgp", "nodes=4", "seed=0,1", "optimizer.reference_lr=0.05"],
    ]
    for fixed in ("algorithm=sgp optimizer.reference_lr=1", "algorithm=sgp problem=none"):
        assert lines(fixed) == [fixed.split()]
