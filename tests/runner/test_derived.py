"""What follows from several runs: shared settings, speed-up, and the time to a top-1."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from runner.experiments import app
from runner.report.curves import mean_height, time_to, top1_curve
from runner.report.derived import name_alike, share_settings, with_scaling
from runner.report.runs import Run, natural_order


def test_only_what_differs_stays_in_settings() -> None:
    rows = [{"settings": text} for text in ("a=1, b=[1,2], c=3", "a=1, b=[1,2]", "a=1, b=[1,2], d=4")]
    shared = share_settings(rows)
    assert [row["settings"] for row in shared] == ["c=3", "", "d=4"]
    assert {row["shared_settings"] for row in shared} == {"a=1, b=[1,2]"}
    assert share_settings([]) == []
    assert share_settings([{"settings": None}]) == [{"settings": "", "shared_settings": ""}]


def test_variants_of_a_method_name_the_same_settings() -> None:
    names = [("hier_avg", "S=4"), ("hier_avg", "K2=32, S=4"), ("sgp", ""), ("sgp", "overlap=1"), ("theirs", "a=[1,2]")]
    rows = [{"algorithm": algorithm, "variant": variant, "method": algorithm} for algorithm, variant in names]
    rows.append({"algorithm": "theirs", "variant": "b=1", "method": "theirs"})
    assert [row["method"] for row in name_alike(rows)] == [
        *("hier_avg (K2=8, S=4)", "hier_avg (K2=32, S=4)", "sgp", "sgp (overlap=1)"),
        *("theirs (a=[1,2])", "theirs (b=1)"),  # a method from outside has defaults that nobody knows
    ]
    rows = [{"algorithm": "hier_avg", "variant": variant, "method": ""} for variant in ("K2=32", "S=4")]
    assert [row["method"] for row in name_alike(rows)] == ["hier_avg (K2=32)", "hier_avg (K2=8, S=4)"]  # S is null
    assert name_alike([{"algorithm": None}]) == [{"algorithm": None}]


def test_numbers_inside_of_names_count() -> None:
    ordered = [None, 7, "allreduce", "hier_avg (K1=4)", "hier_avg (K1=16)", "k_avg", "lr=1e-05", "lr=0.01", "sgp"]
    for names in (ordered[::-1], ordered[4:] + ordered[:4]):
        assert sorted(names, key=natural_order) == ordered


def test_speed_up_is_over_the_fewest_workers_of_the_same_series() -> None:
    rows: list[dict[str, Any]] = [
        {"method": "a", "workers": 4, "global_batch_size": 32, "iteration_time_s": 1.0},
        {"method": "a", "workers": 4, "global_batch_size": 32, "iteration_time_s": 0.5},
        {"method": "a", "workers": 8, "global_batch_size": 64, "iteration_time_s": 1.0},
        {"method": "b", "workers": 8, "global_batch_size": 64, "iteration_time_s": 2.0},
        {"method": "b", "workers": 16, "global_batch_size": 128, "iteration_time_s": None},
    ]
    frame = with_scaling(pd.DataFrame(rows, dtype=object), ["method", "missing"])
    # Images per second: 32 and 64 with 4 workers, in the mean 48; 64 with 8.
    assert list(frame["samples_per_s"][:4]) == [32, 64, 64, 32]
    assert list(frame["speedup"][:3]) == pytest.approx([32 / 48, 64 / 48, 64 / 48])
    assert list(frame["scaling_efficiency"][:3]) == pytest.approx([32 / 48, 64 / 48, 64 / 48 / 2])
    assert list(frame["speedup"][3:]) == [None, None]  # of one size only; of an unknown time


def run(folder: Path, identity: str, evaluations: list[tuple[float, float, float | None]]) -> Run:
    place = folder / "runs/demo" / identity
    place.mkdir(parents=True)
    lines = [json.dumps({"epoch": e, "time_s": t, "top1_mean_model": v}) for e, t, v in evaluations]
    (place / "evaluations.jsonl").write_text("\n".join(lines))
    summary = {
        "algorithm": "sgp",
        "dataset": "digits",
        "workers": 4,
        "seed": len(identity),
        "evaluated_model": "mean",
        "training_time_s": 30.0,
    }
    (place / "summary.json").write_text(json.dumps(summary))
    return Run(place, "demo", "finished", {}, summary)


def test_the_first_time_counts(tmp_path: Path) -> None:
    one = run(tmp_path, "a", [(1, 10.0, 0.5), (2, 20.0, 0.8), (3, 30.0, 0.7)])
    assert time_to(top1_curve(one)[0], 0.5) == 10.0
    assert time_to(top1_curve(one)[0], 0.6) == time_to(top1_curve(one)[0], 0.8) == 20.0
    assert time_to(top1_curve(one)[0], 0.81) == math.inf
    assert mean_height(top1_curve(one)[0]) == pytest.approx(
        (5 + 6.5 + 7.5) / 30
    )  # level, then straight between evaluations
    assert mean_height(top1_curve(one)[0], part=0.5) == pytest.approx((5 + 5 * (0.5 + 0.65) / 2) / 15)
    assert mean_height(top1_curve(one)[0], part=0.1) == 0.5
    unreadable = run(tmp_path, "b", [(1, 10.0, None)])
    assert time_to(top1_curve(unreadable)[0], 0.5) is None
    assert mean_height(top1_curve(unreadable)[0]) is None


def test_time_to_a_target_is_a_column(tmp_path: Path) -> None:
    run(tmp_path, "a", [(1, 10.0, 0.5), (2, 20.0, 0.8)])
    run(tmp_path, "bb", [(1, 20.0, 0.5), (2, 40.0, 0.9)])
    command = ["table", "--results-dir", str(tmp_path), "--format", "markdown", "--target"]
    done = CliRunner().invoke(app, [*command, "0.8"])
    assert "30.0 ± 14.1 |" in done.stdout
    assert "Target: a top-1 of 80 %" in done.stdout
    assert "never" in CliRunner().invoke(app, [*command, "0.85"]).stdout
    refused = CliRunner().invoke(app, [*command, "80"])
    assert refused.exit_code == 2
    assert "--target 80: is a top-1 as a fraction, such as 0.8" in refused.output
    assert "time to target" in CliRunner().invoke(app, [*command, "0.8", "--values", "top1"]).stdout
    refused = CliRunner().invoke(app, [*command[:-1], "--values", "time_to_target_s"])
    assert "time_to_target_s: to which top-1? Add --target" in refused.output
