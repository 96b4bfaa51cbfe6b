"""Where virtual workers' gradients come from: one by one they are those of a real process, together nearly so."""

from __future__ import annotations

import json

import pytest
import torch
from harness import DOUBLE, SMALL, configure
from torch import nn
from virtual import play, timing

import models
from models.layers import Dropout
from runner.problem import Problem
from runner.runtimes.gradients import STAND_IN, Batched, NoGradients, Pool, Replicas
from runner.simulation import simulate

pytestmark = pytest.mark.usefixtures("one_thread")

RANKS, DRAWS = 3, 3
SHAPE = (3, 16, 16)


class Dropping(nn.Module):
    """A small network with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU(), Dropout(0.5), nn.Linear(16, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


NETWORKS = {
    "mlp": lambda: models.mlp(SHAPE, 10, hidden=[16]),
    "lenet": lambda: models.lenet(SHAPE, 10),
    "resnet20": lambda: models.resnet20(SHAPE, 10),
    "dropout": Dropping,
}


def problem(name: str, dtype: torch.dtype = torch.float32) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Problem(NETWORKS[name](), dtype=dtype)


def batches(dtype: torch.dtype = torch.float32):
    """The mini-batches of every rank, a function of its draw."""

    def of(rank: int):
        def batch(draw: int):
            stream = torch.Generator().manual_seed(1000 * rank + draw)
            return torch.randn(4, *SHAPE, generator=stream).to(dtype), torch.randint(10, (4,), generator=stream)

        return batch

    return [of(rank) for rank in range(RANKS)]


def points(x0: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """Where each (rank, draw) asks for its gradient: all different."""
    return {
        (r, k): x0 + 0.01 * (r + 1) * torch.cos(k + torch.arange(len(x0))) for r in range(RANKS) for k in range(DRAWS)
    }


def alone(name: str, dtype: torch.dtype = torch.float32) -> dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]:
    """Each rank on its own, as on a real process: (loss, gradient) by (rank, draw)."""
    found = {}
    for rank in range(RANKS):
        own = problem(name, dtype)
        for draw in range(DRAWS):
            x = points(own.x0)[rank, draw].to(dtype)
            loss, g = own.gradient(x, batches(dtype)[rank](draw), (rank, 0, draw))
            found[rank, draw] = loss.clone(), g.clone()
    return found


@pytest.fixture(params=[1, 2])
def replicas(request):
    """Makes replicas of a problem on that many threads, closed at the end."""
    made = []

    def make(problem: Problem) -> Replicas:
        made.append(Replicas(problem, RANKS, request.param, 1))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_pool_gives_the_bits_of_a_process(name, replicas):
    """Whatever is asked for side by side, BatchNorm's statistics and dropout's masks are each rank's own."""
    expected, whole = alone(name), problem(name)
    pool = Pool(replicas(whole), batches())
    x = points(whole.x0)
    for draw in range(DRAWS):
        work = {rank: pool.begin(x[rank, draw], [rank], rank, draw) for rank in reversed(range(RANKS))}
        for rank in range(RANKS):
            [loss], [g] = work[rank].result()
            assert torch.equal(loss, expected[rank, draw][0])
            assert torch.equal(g, expected[rank, draw][1])


def test_a_worker_of_several_gpus_gets_all_their_gradients(replicas):
    pool = Pool(replicas(problem("lenet")), batches())
    x = pool.replicas.problem.x0
    losses, gradients = pool.begin(x, [0, 1, 2], 0, 1).result()
    for rank in range(RANKS):
        [loss], [g] = pool.begin(x, [rank], rank, 1).result()
        assert torch.equal(losses[rank], loss)
        assert torch.equal(gradients[rank], g)


def test_an_error_in_a_thread_reaches_whoever_asks(replicas):
    def broken(draw: int):
        raise OSError("the disk is gone")

    pool = Pool(replicas(problem("mlp")), [broken] * RANKS)
    with pytest.raises(OSError, match="the disk is gone"):
        pool.begin(pool.replicas.problem.x0, [0], 0, 0).result()


def together(name: str, replicas, dtype: torch.dtype) -> dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]:
    whole = problem(name, dtype)
    batched = Batched(replicas(whole), batches(dtype))
    x = points(whole.x0)
    work = {place: batched.begin(x[place].to(dtype), [place[0]], place[0], place[1]) for place in x}
    found = {}
    for place in reversed(x):
        [loss], [g] = work[place].result()
        found[place] = loss, g
    assert not batched.waiting
    return found


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_together_they_are_the_same_to_rounding(name, replicas):
    expected, found = alone(name, torch.float64), together(name, replicas, torch.float64)
    for place, (loss, g) in expected.items():
        assert found[place][0] == pytest.approx(float(loss), rel=1e-13)
        assert torch.linalg.vector_norm(found[place][1] - g) <= 1e-13 * torch.linalg.vector_norm(g)


def test_together_they_are_the_same_every_time(replicas):
    first, again = (together("lenet", replicas, torch.float32) for _ in range(2))
    assert all(torch.equal(first[place][1], again[place][1]) for place in first)


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_one_that_waits_alone_has_the_bits_of_a_real_process(name, replicas):
    batched = Batched(replicas(problem(name, torch.float32)), batches())
    x = points(batched.replicas.problem.x0)
    for place, (loss, g) in alone(name, torch.float32).items():
        [own_loss], [own_g] = batched.begin(x[place], [place[0]], place[0], place[1]).result()
        assert torch.equal(own_loss, loss)
        assert torch.equal(own_g, g)


RUN = ("launcher=simulated", *SMALL, *DOUBLE, "nodes=4", "gpus_per_node=2", "epochs=1", "algorithm=sgp")


def test_a_batched_run_agrees_with_a_plain_one():
    plain, batched = play(configure(*RUN)), play(configure(*RUN, "problem.batched=true"))
    again = play(configure(*RUN, "problem.batched=true"))
    assert plain.times == batched.times
    for a, b, c in zip(plain.iterates, batched.iterates, again.iterates, strict=True):
        assert torch.linalg.vector_norm(a[-1] - b[-1]) <= 1e-9 * torch.linalg.vector_norm(a[-1])
        assert torch.equal(torch.stack(b), torch.stack(c))


@pytest.mark.parametrize("algorithm", ["sgp", "easgd"])
def test_a_batched_run_is_evaluated_as_a_plain_one(algorithm, tmp_path):
    found = []
    for name, batched in (("plain", "false"), ("batched", "true")):
        (tmp_path / name).mkdir()
        run = configure(*RUN, f"algorithm={algorithm}", f"problem.batched={batched}", results_dir=tmp_path)
        simulate(run, tmp_path / name, torch.device("cpu"))
        found.append(json.loads((tmp_path / name / "evaluations.jsonl").read_text().splitlines()[-1]))
    plain, batched = found
    assert batched["top1_centre"] is not None or algorithm == "sgp"
    for key, value in plain.items():
        assert batched[key] == (pytest.approx(value, rel=1e-9) if key.startswith(("loss", "consensus")) else value)


# Timing only --------------------------------------------------------------------------------------------------------


def test_a_stand_in_stands_for_whatever_is_done_with_it():
    x = STAND_IN
    results = [x + x, x - x, 0.5 * x, x * 0.5, x / 2.0, 2.0 / x, -x, 1 + x, 1 - x, torch.add(x, x, alpha=0.5)]
    assert all(result is x for result in results)
    assert NoGradients().begin(x, [0], 0, 0).result() == ((), (x,))


@pytest.mark.parametrize("method", ["allreduce", "dpsgd", "sgp"])
def test_without_gradients_the_clock_is_the_same(method):
    """A problem with the same bytes and seconds."""
    size = ("nodes=4", "gpus_per_node=2", f"algorithm={method}", "cost=resnet50_v100")
    real = play(configure("launcher=simulated", *SMALL, *size, "epochs=1", "batch_size=40"))
    steps = real.workers[0].draws
    only = play(timing(steps, 4, f"algorithm={method}", *AS_IN_FILE, gpus=2))
    assert only.times == real.times
    assert [w.split for w in only.workers] == [w.split for w in real.workers]
    assert all(x is STAND_IN for iterates in only.iterates for x in iterates)


AS_IN_FILE = (
    *("cluster.inter.latency_s=5.0e-5", "cluster.inter.bandwidth=1.25e9", "cluster.intra.latency_s=1.0e-5"),
    *("cost.overlap_backward=true", "cost.message_bytes=102228128", "cost.seconds_per_gradient=0.271"),
)
"""What `timing` sets otherwise."""
