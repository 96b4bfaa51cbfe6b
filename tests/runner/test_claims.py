"""Verdicts: their statistics, and that they come out of runs alone."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from runner.claims import sgp
from runner.claims.answers import Answer, Verdict, at_most, difference, either, every, overall, positive, smaller
from runner.claims.evidence import SEEDS, Evidence, MissingRunsError, Values, by_seed
from runner.claims.register import CHECKS, judge, published
from runner.composing import compose
from runner.config import conf_dir
from runner.experiments import app
from runner.prepare import resolve
from runner.report.runs import Run

SHOWCASE = Path(__file__).parents[2] / "results/showcase"


def test_welchs_interval() -> None:
    """Against numbers worked out by hand: means 2 and 5, variances 1 and 4, 3.2 ... degrees of freedom."""
    low = Values({0: 1.0, 1: 2.0, 2: 3.0})
    high = Values({0: 3.0, 1: 5.0, 2: 7.0})
    mean, least, most = difference(low, high)
    error = (1 / 3 + 4 / 3) ** 0.5
    freedom = (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert mean == -3.0
    assert freedom == pytest.approx(2.941, abs=1e-3)
    assert (mean - least, most - mean) == pytest.approx((3.2196 * error, 3.2196 * error), rel=1e-3)


def test_a_verdict_needs_the_whole_interval() -> None:
    assert at_most(0.1, 0.9, 1.2) == "holds"
    assert at_most(0.1, 1.3, 1.2) == "undecided"
    assert at_most(1.3, 2.7, 1.2) == "does not hold"


def test_where_assumptions_disagree_they_are_named() -> None:
    answers = [Answer("holds", "", 3, "", "slow links"), Answer("does not hold", "", 3, "", "fast links")]
    verdict, why = overall(answers)
    assert verdict == "undecided"
    assert why == "it depends: does not hold with 'fast links'; holds with 'slow links'"
    assert overall(answers[:1]) == ("holds", "")
    verdict, why = overall([Answer("undecided", "", 3, "", "slow links", "a tie"), answers[1]])
    assert verdict == "undecided"
    assert why == "a tie; does not hold with 'fast links'; undecided with 'slow links'"


def run(folder: Path, seed: int, top1: float, **config: object) -> Run:
    place = folder / f"{seed:012x}"
    place.mkdir(parents=True)
    config = {"nodes": 4, "problem": {"kind": "supervised"}, "choices": {"algorithm": "sgp"}} | config
    (place / "config.yaml").write_text(json.dumps(config))
    summary = {"algorithm": "sgp", "seed": seed, "top1_mean_model": top1, "evaluated_model": "mean"}
    return Run(place, "sgp/virtual", "finished", {}, summary)


def test_evidence_is_found_by_configuration(tmp_path: Path) -> None:
    runs = [run(tmp_path, seed, 0.9 + seed / 100, nodes=4 if seed < 3 else 8) for seed in range(5)]
    evidence = Evidence(runs)
    assert evidence.measured("top1", nodes=4, algorithm="sgp", problem="supervised").of == {
        0: 0.9, 1: 0.91, 2: 0.92,
    }  # fmt: skip
    assert evidence.used == runs[:3]
    with pytest.raises(ValueError, match="several runs of one seed"):
        Evidence([*runs, run(tmp_path / "again", 0, 0.8)]).measured("top1", nodes=4)
    with pytest.raises(ValueError, match="differ in epochs too"):
        Evidence([*runs, run(tmp_path / "longer", 7, 0.8, epochs=2)]).measured("top1", nodes=4)
    with pytest.raises(MissingRunsError, match="2 of 3 seeds of nodes=8"):
        evidence.measured("top1", nodes=8)
    with pytest.raises(MissingRunsError, match="0 of 3 seeds of nodes=16"):
        evidence.measured("top1", nodes=16)


def test_a_mapping_is_not_taken_for_nothing(tmp_path: Path) -> None:
    slow = run(tmp_path, 0, 0.5, slow={3: 4.0})
    with pytest.raises(MissingRunsError):
        Evidence([slow]).measured("top1", seeds=1, slow=None)
    assert Evidence([run(tmp_path, 1, 0.5)]).measured("top1", seeds=1, slow=None).mean == 0.5


@pytest.mark.parametrize("text", [None, "", "[1]", "a: [", "choices: 3\nproblem: {}", "\x00"])
def test_a_run_whose_configuration_cannot_be_read_is_no_evidence(text: str | None, tmp_path: Path) -> None:
    broken, whole = run(tmp_path, 0, 0.5), run(tmp_path, 1, 0.6)
    (broken.folder / "config.yaml").unlink()
    if text is not None:
        (broken.folder / "config.yaml").write_text(text)
    evidence = Evidence([broken, whole])
    assert evidence.measured("top1", seeds=1, nodes=4).of == {1: 0.6}
    assert evidence.problems == [f"skipped {broken.folder / 'config.yaml'}: cannot be read; rerun=true makes it again"]
    again = run(tmp_path / "kept", 0, 0.5)
    evidence = Evidence([broken, whole], spare={broken.identity: again})
    assert evidence.measured("top1", seeds=2, nodes=4).of == {0: 0.5, 1: 0.6}


def test_parts_are_combined_under_each_assumption() -> None:
    parts = [Answer("holds", "", 3, "one"), Answer("undecided", "", 3, "two"), Answer("does not hold", "", 3, "three")]
    assert overall(parts)[0] == "does not hold"
    assert overall(parts[:2])[0] == "undecided"
    assert overall(parts, either)[0] == "holds"
    assert overall(parts[1:], either)[0] == "undecided"
    slow, fast = Answer("holds", "", 3, "speed", "slow links"), Answer("does not hold", "", 3, "speed", "fast links")
    accuracy, inaccuracy = Answer("holds", "", 3, "accuracy"), Answer("does not hold", "", 3, "accuracy")
    assert overall([accuracy, slow]) == overall([accuracy, slow, fast], either) == ("holds", "")
    assert overall([accuracy, slow, fast])[0] == "undecided"
    assert overall([inaccuracy, slow, fast]) == ("does not hold", "")
    assert overall([inaccuracy, slow, fast], either)[1].startswith("it depends: does not hold with 'fast links'")


def test_where_only_some_parts_were_checked_a_claim_cannot_hold() -> None:
    def answers(first: Verdict, second: Verdict, noisy: Verdict) -> list[Answer]:
        ideal = [Answer(first, "", 3, "one", "ideal"), Answer(second, "", 3, "two", "ideal")]
        return [*ideal, Answer(noisy, "", 3, "one", "noise")]

    assert overall(answers("holds", "holds", "holds")) == ("holds", "")
    assert overall(answers("holds", "does not hold", "holds")) == ("does not hold", "")
    assert overall(answers("holds", "holds", "does not hold"))[0] == "undecided"
    verdict, why = overall(answers("holds", "undecided", "holds"))
    assert verdict == "undecided"
    assert "noise" not in why


def test_what_is_beside_the_verdict_is_no_part_of_it() -> None:
    refuted = Answer("does not hold", "", 3, "", "ideal")
    verdict, why = overall([refuted, Answer("holds", "", 3, "", "slow links", beside=True)])
    assert verdict == "does not hold"
    assert why == "it would hold with 'slow links', for which nothing speaks"
    assert overall([refuted, Answer("does not hold", "", 3, "", "slow links", beside=True)]) == ("does not hold", "")


def test_times_lie_between_two_evaluations() -> None:
    def between(*pairs: tuple[float, float]) -> Values:
        return Values(dict(enumerate(late for _, late in pairs)), dict(enumerate(early for early, _ in pairs)))

    soon, late = between((0.5, 1.0), (1.0, 1.5), (1.5, 2.0)), between((8.5, 9.0), (9.0, 9.5), (9.5, 10.0))
    assert smaller(soon, late) == "holds"
    assert smaller(late, soon) == "does not hold"
    assert smaller(soon, soon) == "undecided"
    wide = between((0.5, 9.0), (0.5, 9.1), (0.5, 9.2))  # whose evaluations are far apart
    assert smaller(wide, late) == smaller(soon, wide) == "undecided"


def test_what_never_got_there_is_later_than_what_did() -> None:
    soon, never = (
        Values({0: 1.0, 1: 2.0, 2: 3.0}),
        Values(dict.fromkeys(range(3), math.inf), dict.fromkeys(range(3), 0.5)),
    )
    assert smaller(soon, never) == "holds"
    assert smaller(never, soon) == "does not hold"
    assert smaller(never, never) == "undecided"
    one_late = Values({0: math.inf, 1: 9.0, 2: 9.5}, {0: 12.0, 1: 8.5, 2: 9.0})
    assert smaller(soon, one_late) == "holds"  # each of its seeds is
    assert smaller(one_late, soon) == "does not hold"
    assert (
        smaller(soon, Values({0: math.inf, 1: 9.0, 2: 3.5}, {1: 8.5, 2: 2.5})) == "undecided"
    )  # 3.0 is within 2.5 to 3.5


def test_times_by_a_factor_and_wide_ones() -> None:
    def between(*pairs: tuple[float, float]) -> Values:
        return Values(dict(enumerate(late for _, late in pairs)), dict(enumerate(early for early, _ in pairs)))

    soon, late = between((0.5, 1.0), (1.0, 1.5), (1.5, 2.0)), between((8.5, 9.0), (9.0, 9.5), (9.5, 10.0))
    assert smaller(late, soon.times(8.0)) == "undecided"
    assert smaller(late, late.times(8.0)) == "holds"


def test_of_conditions_that_must_all_hold_an_open_one_counts() -> None:
    for verdicts in (["holds", "undecided"], ["undecided", "holds"]):
        assert every(each for each in verdicts) == every(verdicts) == "undecided"
    assert every(iter(["undecided", "does not hold"])) == "does not hold"
    assert every([]) == "holds"


def test_a_broken_file_is_named_and_is_no_evidence(tmp_path: Path) -> None:
    whole = run(tmp_path / "runs/sgp/virtual", 0, 0.5)
    (whole.folder / "summary.json").write_text("{")
    (judged, *_) = judge([tmp_path], "virtual", "sgp")
    assert [problem for problem in judged.problems if str(whole.folder) in problem]
    assert judged.verdict == "not run"


def test_without_runs_no_claim_has_a_verdict(tmp_path: Path) -> None:
    judged = judge([tmp_path], "virtual")
    assert [each.id for each in judged] == [row["id"] for row in published()]
    assert {each.verdict for each in judged} == {"not run"}
    assert all(each.command.startswith("run-experiment experiment=") for each in judged if each.id in CHECKS)


def test_other_scales_and_folders_without_runs(tmp_path: Path) -> None:
    (tmp_path / "runs/sgp/virtual/not-a-run").mkdir(parents=True)
    (tmp_path / "runs/gossip/virtual").mkdir(parents=True)
    assert {each.verdict for each in judge([tmp_path], "virtual")} == {"not run"}
    assert [each.verdict for each in judge([tmp_path, SHOWCASE], "virtual")] == [
        each.verdict for each in judge([SHOWCASE], "virtual")
    ]
    assert all("scale=virtual" in each.command and each.verdict == "not run" for each in judge([SHOWCASE], "laptop"))


def test_what_the_showcase_answers() -> None:
    for each in judge([SHOWCASE], "virtual"):
        assert (each.verdict != "not run") == (each.id in CHECKS), each
        assert each.n >= SEEDS
        assert each.reason or each.verdict in ("holds", "does not hold")


def test_one_claim_alone() -> None:
    done = CliRunner().invoke(app, ["claims", "sgp-small", "--format", "json", "--results-dir", str(SHOWCASE)])
    assert [each["id"] for each in json.loads(done.stdout)] == ["sgp-small"]


def alike(folder: Path, algorithm: str, *top1: float) -> list[Run]:
    choices = {"algorithm": algorithm, "topology": "one_peer_exponential"}
    method = {"choices": choices, "algorithm": {"overlap": 0}}
    return [run(folder / algorithm, seed, value, **method) for seed, value in enumerate(top1)]


def test_how_far_apart_two_methods_lie_is_held_against_the_spread_of_seeds(tmp_path: Path) -> None:
    allreduce = alike(tmp_path, "allreduce", 0.84, 0.86, 0.85)
    found = sgp.gap(Evidence([*allreduce, *alike(tmp_path, "sgp", 0.84, 0.85, 0.83)]), 4)
    assert (found.points, found.spread, found.n) == pytest.approx((1.0, 2.0, 3))
    assert found.points - found.low == pytest.approx(found.high - found.points)


@pytest.mark.parametrize("table_format", ["terminal", "markdown", "latex", "csv"])
def test_the_command_in_words(table_format: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["claims", "sgp", "--format", table_format, "--results-dir", str(SHOWCASE.parent)])
    assert done.exit_code == 0
    for row in published():
        assert (row["id"] in done.stdout) == (row["paper"] == "sgp")


def test_a_claim_has_a_row_of_its_own_before_those_of_its_answers() -> None:
    arguments = ["claims", "sgp-speed", "--format", "csv", "--results-dir", str(SHOWCASE)]
    whole, *answers = csv.DictReader(io.StringIO(CliRunner().invoke(app, arguments).stdout))
    assert (whole["id"], whole["assumption"], whole["verdict"]) == ("sgp-speed", "all together", "does not hold")
    assert "3.1x" in whole["numbers"]
    assert "Checked: t_allreduce / t_sgp" in whole["numbers"]
    assert len(answers) > 3


def test_a_claim_that_a_run_which_diverged_left_open_is_not_called_not_run(tmp_path: Path) -> None:
    shutil.copytree(SHOWCASE, tmp_path / "showcase")
    for path in (tmp_path / "showcase/runs/sgp/virtual").glob("*/summary.json"):
        summary = json.loads(path.read_text())
        path.write_text(json.dumps(summary | {"top1_workers_mean": math.nan}))  # by which SGP's are evaluated
    arguments = ["claims", "sgp-accuracy", "--format", "csv", "--results-dir", str(tmp_path)]
    [row] = csv.DictReader(io.StringIO(CliRunner().invoke(app, arguments).stdout))
    assert row["verdict"] == "undecided"
    assert "diverged" in row["numbers"]


def test_the_command_in_brief() -> None:
    arguments = ["claims", "--brief", "--format", "markdown", "--results-dir", str(SHOWCASE)]
    lines = CliRunner().invoke(app, arguments).stdout.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 16
    readme = (SHOWCASE.parents[1] / "README.md").read_text().splitlines()
    assert [line for line in readme if line in rows] == rows, "README's table is what this command prints"


def test_where_there_are_no_kept_runs_it_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["claims", "sgp", "--format", "json", "--brief", "--results-dir", str(tmp_path)])
    assert f"there is no {tmp_path / 'showcase'}" in done.stderr
    assert {row["verdict"] for row in json.loads(done.stdout)} == {"not run"}


def test_the_command_for_programs() -> None:
    done = CliRunner().invoke(app, ["claims", "--format", "json", "--results-dir", str(SHOWCASE.parent)])
    rows = json.loads(done.stdout)
    assert len(rows) == 16
    for row in rows:
        assert {"id", "verdict", "n", "clock", "scale", "command"} <= set(row)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "there is no 'nobody'"),
        (["sgp-smal"], "did you mean sgp-small"),
        (["--scale", "big"], "'big'"),
    ],
)
def test_wrong_names(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["claims", *arguments])
    assert done.exit_code == 2
    assert said in done.output


def test_the_links_of_an_assumption_are_those_that_were_measured() -> None:
    lines = (SHOWCASE.parent / "link_efficiency.txt").read_text().splitlines()
    cluster = yaml.safe_load((conf_dir() / "cluster/10gbe_gloo.yaml").read_text())
    for link, operation in (("inter", "exchange"), ("reduction_link", "all-reduce")):
        medians = [float(line.split()[3]) for line in lines if operation in line.split()]
        assert len(medians) == 4
        assert min(medians) == cluster[link]["efficiency"]


def test_sides_are_compared_on_the_seeds_that_all_have() -> None:
    few, more = Values({0: 1.0, 1: 2.0, 2: 1.0}), Values({1: 4.0, 0: 3.0, 2: 1.0, 5: 9.0})
    assert by_seed(few, more) == {0: (1.0, 3.0), 1: (2.0, 4.0), 2: (1.0, 1.0)}
    assert (more / few).of == {0: 3.0, 1: 2.0, 2: 1.0}
    assert (more - few).of == {0: 2.0, 1: 2.0, 2: 0.0}
    with pytest.raises(MissingRunsError, match="2 of 3 seeds that all sides"):  # though each side has three
        by_seed(few, Values({0: 1.0, 1: 1.0, 7: 1.0}))


def test_a_margin_is_above_zero_in_the_mean() -> None:
    assert positive([0.1, 0.1, 0.1]) == "holds"  # times without noise
    assert positive([-0.1] * 3) == positive([0.0] * 3) == "does not hold"
    assert positive([1.0, 1.1, 0.9]) == "holds"
    assert positive([-1.0, -1.1, -0.9]) == "does not hold"
    assert positive([0.1, 1.0, 3.0]) == "undecided"  # every seed says so, but three that differ so much are too few


@pytest.mark.parametrize("loss", [None, math.nan])
def test_a_run_that_diverged_is_not_left_out_in_silence(loss: float | None, tmp_path: Path) -> None:
    whole = [run(tmp_path, seed, 0.9) for seed in range(3)]
    lost = run(tmp_path, 3, 0.1)
    assert lost.summary is not None
    lost.summary["loss_mean_model"] = loss
    for each in whole:
        assert each.summary is not None
        each.summary["loss_mean_model"] = 0.5
    assert Evidence(whole).measured("loss_mean_model", nodes=4).mean == 0.5
    with pytest.raises(ValueError, match="have no loss_mean_model, as where training diverged: 000000000003"):
        Evidence([*whole, lost]).measured("loss_mean_model", nodes=4)


def test_settings_without_effect_make_no_two_kinds_of_runs(tmp_path: Path) -> None:
    [(config, _)] = compose(["experiment=sgp/virtual", "algorithm=sgp", "problem=none", "gpus_per_node=8"])
    same = {key: value for key, value in resolve(config).items() if key != "seed"}
    older = {
        **same,
        "evaluation": {k: v for k, v in same["evaluation"].items() if k != "own"},
        "model": {"hidden": [64]},
    }
    runs = [run(tmp_path, seed, 0.5, **(older if seed else same)) for seed in range(3)]
    assert len(Evidence(runs).measured("top1", algorithm="sgp").of) == 3
    other = {**same, "epochs": 5}
    others = [run(tmp_path, seed, 0.9, **other) for seed in (3, 4)]
    with pytest.raises(ValueError, match=r"differ in .*epochs"):
        Evidence([*runs, *others]).measured("top1", algorithm="sgp")
    further = run(tmp_path, 5, 0.5, **same)  # a seed that the study has not
    evidence = Evidence([*others, *runs, further], own=lambda: runs)
    assert set(evidence.measured("top1", algorithm="sgp").of) == {0, 1, 2, 5}
