"""Cells of a sweep are what each would be if it had been composed alone."""

from __future__ import annotations

import pytest

from runner import sweeps
from runner.build import ConfigError
from runner.main import compose

SWEEPS = [
    "seed=0,1,2 nodes=2,4",
    "algorithm=allreduce,sgp,easgd,diloco seed=0,1 optimizer.lr=0.1,0.3",
    "model.hidden=[8],[8,8],[] model=mlp",
    "model=mlp,lenet dataset=digits,synthetic",
    "topology=ring,star algorithm=dpsgd,sgp",
    "experiment=demo,null seed=0,1 nodes=2",
    "launcher=simulated,local epochs=1,2",
    "launcher=simulated cluster=10gbe,infiniband_100g cluster.inter.latency_s=0.1,0.2",
    "launcher=simulated cluster.compute.slow={3:2.0},{1:4.0} seed=0,1",
    "launcher=simulated +cluster.compute.slow={3:2.0} seed=0,1",
    "optimizer.lr=0.1,0.2 optimizer={lr:3,momentum:0}",
    "optimizer={lr:3,momentum:0} optimizer.lr=0.1,0.2",
    "seed=0,1 seed=2",
    "results_dir='a b','c$d' batch_size=null,3",
    "epochs=${nodes},3 nodes=2,5",
    "+launcher.additional_parameters.nice=1,2 launcher=slurm",
    "launcher=slurm launcher.partition=a,[b,c],null launcher.time=10,'1:00:00'",
    "nodes=range(1,4) evaluation.every=1,2",
    "algorithm.overlap=0,1 algorithm=sgp hydra.verbose=false",
]


def composed(typed: str) -> list[object] | str:
    try:
        return [*compose(["-m", *typed.split(" ")])] if "'a b'" not in typed else [*compose(["-m", *_split(typed)])]
    except ConfigError as error:
        return str(error)


def _split(typed: str) -> list[str]:
    return [f"results_dir{part}" for part in typed.split("results_dir")[1:]][0].rsplit(" ", 1)


@pytest.mark.parametrize("typed", [*SWEEPS, "seed=0,x", "nodes=2 nodez=1,2", "model.hiden=1,2", "optimizer.lr=1,fast"])
def test_a_cell_is_what_it_would_be_alone(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly = composed(typed)
    monkeypatch.setattr(sweeps.Cells, "_is_plain", lambda *_: False)
    assert quickly == composed(typed)
    assert isinstance(quickly, list) == (typed in SWEEPS)
