"""`experiments doctor`: what it checks for real here, and what it says where something is missing."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.commands import doctor
from runner.commands.doctor import Finding


@pytest.fixture
def bin_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there is nothing but what a test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def command(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def levels(findings: Iterator[Finding]) -> dict[str, str]:
    """By the first word of what was found."""
    return {finding.what.split(":")[0].split()[0]: finding.level for finding in findings}


@pytest.mark.multiproc
def test_here_runs_can_run(tmp_path: Path, bin_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.examine(tmp_path / "results") == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line.split()[1]: line.split()[0] for line in lines[:-2] if not line.startswith(" ")}
    assert {name: told[name] for name in ("Python", "torch", "gloo", "results", "free")} == {
        **dict.fromkeys(("Python", "torch", "gloo", "results"), "ok"),
        "free": told["free"],
    }
    assert lines[-1].startswith("0 failed, ")
    assert not (tmp_path / "results").exists()  # it looks, and leaves nothing


def test_processes_that_cannot_meet_are_told() -> None:
    said = doctor._all_reduce("no_such0")
    assert said is not None
    assert "no_such0" in said


def test_another_python_or_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHON", ((3, 90), (3, 92)))
    [finding] = doctor.python()
    assert finding.level == "failed"
    assert "must be 3.90 to 3.91" in finding.what
    monkeypatch.setattr(doctor, "TORCH", (99, 0))
    [finding] = doctor.torch()
    assert finding.level == "failed"
    assert "must be torch 99.0 or newer" in finding.what


def test_without_slurm_nothing_is_wrong(bin_only: Path) -> None:
    [finding] = doctor.slurm()
    assert finding.level == "absent"
    assert "launcher=local" in finding.what


def test_a_slurm_that_does_not_answer(bin_only: Path) -> None:
    command(bin_only / "sbatch", "echo slurm 22.05.8")
    command(bin_only / "sinfo", "echo 'sinfo: error: Unable to contact slurm controller' >&2; exit 1")
    first, second = doctor.slurm()
    assert first == Finding("ok", "SLURM: slurm 22.05.8")
    assert (second.level, second.what) == ("failed", "sinfo: sinfo: error: Unable to contact slurm controller")
    assert "launcher=local" in second.remedy


def test_a_slurm_without_accounting(bin_only: Path) -> None:
    command(bin_only / "sbatch", "echo slurm 22.05.8")
    command(bin_only / "sinfo", "echo 'main*: 4 nodes idle'; echo 'other: 1 nodes down'")
    command(bin_only / "squeue", "exit 0")
    command(bin_only / "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    found = list(doctor.slurm())
    assert "partitions: main*: 4 nodes idle, other: 1 nodes down" in [finding.what for finding in found]
    assert levels(iter(found))["sacct"] == "absent"
    assert {finding.level for finding in found} == {"ok", "absent"}


def test_data_sets_are_found_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSGD_DATA", str(tmp_path))
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name in ("train.bin", "test.bin"):
        (folder / name).touch()
    found = {finding.what: finding for finding in doctor.data_sets()}
    assert found[f"data set cifar100: {folder}"].level == "ok"
    [missing] = [finding for what, finding in found.items() if what.startswith("data set cifar10:")]
    assert missing.level == "absent"
    assert "dataset.download=true" in missing.remedy


def test_a_name_that_resolves_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    [finding] = doctor.host_name()
    assert finding.level == "warning"
    assert "/etc/hosts" in finding.remedy


def test_results_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    [finding] = doctor.results(tmp_path / "file")
    assert finding.level == "failed"
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e30)
    written, room = doctor.results(tmp_path)
    assert written.level == "ok"
    assert room.level == "warning"
    assert os.listdir(tmp_path / "runs") == []  # noqa: PTH208


def test_what_fails_shows_in_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for check in ("torch", "gloo", "slurm", "data_sets", "host_name"):
        monkeypatch.setattr(doctor, check, lambda: iter([Finding("warning", "odd", "mend it")]))
    monkeypatch.setattr(doctor, "PYTHON", ((3, 90), (3, 92)))
    assert doctor.examine(tmp_path) == 1
    out = capsys.readouterr().out
    assert "warning  odd\n         -> mend it\n" in out
    assert out.endswith("1 failed, 5 warnings\n")
