"""What progress shows of a run's rows, whichever clock they are on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.launchers.progress import SILENCE_S, Silence, View
from runner.report.metrics import duration
from runner.results import Row


def row(step: int, worker: int = 0, clock: str = "virtual", loss: float | None = 0.5, time_s: float = 0.25) -> Row:
    place = {"step": step, "epoch": step / 10, "samples": 64 * step}
    return {"clock": clock, "time_s": time_s * step, "worker": worker, **place, "loss": loss}


def evaluation(step: int, clock: str = "virtual", top1: float = 0.5) -> Row:
    return {**row(step, clock=clock), "top1_mean_model": top1}


def test_a_virtual_run_shows_its_time_and_no_rate() -> None:
    view = View(epochs=4)
    assert view.words() == "starting"
    view.trained([row(9, worker=0, loss=3.0), row(10, worker=1, loss=1.0), row(10, worker=0, loss=2.0)])
    assert view.virtual
    assert view.words() == "epoch 1.0/4  loss 1.5  virtual time 2.5 s"


def test_a_real_run_shows_its_rate() -> None:
    view = View(epochs=4)
    view.trained([row(10, clock="wall")])
    view.evaluated(evaluation(10, clock="wall", top1=0.5))
    view.trained([row(25, clock="wall")])
    assert view.words() == "epoch 2.5/4  loss 0.5  top-1 50.0 %  256 samples/s"


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
    view.evaluated(evaluation(10, top1=0.25))
    assert view.words() == "epoch 1.0/2  top-1 25.0 %  virtual time 2.5 s"


@given(st.lists(st.integers(1, 80), max_size=3), st.sampled_from([1, 2, 3]))
def test_an_evaluations_line_does_not_depend_on_when_the_rows_were_read(cuts: list[int], every: int) -> None:
    """Worker 1 is ahead: some of its rows are written before the evaluation of an earlier epoch."""
    rows = [row(s, worker=w, loss=s + w) for s in range(1, 41) for w, s in ((0, s), (1, s + 5)) if s <= 40]
    view, read = View(epochs=4, every=every), 0
    for cut in sorted(min(cut, len(rows)) for cut in cuts):
        view.trained(rows[read:cut])
        read = max(read, cut)
    told = []
    for epoch in [e for e in (1, 2, 3, 4) if e % every == 0 or e == 4]:
        view.trained([r for r in rows[read:] if r["step"] <= 10 * epoch])
        view.evaluated(evaluation(10 * epoch))
        told.append(view.words(evaluation(10 * epoch)).split("  ")[1])
    assert told == [f"loss {10 * e + 0.5:g}" for e in (1, 2, 3, 4) if e % every == 0 or e == 4]


def test_where_an_evaluation_is_due_the_last_one_is_not_shown() -> None:
    view = View(epochs=6, every=2)
    view.trained([row(10)])
    assert not view.awaited
    view.trained([row(20)])
    assert view.awaited
    view.evaluated(evaluation(20, top1=0.25))
    assert not view.awaited
    view.trained([row(30)])
    assert "top-1 25.0 %" in view.words()
    view.trained([row(40)])
    assert view.awaited
    assert "top-1" not in view.words()
    assert "epoch 4.0/6" in view.words()


def test_an_evaluation_does_not_turn_back_who_is_ahead() -> None:
    view = View(epochs=4)
    view.trained([row(13, worker=1, loss=9.0), row(10, worker=0, loss=1.0)])
    view.evaluated(evaluation(10))
    assert view.words(evaluation(10)).startswith("epoch 1.0/4  loss 1  top-1")
    assert view.words().startswith("epoch 1.3/4  loss 9  top-1")


@pytest.mark.parametrize(("loss", "shown"), [(1.23456e30, "1.235e+30"), (0.00123456, "0.001235"), (2.30258, "2.303")])
def test_a_loss_is_short_whatever_its_size(loss: float, shown: str) -> None:
    view = View(epochs=4)
    view.trained([row(10, loss=loss)])
    assert f"loss {shown}  " in view.words()


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
