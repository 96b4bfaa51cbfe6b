"""Cells of a sweep are what each would be if it had been composed alone."""

from __future__ import annotations

import pytest

from runner import studies, sweeps
from runner.build import ConfigError
from runner.composing import compose, compose_all

SWEEPS = [  # overrides, separated by two spaces
    "algorithm=sgp,easgd  seed=0,1  optimizer.lr=0.1",
    "model.hidden=[8],[8,8]  nodes=2,4",
    "topology=ring,star  algorithm=dpsgd  experiment=demo",
    "launcher=simulated,local  epochs=${nodes},3",
    "launcher=simulated  cluster.compute.slow={3:2.0},{1:4.0}  seed=0,1",
    "optimizer.lr=0.1,0.2  optimizer={lr:3,momentum:0}",
    "optimizer={lr:3,momentum:0}  optimizer.lr=0.1,0.2",
    "seed=0,1  seed=2",
    "results_dir='a b','c$d'  batch_size=null  hydra.verbose=false",
    "+launcher.additional_parameters.nice=1,2  launcher=slurm  launcher.partition=[a,b]",
]
REFUSED = ["seed=0,x", "nodes=2  nodez=1,2", "model.hiden=1,2", "optimizer.lr=1,fast", "algorithm=sgp,no"]


def composed(typed: str) -> list[object] | str:
    try:
        return [*compose(["-m", *typed.split("  ")])]
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("typed", [*SWEEPS, *REFUSED])
def test_a_cell_is_what_it_would_be_alone(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly = composed(typed)
    monkeypatch.setattr(sweeps.Composer, "_is_plain", lambda *_: False)
    assert quickly == composed(typed)
    assert isinstance(quickly, list) == (typed in SWEEPS)


@pytest.mark.parametrize("study", ["sgp/assumptions", "gossip/failures", "hier_avg/time_per_iteration"])
def test_a_line_of_a_study_is_what_it_would_be_alone(study: str) -> None:
    lines = studies.load(study).commands("virtual")[::5]
    assert compose_all(lines) == [compose(line) for line in lines]


def test_a_line_that_cannot_be_composed_is_named() -> None:
    with pytest.raises(ConfigError, match="nodez"):
        compose_all([["-m", "nodes=2"], ["-m", "nodez=2"]])
