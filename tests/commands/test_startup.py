"""What answers at once: help, printed configurations, completion, lists and tables. None of it may import torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import Done, type_in
from omegaconf import DictConfig, OmegaConf

Quick = Callable[..., Done]


@pytest.fixture
def quick(tmp_path: Path) -> Quick:
    """Types a command that would end at once if it imported torch, in an empty folder unless told otherwise."""
    (tmp_path / "no_torch").mkdir()
    (tmp_path / "no_torch/torch.py").write_text("import os\nos._exit(99)\n")

    def quick(*arguments: str, command: str = "run-experiment", cwd: Path = tmp_path, **more: str) -> Done:
        done = type_in(*arguments, command=command, cwd=cwd, PYTHONPATH=str(tmp_path / "no_torch"), **more)
        assert (done.status, done.stderr) == (0, "")
        return done

    return quick


def test_the_trap_works(tmp_path: Path, quick: Quick) -> None:
    with pytest.raises(AssertionError):
        quick("algorithm=sgp", "nodes=2")


def test_help_names_groups_keys_and_own_options(tmp_path: Path, quick: Quick) -> None:
    plain = quick("--help").stdout
    for known in (
        "algorithm=sgp nodes=4",
        "adpsgd, allreduce, allreduce_then_sgp, async_sgd",
        "one_peer_exponential",
        "fashion_mnist",
        "rerun=true",
        "sgp/accuracy, sgp/assumptions, sgp/consensus",
    ):
        assert known in " ".join(plain.split())  # where lines break depends on what there is
    assert all(len(line) <= 120 for line in plain.splitlines())
    (tmp_path / "mine/algorithm").mkdir(parents=True)
    (tmp_path / "mine/algorithm/novel.yaml").write_text("_target_: novel.Novel\n")
    assert "novel," in quick("--config-dir", "mine", "--help").stdout.split()


def test_cfg_prints_the_whole_configuration(quick: Quick) -> None:
    typed = ("algorithm=sgp", "algorithm.overlap=2", "nodes=3", "optimizer=adam", "model.hidden=[8,8]")
    config = OmegaConf.create(quick(*typed, "--cfg", "job").stdout)
    assert isinstance(config, DictConfig)
    assert (config.algorithm.overlap, config.nodes, config.model.hidden) == (2, 3, [8, 8])
    assert config.optimizer._target_ == "torch.optim.Adam"
    assert config.topology._target_ == "algorithms.topologies.one_peer_exponential"  # what sgp brings along
    assert {"epochs", "batch_size", "seed", "device", "launcher", "results_dir"} <= set(config)
    flag_first = quick("--cfg", "job", *typed).stdout
    assert OmegaConf.create(flag_first) == config


METHODS = {f"algorithm={path.stem}" for path in (Path(__file__).parents[2] / "conf/algorithm").glob("*.yaml")}


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("algorithm=", METHODS),
        ("algorithm=sgp topology=star", {"topology=star"}),
        ("algorithm=sgp algorithm.o", {"algorithm.overlap="}),
        ("optimizer.m", {"optimizer.momentum="}),
    ],
)
def test_completion(line: str, completions: set[str], quick: Quick) -> None:
    line = f"run-experiment {line}"
    done = quick("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert set(done.stdout.split()) == completions
    assert "complete -o nospace" in quick("-sc", "install=bash").stdout


@pytest.mark.multiproc
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["--help"], ["list", "table", "plot"]), (["list"], ["finished", "dpsgd"]), (["table"], ["sgp", "top-1"])],
    ids=["help", "list", "table"],
)
def test_experiments(arguments: list[str], shown: list[str], quick: Quick, swept: tuple[Path, Done]) -> None:
    printed = quick(*arguments, command="experiments", cwd=swept[0]).stdout
    assert all(fragment in printed for fragment in shown), printed
