"""Where a data set's files are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

found_whole: ContextVar[bool] = ContextVar("found_whole", default=False)
"""Whether the launching process has read the files to their ends, so that this one need not."""


class DataError(ValueError):
    """A data set is missing, incomplete or corrupt; the message says where, what is expected and what to do."""


class Layout(NamedTuple):
    """One way in which a data set may lie on disk: these files in that folder."""

    folder: Path
    files: tuple[str, ...]

    def paths(self) -> list[Path]:
        return [self.folder / file for file in self.files]

    def missing(self) -> list[str]:
        """Names of the files that are not there or may not be read."""
        return [path.name for path in self.paths() if not os.access(path, os.R_OK)]


def base(root: str | None) -> Path:
    """The folder to look in: `root`, else the environment variable DISTSGD_DATA, else `data` below the current one."""
    return Path(root or os.environ.get("DISTSGD_DATA") or "data").expanduser().absolute()


def find(
    name: str, root: str | None, layouts: Sequence[Layout], remedy: str, download: Callable[[], object] | None
) -> Layout:
    """The first complete layout; where there is none, download (if asked to) and look again.

    Args:
        name: the data set's name, for messages.
        root: the value of dataset.root, for messages.
        layouts: the places, in the order in which they are looked at.
        remedy: what the user can do, for messages.
        download: fetches the files into the first place's root, or None.

    Raises:
        DataError: no place has all files, or the download failed.
    """
    found = complete(layouts)
    if found is None and download is not None:
        try:
            download()
        except (OSError, RuntimeError) as error:
            raise DataError(f"dataset.download=true: {name} could not be downloaded: {error}; {remedy}") from error
        found = complete(layouts)
    if found is not None:
        return found
    where = f"dataset.root={'null' if root is None else root}"
    for layout in layouts:
        missing = layout.missing()
        if len(missing) < len(layout.files):
            raise DataError(f"{where}: {name} is incomplete: {layout.folder} lacks {', '.join(missing)}; {remedy}")
    places = ", ".join(dict.fromkeys(str(layout.folder) for layout in layouts))
    expected = ", ".join(layouts[0].files)
    raise DataError(f"{where}: no {name} in any of {places}. Expected there: {expected}; {remedy}")


def corrupt(path: Path, why: str, remedy: str) -> DataError:
    """The error for a file that is there but cannot be what it should be."""
    return DataError(f"dataset.root: {path} is corrupt ({why}); delete it and {remedy}")


def complete(layouts: Sequence[Layout]) -> Layout | None:
    """The first layout of which all files are there."""
    return next((layout for layout in layouts if not layout.missing()), None)
