"""The CUDA paths: NCCL with one worker per GPU, and several workers on one GPU staged through the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.multiproc,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def summary(folder: Path, *overrides: str) -> dict[str, object]:
    command = [str(Path(sys.executable).with_name("run-experiment")), *overrides, f"results_dir={folder}", "epochs=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("runs/*/*/summary.json")
    content: dict[str, object] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize("algorithm", ["allreduce", "sgp"])
def test_one_worker_on_nccl(tmp_path: Path, algorithm: str) -> None:
    topology = [] if algorithm == "allreduce" else ["topology=one_peer_exponential"]
    result = summary(tmp_path, f"algorithm={algorithm}", *topology, "nodes=1", "device=cuda")
    assert (result["device"], result["backend"]) == ("cuda", "nccl")


@pytest.mark.parametrize("method", [["algorithm=allreduce"], ["algorithm=sgp"], ["algorithm=dpsgd"]])
def test_workers_that_share_a_gpu_agree_with_the_cpu(tmp_path: Path, method: list[str]) -> None:
    common = [*method, "nodes=2", "backend=gloo", "problem.dtype=float64"]
    on_gpu = summary(tmp_path / "gpu", *common, "device=cuda")
    on_cpu = summary(tmp_path / "cpu", *common, "device=cpu")
    assert on_gpu["bytes_sent"] == on_cpu["bytes_sent"]
    assert on_gpu["loss_mean_model"] == pytest.approx(on_cpu["loss_mean_model"], rel=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_workers_on_nccl(tmp_path: Path) -> None:
    result = summary(tmp_path, "algorithm=sgp", "nodes=2", "device=cuda")
    assert result["backend"] == "nccl"
