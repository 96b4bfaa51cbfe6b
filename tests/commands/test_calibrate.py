"""scripts/calibrate.py: what it fits is what was measured, and a simulated run takes the cluster that it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from commandline import PATIENCE_S, content, environment, the_run, type_in
from hypothesis import given
from hypothesis import strategies as st

from runner.cluster.links import Link, Network

SCRIPTS = Path(__file__).parents[2] / "scripts"
RUN = ("algorithm=sgp", "nodes=2", "model.hidden=[16]", "batch_size=8")


@pytest.fixture(scope="module")
def calibrate() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        import calibrate

        return calibrate


@given(
    kind=st.sampled_from(["exchange", "all-reduce"]),
    processes=st.integers(2, 8),
    latency_s=st.floats(1e-6, 1e-2),
    bandwidth=st.floats(1e7, 1e11),
)
def test_a_link_that_is_as_the_clock_has_it_is_found_again(calibrate, kind, processes, latency_s, bandwidth):
    link = calibrate.Link(latency_s, bandwidth)
    seconds = {n: calibrate.operation_s(kind, processes, n, link) for n in (4, 10**6, 10**9)}
    found = calibrate.fit_link(kind, processes, seconds)
    assert found.latency_s == pytest.approx(latency_s, rel=1e-6)
    assert found.bandwidth == pytest.approx(bandwidth, rel=1e-6)


def test_what_is_fitted_is_what_the_clock_charges(calibrate):
    inter, reduction, workers, nbytes = Link(1e-4, 1e9), Link(2e-3, 1e8), 4, 10**6
    network = Network(workers, 1, 1, inter, inter, {}, reduction_link=reduction)
    head_s = network.leave(network.link(0, 1, 0.0), 0, nbytes, 0.0)
    one_message_s = network.arrive(inter, 1, nbytes, head_s)
    assert one_message_s == pytest.approx(calibrate.operation_s("exchange", workers, nbytes, inter))
    reduced_s = network.all_reduce_s(range(workers), nbytes, 0.0)
    assert reduced_s == pytest.approx(calibrate.operation_s("all-reduce", workers, nbytes, reduction))


def test_messages_that_do_not_grow_with_their_size_are_no_measurement(calibrate):
    with pytest.raises(RuntimeError, match="not slower than small ones"):
        calibrate.fit_link("exchange", 2, {4: 1e-3, 10**6: 1e-5})


@given(sigma=st.floats(0.05, 0.8), processes=st.integers(2, 8))
def test_the_spread_is_that_by_which_the_slowest_is_slower(calibrate, sigma, processes):
    times = 0.01 * np.exp(sigma * np.random.default_rng(0).standard_normal((processes, 4000)))
    found = calibrate.fit_compute(times)
    assert found.seconds == times.mean()
    assert found.sigma == pytest.approx(sigma, rel=0.1)
    assert calibrate.fit_compute(np.full((processes, 5), 0.01)).sigma < 1e-3


def start(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "calibrate.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.multiproc
def test_a_simulated_run_takes_what_is_written(tmp_path: Path) -> None:
    done = start("mine", *RUN, "--rounds", "3", "--iterations", "9", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 3 of 3" in done.stdout
    mine = ("launcher=simulated", "cluster=mine", "--config-dir", "calibrated")
    simulated = type_in(*RUN, *mine, "epochs=1", cwd=tmp_path)
    assert simulated.status == 0, simulated.stderr
    summary = content(the_run(tmp_path) / "summary.json")
    assert (summary["clock"], summary["cluster"]) == ("virtual", "mine")
    assert summary["compute_s"] > 0
    assert summary["wait_s"] > 0


def test_one_process_has_no_messages_to_measure(tmp_path: Path) -> None:
    done = start("mine", "nodes=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "nodes=1 gpus_per_node=1: messages are measured between" in done.stderr
    assert not (tmp_path / "calibrated").exists()


def test_emulated_hosts_are_gone_whatever_happens() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        import emulated_hosts
    reason = emulated_hosts.why_not()
    if reason is not None:
        pytest.skip(f"no hosts can be emulated: {reason}")
    there = []

    def fail_among_hosts() -> None:
        with emulated_hosts.emulated_hosts(2, 1e9) as hosts:
            there.extend(Path("/run/netns", host).exists() for host in hosts)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_among_hosts()
    assert there == [True, True]
    assert list(Path("/run/netns").glob(f"{emulated_hosts.BRIDGE}*")) == []
    assert not Path("/sys/class/net", emulated_hosts.BRIDGE).exists()
