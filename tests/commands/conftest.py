"""What several tests share: a sweep that is made once, and the command without the seconds that it takes to start."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commandline import SMALL, Done, type_in

from runner.main import main

SWEEP = ("-m", "algorithm=allreduce,dpsgd,sgp", "gpus_per_node=1,2", "nodes=2", "epochs=3", "evaluation.every=2")


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The current directory of a finished sweep of six cells, which nobody may change, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    return folder, type_in(*SMALL, *SWEEP, cwd=folder)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Runs `run-experiment` in this process, which has torch loaded, with `tmp_path` as the current directory."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def here(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["run-experiment", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, *capsys.readouterr())

    yield here
    signal.signal(signal.SIGINT, on_interrupt)
