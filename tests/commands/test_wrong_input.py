"""Wrong input is refused before anything is launched: key, value, what is allowed, what to do, in one or two lines."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import Done, type_in

# What is typed, and what the message must hold.
NAMES = {
    "algorithm=sgpp": ["algorithm=sgpp", "did you mean sgp or", "known: adpsgd, allreduce,"],
    "algorithm=sgp topology=rign": ["topology=rign", "did you mean ring?", "one_peer_exponential"],
    "dataset=fashion-mnist": ["dataset=fashion-mnist", "did you mean fashion_mnist?", "digits"],
    "model=resnet21": ["model=resnet21", "did you mean resnet20", "lenet"],
    "optimizer=sdg": ["optimizer=sdg", "did you mean sgd?", "adamw"],
    "schedule=cosin": ["schedule=cosin", "did you mean cosine?"],
    "sampling=skewed": ["sampling=skewed", "label_skew"],
    "launcher=locale": ["launcher=locale", "did you mean local?", "auto"],
    "algorithm=../algorithm/sgp": ["algorithm=../algorithm/sgp", "below the folder algorithm/"],
    "experiment=dmeo": ["experiment=dmeo", "did you mean demo?"],
    "nodez=4": ["nodez", "did you mean nodes"],
    "+nodez=4": ["nodez", "no such key", "did you mean nodes"],
    "+evaluation.evry=2": ["evaluation.evry", "did you mean every?"],
    "algorithm=sgp algorithm.overlapp=1": ["algorithm.overlapp", "did you mean overlap?"],
    "optimizer.momentun=0.5": ["optimizer.momentun", "did you mean momentum?", "weight_decay"],
    "+optimizer.momentun=0.5": ["optimizer.momentun", "did you mean momentum?"],
    "model.hiden=[3]": ["model.hiden", "did you mean hidden?"],
    "algorithm._target_=nowhere.Method": ["algorithm._target_=nowhere.Method", "cannot be imported", "PYTHONPATH"],
    "~nodes": ["~nodes", "set it"],
}
TYPES = {
    "model.hidden=16": ["model.hidden=16", "a list"],
    "schedule=steps schedule.milestones=4": ["schedule.milestones=4", "a list"],
    "nodes=four": ["nodes=four", "must be a whole number"],
    "nodes=2.5": ["nodes=2.5", "must be a whole number"],
    "nodes=null": ["nodes=null", "not Optional"],
    "algorithm=3": ["algorithm=3", "name"],
    "seed=x": ["seed=x", "must be a whole number"],
    "rerun=maybe": ["rerun=maybe", "must be true or false"],
    "optimizer.lr=fast": ["optimizer.lr=fast", "positive number"],
    "optimizer.momentum=lots": ["optimizer.momentum='lots'", "a number"],
    "optimizer.nesterov=perhaps": ["optimizer.nesterov='perhaps'", "true or false"],
    "algorithm=sgp algorithm.overlap=x": ["algorithm.overlap='x'", "a whole number"],
    "problem.compile=sure": ["problem.compile=sure", "false, true"],
    "nodes=2,4": ["nodes=2,4", "-m"],
    "'optimizer={a'": ["optimizer={a", "key=value"],
    "nodes": ["nodes: cannot be read", "key=value"],
}
VALUES = {
    "nodes=0": ["nodes=0", "1 or more"],
    "nodes=-2": ["nodes=-2", "1 or more"],
    "gpus_per_node=0": ["gpus_per_node=0", "1 or more"],
    "epochs=0": ["epochs=0", "1 or more"],
    "epochs=-1": ["epochs=-1", "1 or more"],
    "batch_size=0": ["batch_size=0", "1 or more"],
    "optimizer.lr=0": ["optimizer.lr=0", "positive"],
    "optimizer.lr=-0.1": ["optimizer.lr=-0.1", "positive"],
    "optimizer.lr=nan": ["optimizer.lr=nan", "positive"],
    "optimizer.lr=null optimizer.reference_lr=null": ["optimizer.lr=null", "optimizer.reference_lr"],
    "seed=-1": ["seed=-1", "0 or more"],
    "device=gpu": ["device=gpu", "auto, cpu, cuda"],
    "backend=mpi": ["backend=mpi", "auto, gloo, nccl"],
    "evaluation.batch_norm=mine": ["evaluation.batch_norm=mine", "own, average, recalibrate"],
    "algorithm=sgp algorithm.overlap=-1": ["algorithm.overlap=-1", ">= 0"],
    "algorithm=sgp algorithm.merge=now": ["algorithm.merge='now'", "arrived, exact"],
    "algorithm=dpsgd algorithm.order=any": ["algorithm.order='any'", "adapt_with_combine, adapt_then_combine"],
    "schedule.final_factor=2": ["schedule.final_factor=2", "between 0 and 1"],
    "launcher=local launcher.node_rank=1": ["launcher.node_rank=1", "launcher.rendezvous=host:port"],
    "launcher=local launcher.rendezvous=here": ["launcher.rendezvous=here", "host:port"],
}
COMBINATIONS = {
    "algorithm=sgp topology=hypercube nodes=3": ["topology=hypercube", "power of two", "got 3", "use 2 or 4"],
    "algorithm=dpsgd nodes=3": ["topology=bipartite_exponential", "even number", "got 3", "topology=ring"],
    "algorithm=dpsgd topology=star": ["topology=star", "doubly stochastic", "topology=ring"],
    "algorithm=dpsgd topology=none": ["topology=none", "dpsgd needs one"],
    "algorithm=allreduce topology=ring": ["topology=ring", "allreduce uses no topology"],
    "nodes=2 batch_size=800": ["batch_size=800", "1437", "718"],
    "nodes=2 batch_size=800 sampling=label_skew": ["batch_size=800", "718"],
    "model=cifar_cnn": ["model=cifar_cnn", "32x32", "dataset=cifar10"],
    "nodes=100000": ["nodes=100000", "cores", "launcher=local"],
    "threads_per_worker=100000": ["threads_per_worker=100000", "cores", "fewer"],
    "nodes=1000 launcher=local device=cuda": ["device=cuda", "GPU", "use "],
    "nodes=1000 launcher=local backend=nccl": ["backend=nccl", "GPU", "backend=gloo"],
    "nodes=2 device=cpu backend=nccl": ["backend=nccl", "device=cuda", "device=cpu"],
    "results_dir=": ["results_dir=", "is empty", "name a folder"],
    "results_dir=/dev/null": ["results_dir=/dev/null", "cannot be written", "choose another"],
    "results_dir=/proc/nowhere": ["results_dir=/proc/nowhere", "cannot be written"],
    "dataset.train_samples=5000": ["dataset.train_samples=5000", "1437"],
    "dataset=cifar10 dataset.root=nowhere": ["dataset.root=nowhere", "data_batch_1.bin", "dataset.download=true"],
    "dataset=imagenet dataset.root=nowhere": ["dataset.root=nowhere", "train/<class>"],
}
VIRTUAL = {
    "launcher=simulated cluster=none": ["cluster=none", "cluster=10gbe"],
    "launcher=simulated cluster=10gb": ["cluster=10gb", "did you mean 10gbe or 10gbe_gloo?", "laptop"],
    "launcher=simulated cluster.inter.bandwith=1": ["cluster.inter.bandwith", "did you mean bandwidth?"],
    "launcher=simulated +cluster.switch=1": ["cluster.switch", "core_bandwidth"],
    "launcher=simulated cluster.inter.bandwidth=-1": ["cluster.inter.bandwidth=-1", "positive", "bytes per second"],
    "launcher=simulated cluster.intra.latency_s=soon": ["cluster.intra.latency_s=soon", "seconds, 0 or more"],
    "launcher=simulated cluster.inter.efficiency=2": ["cluster.inter.efficiency=2", "at most 1"],
    "launcher=simulated cluster.inter.loss=-0.1": ["cluster.inter.loss=-0.1", "between 0 and 1"],
    "launcher=simulated cluster.core_bandwidth=0": ["cluster.core_bandwidth=0", "positive", "null for no limit"],
    "launcher=simulated cluster.reduction=star": ["cluster.reduction=star", "ring, tree"],
    "launcher=simulated cluster.gpus_per_node=0": ["cluster.gpus_per_node=0", "1 or more"],
    "launcher=simulated 'cluster.links=[{link: [0, 4], bandwidth: 1}]'": ["cluster.links", "two nodes of 0 to 3"],
    "launcher=simulated 'cluster.links=[{link: [0, 1], speed: 1}]'": ["cluster.links[0, 1].speed", "bandwidth"],
    "launcher=simulated cluster.compute=fast": ["cluster.compute=fast", "settings"],
    "launcher=simulated cluster.compute.seconds=-1": ["cluster.compute.seconds=-1", "0 or more"],
    "launcher=simulated cluster.compute.seconds=null": ["cluster.compute.seconds=null", "cost group"],
    "launcher=simulated cluster.compute.distribution=gamma": ["cluster.compute.distribution='gamma'", "lognormal"],
    "launcher=simulated cluster.compute.trace=nowhere": ["cluster.compute.trace=nowhere", "cannot be read", "folder"],
    "launcher=simulated cluster.compute.slow=3": ["cluster.compute.slow=3", "{3: 2.0}"],
    "launcher=simulated cluster.compute.sleep_ranks=[0,32]": ["cluster.compute.sleep_ranks", "no GPU 32", "0 to 31"],
    "launcher=simulated 'failures.plan=[{worker: 4, dies_at_s: 1}]'": [
        *("failures.plan", "{worker: 4, dies_at_s: 1}", "no worker 4", "0 to 3")
    ],
    "launcher=simulated 'failures.plan=[{node: 1, dies: 1}]'": ["failures.plan", "{node: 1, dies: 1}", "dies_at_s"],
    "launcher=simulated 'failures.plan=[{link: [0, 7], loss: 1}]'": ["failures.plan", "no node 7", "0 to 3"],
    "launcher=simulated failures.timeout_s=-1": ["failures.timeout_s=-1", "0 or more"],
    "launcher=simulated failures.return_state=home": ["failures.return_state='home'", "checkpoint, neighbour, initial"],
    "launcher=simulated backend=gloo": ["backend=gloo", "virtual workers", "leave it out"],
    "launcher=simulated launcher.threads=0": ["launcher.threads=0", "1 or more"],
    "launcher=simulated problem=none": ["cost=none", "problem=none", "cost=resnet50_v100"],
    "launcher=simulated problem=none cost=resnet50_v100 problem.train_samples=31": [
        *("problem.train_samples=31", "global batch of 32", "fewer nodes")
    ],
    "launcher=simulated problem=none cost=resnet50_v100 evaluation.every=2": [
        "evaluation.every",
        "nothing to evaluate",
    ],
    "launcher=simulated problem.batched=true problem.compile=true": ["problem.batched=true", "problem.compile"],
    "launcher=simulated problem.batched=true dataset=synthetic model=resnet20": [
        *("problem.batched=true", "model=resnet20", "BatchNorm", "lenet")
    ],
    "problem.batched=true": ["problem.batched=true", "launcher=simulated"],
    "problem=none": ["problem=none", "launcher=simulated"],
    "cluster=10gbe": ["cluster=10gbe", "launcher=simulated", "leave cluster out"],
    "cost=resnet50_v100": ["cost=resnet50_v100", "launcher=simulated", "leave cost out"],
    "cost.message_bytes=100": ["cost.message_bytes", "launcher=simulated"],
    "'failures.plan=[{worker: 1, dies_at_s: 1}]'": ["failures.plan", "launcher=simulated", "leave it out"],
}
SWEEPS = {
    "-m algorithm=allreduce,sgpp": ["algorithm=sgpp", "did you mean sgp or"],
    "-m algorithm=sgp nodes=2,0": ["nodes=0", "1 or more"],
    "-m algorithm=allreduce,dpsgd nodes=2,3": ["topology=bipartite_exponential", "got 3"],
}

Refused = Callable[[str], str]


@pytest.fixture
def refused(tmp_path: Path, here: Callable[..., Done]) -> Refused:
    """Types a command; returns the message that it ends with."""

    def refused(typed: str) -> str:
        done = here(*shlex.split(typed))
        assert (done.status, done.stdout) == (2, "")
        assert done.stderr.startswith("run-experiment: ")
        assert 1 <= len(done.stderr.splitlines()) <= 2
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # no run has begun
        return done.stderr

    return refused


@pytest.mark.parametrize("typed", [*NAMES, *TYPES, *VALUES, *COMBINATIONS, *VIRTUAL, *SWEEPS])
def test_refused(typed: str, refused: Refused) -> None:
    message = refused(typed)
    for fragment in {**NAMES, **TYPES, **VALUES, **COMBINATIONS, **VIRTUAL, **SWEEPS}[typed]:
        assert fragment in message


def test_incomplete_and_corrupt_data(
    tmp_path: Path, refused: Refused, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("data")
    (root / "data_batch_1.bin").write_bytes(b"")
    message = refused(f"dataset=cifar10 dataset.root={root}")
    assert "incomplete" in message
    assert "data_batch_2.bin" in message
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (root / name).write_bytes(b"no images")
    message = refused(f"dataset=cifar10 dataset.root={root}")
    assert "corrupt" in message
    assert str(root / "data_batch_1.bin") in message


OWN_FILES = {
    "inter: {latency_s: 1\nintra: ]\n": ["mine.yaml:2", "cannot be read as YAML", "expected ',' or '}'"],
    "a: 1\na: 2\n": ["mine.yaml:2", "duplicate key a"],
    "\tx: 1\n": ["mine.yaml:1", "cannot be read as YAML"],
    "x: !!python/object:os.system {}\n": ["mine.yaml:1", "python/object"],
    "- 1\n- 2\n": ["cluster", "holds [1, 2]", "a key and its value"],
    "x: ${nowhere.key}\n": ["cluster.x", "nowhere.key", "name a key that there is"],
    "x: ${oops\n": ["${oops", "must end with }"],
    "defaults: [nowhere]\n": ["cluster/mine", "cluster/nowhere"],
    "x: caf\xe9\n": ["--config-dir", "not UTF-8"],
    "": ["cluster=mine", "cluster=10gbe"],
}


@pytest.mark.parametrize("text", OWN_FILES)
def test_a_broken_file_of_ones_own(text: str, refused: Refused, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "cluster").mkdir()
    (folder / "cluster" / "mine.yaml").write_bytes(text.encode("latin-1"))
    message = refused(f"launcher=simulated cluster=mine --config-dir {folder}")
    for fragment in OWN_FILES[text]:
        assert fragment in message


@pytest.mark.parametrize(
    ("typed", "fragment"),
    [("algorithm=sgpp", "did you mean sgp or"), ("nodes=2 batch_size=800", "batch_size=718 or less")],
    ids=["composing", "checking"],
)
def test_as_a_process(typed: str, fragment: str, tmp_path: Path) -> None:
    done = type_in(*shlex.split(typed), cwd=tmp_path)
    assert (done.status, done.stdout) == (2, "")
    assert fragment in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
