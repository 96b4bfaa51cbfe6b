"""What progress shows of a run's rows, whichever clock they are on."""

from __future__ import annotations

import itertools

import pytest

from runner.launchers.progress import SILENCE_S, Silence, View, duration
from runner.results import Row


def row(step: int, worker: int = 0, clock: str = "virtual", loss: float | None = 0.5, time_s: float = 0.25) -> Row:
    place = {"step": step, "epoch": step / 10, "samples": 64 * step}
    return {"clock": clock, "time_s": time_s * step, "worker": worker, **place, "loss": loss}


def test_a_virtual_run_shows_its_time_and_no_rate() -> None:
    view = View(epochs=4)
    assert view.words() == "starting"
    view.trained([row(9, worker=0, loss=3.0), row(10, worker=1, loss=1.0), row(10, worker=0, loss=2.0)])
    assert view.virtual
    assert view.words() == "epoch 1.0/4  loss 1.500  virtual time 2.5 s"


def test_a_real_run_shows_its_rate() -> None:
    view = View(epochs=4)
    view.trained([row(10, clock="wall")])
    view.evaluated(row(10, clock="wall") | {"top1_mean_model": 0.5})
    view.trained([row(20, clock="wall")])
    assert view.words() == "epoch 2.0/4  loss 0.500  top-1 50.0 %  256 samples/s"


def test_rows_of_workers_behind_do_not_turn_it_back() -> None:
    view = View(epochs=4)
    view.trained([row(20, worker=5)])
    view.trained([row(18, worker=2)])
    view.trained([])
    assert view.row["step"] == 20


def test_without_losses_there_is_still_progress() -> None:
    view = View(epochs=90)
    view.trained([row(100, loss=None, time_s=60)])
    assert view.words() == "epoch 10.0/90  virtual time 100.0 min"


def test_an_evaluation_before_any_row() -> None:
    view = View(epochs=2)
    view.evaluated(row(10) | {"top1_mean_model": 0.25})
    assert view.words() == "epoch 1.0/2  top-1 25.0 %  virtual time 2.5 s"


def test_silence_is_broken_less_and_less_often() -> None:
    silence, said = Silence(0.0), []
    for now in range(4000):
        if silence.is_long(now):
            said.append(now)
            silence.broken(now)
    gaps = [b - a for a, b in itertools.pairwise(said)]
    assert said[0] == SILENCE_S
    assert gaps == sorted(gaps)
    assert gaps[-1] > 10 * gaps[0]


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0 s"), (0.0123, "0.0123 s"), (43.45, "43.5 s"), (5000, "83.3 min"), (36000, "10.0 h")]
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written
