"""What a run shows while it trains: a bar on a terminal, plain lines elsewhere; and TensorBoard's event files."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from commandline import BIN, Done, content, environment, rows, the_run

pytestmark = pytest.mark.multiproc

RUN = ("algorithm=sgp", "nodes=2", "device=cpu", "epochs=40", "evaluation.every=10", "model.hidden=[64]")


def on_a_terminal(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Type a command on a pseudo-terminal; its exit status and all that it drew, without colours and movements."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(BIN / "run-experiment"), *arguments],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="160"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    drawn = b""
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # the last one on the other side has gone
            break
        if not piece:
            break
        drawn += piece
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    return process.wait(), text


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    board = ("tensorboard=true",) if importlib.util.find_spec("tensorboard") else ()
    status, drawn = on_a_terminal(*RUN, *board, cwd=tmp_path)
    assert status == 0
    frames = re.split(r"[\r\n]+", drawn)
    [*_, shown] = [frame for frame in frames if "samples/s" in frame]
    assert re.search(
        r"sgp 2 nodes seed 0 .* \d:\d\d:\d\d left epoch \d+\.\d/40  loss \S+  top-1 \d+\.\d %  [\d,]+ samples/s",
        shown,
    ), shown
    summary = content(the_run(tmp_path) / "summary.json")
    end = next(frame for frame in frames if "(mean model)" in frame)
    assert f"top-1 {100 * summary['top1_mean_model']:.2f} %" in end
    assert f"{summary['epoch_time_s']:.3g} s per epoch" in end
    assert str(the_run(tmp_path).relative_to(tmp_path)) in end
    if board:
        assert_event_files(the_run(tmp_path))


def assert_event_files(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"loss/training", "lr", "evaluation/top1_mean_model"} <= set(events.Tags()["scalars"])
    top1 = [event.value for event in events.Scalars("evaluation/top1_mean_model")]
    assert top1 == pytest.approx([row["top1_mean_model"] for row in rows(run / "evaluations.jsonl")])


def test_lines_elsewhere(swept: tuple[Path, Done]) -> None:
    lines = swept[1].lines
    shown = [
        line for line in lines if re.match(r"\[3/6\] dpsgd 2 nodes seed 0  epoch [23]\.0/3  .*top-1 \d+\.\d %", line)
    ]
    assert len(shown) == 2  # one for each evaluation
    assert "\x1b" not in swept[1].stdout
    assert lines[0].startswith("batch 32 per process, 64 in all; lr 0.025 = reference_lr 0.1 x 64 / 256")


VIRTUAL = ("algorithm=sgp", "nodes=4", "gpus_per_node=2", "launcher=simulated", "device=cpu")


def test_a_bar_of_a_virtual_run(tmp_path: Path) -> None:
    status, drawn = on_a_terminal(*VIRTUAL, "epochs=40", "evaluation.every=10", "model.hidden=[16]", cwd=tmp_path)
    assert status == 0
    shown = [frame for frame in re.split(r"[\r\n]+", drawn) if "wall time left" in frame]
    words = r"\d:\d\d:\d\d wall time left epoch \d+\.\d/40  loss \S+  top-1 \d+\.\d %  virtual time \d\S* s"
    assert re.search(rf"sgp 4 nodes x 2 seed 0 .* {words}", shown[-1]), shown[-1]
    assert "samples/s" not in drawn


def test_a_bar_of_a_run_for_the_time_only(tmp_path: Path) -> None:
    samples = "problem.train_samples=6400"  # 25 iterations
    status, drawn = on_a_terminal(*VIRTUAL, "problem=none", "cost=resnet50_v100", samples, "epochs=200", cwd=tmp_path)
    assert status == 0
    assert re.search(r"wall time left epoch \d+\.\d/200  virtual time \d\S* (s|min)", drawn)
    assert "loss" not in drawn
    assert "top-1" not in drawn
    assert re.search(r"sgp 4 nodes x 2 seed 0: \S+ s of virtual time per epoch  results/runs/sgp/", drawn)
