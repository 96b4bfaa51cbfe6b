"""How the runs of a study differ from the paper's is said, and nothing else is."""

from __future__ import annotations

import pytest

from runner import studies
from runner.composing import compose
from runner.deviations import deviations_of, differences, paper_keys, paper_setting
from runner.prepare import resolve
from runner.study_runs import cells_of


def test_what_differs_from_the_paper_is_said() -> None:
    [(paper, _)] = compose(["experiment=sgp/paper", "algorithm=sgp"])
    [(virtual, _)] = compose(["experiment=sgp/virtual", "algorithm=sgp"])
    assert differences(paper, paper) == []
    told = differences(virtual, paper)
    assert {
        "machines simulated: 10gbe, time as for cost resnet50_v100 (scale=paper: real ones)",
        "cost.overlap_backward=false of the simulated cluster",
        "model mlp model.hidden=[16] (scale=paper: resnet50)",
        "epochs 12 (scale=paper: 90)",
    } <= set(told)
    assert "schedule.milestones [4,8,11] (scale=paper: [30,60,80])" in told
    assert not [line for line in told if line.startswith(("model.", "results_dir", "device", "optimizer"))]
    [(timing, _)] = compose(["experiment=sgp/virtual", "algorithm=sgp", "problem=none"])
    assert not [line for line in differences(timing, paper) if line.startswith(("model", "schedule"))]


@pytest.mark.parametrize("name", [name for name in studies.names() if "paper" in studies.load(name).lines])
def test_the_papers_own_runs_differ_in_nothing(name: str) -> None:
    study = studies.load(name)
    assert deviations_of(study, cells_of(study, "paper")) == []


def test_a_method_that_a_study_has_not_at_the_papers_scale_is_held_against_other_studies_of_the_paper() -> None:
    study = studies.load(
        "sasgd/downpour_speedup"
    )  # Downpour brings Adagrad and a rate for it, which this paper has not
    told = deviations_of(study, cells_of(study, "virtual"))
    rates = [line for line in told if line.startswith("learning rate")]
    assert all("(scale=paper: 0.01): " in line for line in rates)
    assert "learning rate 6.25e-05 (scale=paper: 0.01): downpour (n_push=50, n_fetch=50)" in rates
    study = studies.load("gossip/clusters")
    told = deviations_of(study, cells_of(study, "virtual"))
    assert "problem none problem.train_samples=122880 (scale=paper: supervised)" in told
    assert "batch_size 32 (scale=paper: 2): 128 nodes" in told


def test_of_lines_that_are_alike_the_one_on_as_many_nodes_is_held_against() -> None:
    study = studies.load("gossip/contention")
    told = deviations_of(study, [cell for cell in cells_of(study, "virtual") if cell["nodes"] == 16])
    assert "batch_size 32 (scale=paper: 16)" in told
    assert not [line for line in told if line.startswith("nodes")]
    told = deviations_of(study, cells_of(study, "virtual"))
    assert "cost.overlap_backward=false of the simulated cluster: allreduce" in told
    assert "batch_size 32 (scale=paper: 8): 32 nodes" in told
    study = studies.load("gossip/assumptions")  # has no lines of the paper's, whose batch depends on the nodes
    told = deviations_of(study, [cell for cell in cells_of(study, "virtual") if cell["seed"] == 0])
    assert not [line for line in told if line.startswith(("batch_size", "nodes"))]


@pytest.mark.parametrize("name", ["sgp/accuracy", "gossip/error_against_time", "sasgd/accuracy"])
def test_what_is_filled_in_for_a_run_is_no_difference(name: str) -> None:
    study = studies.load(name)
    cells = cells_of(study, "virtual")
    told = deviations_of(study, cells)
    assert deviations_of(study, [resolve(cell) for cell in cells]) == told


def test_a_difference_names_the_runs_that_it_is_of() -> None:
    study = studies.load("sgp/accuracy")
    told = deviations_of(study, cells_of(study, "virtual"))
    assert "epochs 12 (scale=paper: 90)" in told  # of all
    assert "problem.batched true (scale=paper: false): 8, 16, 32 nodes" in told
    [rates] = [line for line in told if line.startswith("optimizer.reference_lr 0.025")]
    assert "sgp on 32 nodes" in rates
    assert "dpsgd (order=adapt_then_combine) on 16, 32 nodes" in rates
    study = studies.load("gossip/failures")
    told = deviations_of(study, cells_of(study, "virtual"))
    assert "cluster.compute.sleep_ranks=[3] of the simulated cluster: some runs" in told


def test_runs_are_held_against_those_in_the_same_place_where_there_are_as_many() -> None:
    study = studies.load("hier_avg/special_cases")  # K2=32 is nearer to the paper's K2=16, but stands for its K2=64
    told = deviations_of(study, cells_of(study, "laptop"))
    assert "algorithm.K2 32 (scale=paper: 64): hier_avg (K1=8, K2=32, S=4)" in told
    study = studies.load("sgp/accuracy")
    told = deviations_of(study, cells_of(study, "virtual"))
    assert not [line for line in told if line.startswith(("nodes", "algorithm"))]


def test_what_the_preset_of_the_paper_leaves_open_is_no_difference() -> None:
    known = paper_keys("sgp")
    assert {"dataset", "model", "schedule", "epochs", "evaluation.model"} <= known
    assert "nodes" not in known
    [(paper, _)] = compose(["experiment=sgp/paper", "algorithm=sgp"])
    [(virtual, _)] = compose(["experiment=sgp/virtual", "algorithm=sgp", "nodes=16"])
    assert "nodes 16 (scale=paper: 4)" in differences(virtual, paper)
    told = differences(virtual, paper, known)
    assert not [line for line in told if line.startswith("nodes")]
    assert "epochs 12 (scale=paper: 90)" in told


def test_a_learning_rate_is_held_against_that_of_the_paper() -> None:
    [(paper, _)] = compose(["experiment=gossip/paper", "algorithm=allreduce"])
    virtual = ["experiment=gossip/virtual", "algorithm=allreduce", "nodes=8", "batch_size=32"]
    for rate, said in ((0.05, ["learning rate 0.05 (scale=paper: 0.1)"]), (0.1, [])):  # 256 images in all
        [(ours, _)] = compose([*virtual, f"optimizer.reference_lr={rate}"])
        assert [line for line in differences(ours, paper) if "rate" in line or "_lr" in line] == said


def test_what_is_unverified_of_a_papers_setting_is_said() -> None:
    for paper in {name.partition("/")[0] for name in studies.names()}:
        assert "unverified" in paper_setting(paper)
