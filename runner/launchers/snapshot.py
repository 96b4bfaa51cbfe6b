"""A copy of the code for a job that waits: what is edited meanwhile does not reach it."""

from __future__ import annotations

import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
CODE = ("runner", "algorithms", "models", "conf")
IGNORED = shutil.ignore_patterns("__pycache__")


def take(folder: Path) -> Path:
    """Copy this program, and what has been imported from the current directory, to `folder`/code."""
    code = folder / "code"
    for name in CODE:
        if (HOME / name).is_dir():  # an installed package holds conf inside runner
            shutil.copytree(HOME / name, code / name, ignore=IGNORED)
    for name, path in _own_modules().items():
        if path.is_dir():  # whole, for it may import more of itself later
            shutil.copytree(path, code / name, ignore=IGNORED, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, code / path.name)
    return code


def _own_modules() -> dict[str, Path]:
    """The user's own modules and packages: those imported from below the folder they stand in."""
    here, found = Path.cwd(), {}
    not_theirs = [Path(sys.prefix), Path(sys.base_prefix), *(HOME / name for name in CODE)]
    for name in {name.partition(".")[0] for name in sys.modules} - {"__main__"}:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if isinstance(spec, ModuleSpec) and (spec.submodule_search_locations or spec.has_location):
            path = Path(next(iter(spec.submodule_search_locations or [str(spec.origin)]))).resolve()
            if path.is_relative_to(here) and not any(path.is_relative_to(other.resolve()) for other in not_theirs):
                found[name] = path
    return found
