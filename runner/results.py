"""A run's folder: what stands in it, how it is written, how it is read back.

    results/runs/<experiment or algorithm>/<identity>/
      config.yaml  overrides.txt  environment.json
      rank-00000.jsonl ...   evaluations.jsonl     appended row by row, one writer per file
      log/                   each rank's output; traceback of a failure
      state.json             {"status": queued | running | finished | failed | interrupted, "reason", "updated"}
      summary.json           appears by rename when, and only when, the run is finished

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from runner import identity as identities
from runner.build import ConfigError
from runner.config import Config

Row = dict[str, Any]


def run_folder(config: Config) -> Path:
    """Where the run of this resolved configuration lives."""
    name = config["choices"].get("experiment") or config["choices"]["algorithm"]
    return Path(config["results_dir"]).expanduser() / "runs" / str(name) / identities.identity(config)


def check_writable(results_dir: str) -> None:
    """Make `results_dir` and write to it.

    Raises:
        ConfigError: it is empty, or cannot be written.
    """
    if not results_dir:
        raise ConfigError("results_dir=: is empty; name a folder, or . for this one")
    folder = Path(results_dir).expanduser() / "runs"
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"results_dir={results_dir}: cannot be written ({error.strerror}); choose another") from error


def write_json(path: Path, content: Row) -> None:
    """Write by temporary file and rename: readers see the old content or the new, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def write_state(folder: Path, status: str, reason: str | None = None, **more: Any) -> None:
    updated = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "state.json", {"status": status, "reason": reason, "updated": updated, **more})


def rewrite_state(folder: Path, state: Row, status: str, reason: str | None) -> None:
    """Another status and reason in place of those of `state`; what else that says (job, nodes, restarts) stays."""
    more = {key: value for key, value in state.items() if key not in ("status", "reason", "updated")}
    write_state(folder, status, reason, **more)


def finite(value: float) -> float | None:
    """JSON has no NaN: a diverged run's loss is null."""
    return value if math.isfinite(value) else None


def read_json(path: Path) -> Row | None:
    """The object in a JSON file; None where it is missing or unreadable."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def status(folder: Path) -> str | None:
    """The run's status; None where there is no run."""
    if (folder / "summary.json").exists():
        return "finished"
    state = read_json(folder / "state.json")
    return None if state is None else str(state.get("status"))


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl file; a last line still being written is left out."""
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def set_aside(folder: Path) -> None:
    """Move an earlier attempt out of the way, losing nothing: to .earlier/<identity>-<k> beside it."""
    attic = folder.parent / ".earlier"
    attic.mkdir(exist_ok=True)
    k = 1
    while (attic / f"{folder.name}-{k}").exists():
        k += 1
    folder.rename(attic / f"{folder.name}-{k}")


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Hold the run against other launchers, on this machine or a shared file system; False where one holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lock_file(folder)
    file = _locked(path)
    if file is None:
        yield False
        return
    with file:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def deserted(folder: Path) -> bool:
    """Whether a run's launcher was killed before it could say so: its lock is there, and nobody holds it."""
    try:
        with _lock_file(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is held, was never there, or cannot be asked
        return False
    return True


def _lock_file(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lock"


def _locked(path: Path) -> IO[str] | None:
    """The file, open and locked; None where another launcher holds it."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return None
            continue  # it was not a launcher: somebody asked whether there is one, see `deserted`
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder removed it between our opening and our locking it


class RowWriter:
    """Appends rows to a .jsonl file; they reach the disk every `flush_s` seconds, so that others can follow.

    Args:
        kept: bytes that stay of what is there already; None: all of them. What an earlier attempt wrote after its last
            checkpoint goes.
    """

    def __init__(self, path: Path, flush_s: float = 0.25, kept: int | None = None) -> None:
        self.file: IO[str] = path.open("a", buffering=1 << 16)
        if kept is not None:
            self.file.truncate(min(kept, self.file.tell()))
            self.file.seek(0, os.SEEK_END)
        self.rows: list[Row] = []  # turned to text many at a time, off the path of most steps
        self.flush_s = flush_s
        self.flushed = -flush_s  # the first row goes at once

    def write(self, row: Row) -> None:
        self.rows.append(row)
        if time.monotonic() - self.flushed >= self.flush_s:
            self.flush()

    def flush(self) -> None:
        """Bring what has been written to the disk."""
        self.file.writelines(json.dumps(row) + "\n" for row in self.rows)
        self.rows.clear()
        self.file.flush()
        self.flushed = time.monotonic()

    def size(self) -> int:
        """Bytes of all that was written."""
        self.flush()
        return self.file.tell()

    def close(self) -> None:
        self.flush()
        self.file.close()
