"""What resolving fills in, and what it refuses before any process starts."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from harness import configure

from runner.build import ConfigError
from runner.config import global_batch_size, ranks, workers
from runner.data import load
from runner.prepare import local_ranks, make_algorithm, make_model, make_sampler, make_span, resolve


def typed(value: object) -> str:
    """A test's name: what was typed."""
    return " ".join(value) if isinstance(value, tuple) else ""


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without GPUs says")


class NoMethod:
    """Has no `run`."""


@pytest.mark.parametrize(
    ("overrides", "batch_size"),
    [
        (("nodes=1",), 32),
        (("nodes=4",), 32),
        (("nodes=8",), 1437 // 64),
        (("nodes=4", "gpus_per_node=2"), 1437 // 64),
        (("nodes=4", "dataset.train_samples=40"), 40 // 32),
        (("nodes=4", "dataset.train_samples=4"), 1),
        (("nodes=4", "batch_size=100"), 100),
    ],
    ids=typed,
)
def test_batch_size_left_open(overrides, batch_size):
    """min(32, training samples // (8 x processes)): at least eight iterations an epoch, where that can be."""
    assert configure(*overrides)["batch_size"] == batch_size


def test_sizes():
    by_node = configure("nodes=2", "gpus_per_node=3", "batch_size=5")
    assert (ranks(by_node), workers(by_node), global_batch_size(by_node), local_ranks(by_node)) == (6, 2, 30, 6)
    by_gpu = configure("nodes=2", "gpus_per_node=3", "batch_size=5", "algorithm.worker=gpu")
    assert (ranks(by_gpu), workers(by_gpu), global_batch_size(by_gpu)) == (6, 6, 30)
    elsewhere = ("launcher=local", "launcher.rendezvous=10.0.0.1:29500", "launcher.node_rank=1")
    assert local_ranks(configure("nodes=2", "gpus_per_node=3", *elsewhere)) == 3


def test_no_worker_said_is_a_node():
    config = configure("nodes=2", "gpus_per_node=2")
    for worker in ({}, {"worker": None}, {"worker": "node"}):
        node = {key: value for key, value in config["algorithm"].items() if key != "worker"}
        assert workers({**config, "algorithm": node | worker}) == 2


def test_resolving_twice_changes_nothing():
    config = configure("algorithm=sgp", "nodes=2")
    assert resolve(copy.deepcopy(config)) == config


def test_the_initial_parameters_are_a_function_of_the_seed_alone():
    config = configure("nodes=4")
    dataset = load(config["dataset"])
    before = torch.get_rng_state()

    def first(**changes) -> torch.Tensor:
        torch.rand(3)  # the global stream is elsewhere each time
        return torch.nn.utils.parameters_to_vector(make_model({**config, **changes}, dataset).parameters()).detach()

    model = first()
    assert torch.equal(first(), model)
    assert torch.equal(first(nodes=2, batch_size=1), model)
    assert not torch.equal(first(seed=1), model)
    torch.set_rng_state(before)
    make_model(config, dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_span_is_epochs_and_where_the_warm_up_starts():
    config = configure("nodes=4", "batch_size=128", "epochs=3")
    per_epoch = make_sampler(config, load(config["dataset"])).iterations_per_epoch
    assert per_epoch == 1437 // 512
    span = make_span(config, per_epoch)
    assert (span.epochs, span.iterations_per_epoch) == (3, per_epoch)
    assert span.reference_factor == pytest.approx(0.1 / 0.2)  # lr = 0.1 x 512 / 256
    alone = make_span(configure("optimizer.lr=0.3", "optimizer.reference_lr=null"), per_epoch)
    assert alone.reference_factor == 1.0


def test_an_algorithm_gets_its_settings_but_not_the_runners():
    algorithm = make_algorithm(configure("algorithm=sgp", "algorithm.overlap=2", "algorithm.worker=gpu"))
    assert vars(algorithm) == {"overlap": 2, "merge": "arrived", "biased": False}


def test_what_is_no_algorithm_is_refused():
    with pytest.raises(ConfigError, match=r"algorithm\._target_=.*NoMethod: an algorithm has a `topology` and"):
        configure(f"algorithm._target_={__name__}.NoMethod")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("nodes=2", "batch_size=719"), r"^batch_size=719: 2 processes .* need 1438 .* has 1437, 718 per process; use"),
        (("sampling=label_skew", "sampling.alpha=0"), r"^sampling\.alpha=0: must be a positive number"),
        (("model=cifar_cnn",), r"^model=cifar_cnn takes RGB images of 32x32 pixels, .* 1x8x8 .* or model=mlp"),
        (("model.hidden=[0]",), r"model\.hidden=\[0\] must be a list of positive integers"),
        (("dataset.train_samples=0",), r"^dataset\.train_samples=0: must be between 1 and 1437, or null"),
        (("dataset=fashion_mnist", "dataset.root=/no/such/folder"), r"^dataset\.root=/no/such/folder: "),
        (("nodes=100000",), r"^nodes=100000 gpus_per_node=1: 100000 processes are too many .* launcher=local"),
        ((f"threads_per_worker={1 + (os.cpu_count() or 1)}",), r"^threads_per_worker=\d+: this machine has \d+ cores"),
        (("launcher=local", "launcher.node_rank=1"), r"^launcher\.node_rank=1: needs launcher\.rendezvous=host:port"),
        (("launcher=local", "launcher.rendezvous=here"), r"^launcher\.rendezvous=here: must be host:port, e\.g\."),
        (
            ("launcher=local", "launcher.rendezvous=localhost:29500", "launcher.node_rank=abc"),
            r"^launcher\.node_rank=abc: must be between 0 and nodes - 1",
        ),
        (("algorithm=sgp", "topology=two_then_one_peer", "topology.phases=3"), r"^topology\.phases=3: must be a list"),
        (("algorithm=sgp", "topology=sequence", "topology.sequence=5"), r"^topology\.sequence=5: must be a list"),
        (("algorithm=sgp", "topology=sequence", "topology.sequence=[3]"), r"^topology=3: must name a topology"),
        (("schedule=steps", "schedule.milestones=[9,3]"), r"^schedule\.milestones=\[9, 3\]: .* increasing order"),
        (("optimizer.nesterov=true", "optimizer.momentum=0"), r"^optimizer: Nesterov momentum requires"),
        (("+optimizer.momentun=0.9",), r"^optimizer\.momentun: SGD has no such setting; did you mean momentum\?"),
        (("+optimizer.params=3",), r"^optimizer\.params: SGD has no such setting; .*known: dampening, [^:]*$"),
        (("+sampling.seed=3",), r"^sampling\.seed: GlobalBatches has no such setting; known: none$"),
    ],
    ids=typed,
)
def test_what_cannot_run_is_refused(overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        configure(*overrides, results_dir=tmp_path)
    assert len(str(caught.value).splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written_are_refused():
    with pytest.raises(ConfigError, match=r"^results_dir=/dev/null/x: cannot be written \(Not a directory\); choose"):
        configure(results_dir="/dev/null/x")


@without_gpu
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("device=cuda",), r"^device=cuda: torch sees no GPU here; use device=cpu"),
        (("backend=nccl",), r"^backend=nccl: needs device=cuda and one GPU per process \(4\), this machine has 0"),
        (("device=cuda", "backend=gloo"), r"^device=cuda: torch sees no GPU here"),
    ],
    ids=typed,
)
def test_gpus_that_are_not_there_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


@without_gpu
def test_without_gpus_auto_is_gloo_on_cpus():
    config = configure("nodes=2")
    assert (config["device"], config["backend"]) == ("cpu", "gloo")
