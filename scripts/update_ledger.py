"""Enter configuration keys that are new into runner/ledger.yaml, at the default they have now.

A key that stands there already is never changed: see runner/identity.py. Run after adding a key or an option:

    python scripts/update_ledger.py          # writes
    python scripts/update_ledger.py --check  # exit status 1 if a key is missing
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config import conf_dir
from runner.identity import GROUPS, LEDGER, OUTSIDE, VIRTUAL_GROUPS, flat


def defaults_now() -> dict[str, dict[str, Any]]:
    """For the top level ("") and each `<group>/<option>`: key -> its default in conf/."""
    sections = {"": _keys(conf_dir() / "config.yaml", "", {"defaults", "hydra", *OUTSIDE})}
    for group in (*GROUPS, *VIRTUAL_GROUPS):
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            sections[f"{group}/{path.stem}"] = _keys(path, f"{group}.", {"defaults"})
    return sections


def _keys(path: Path, prefix: str, left_out: set[str]) -> dict[str, Any]:
    content = OmegaConf.to_container(_with_bases(path))
    assert isinstance(content, dict)
    kept = {str(key): value for key, value in content.items() if key not in left_out}
    return {key: value for key, value in flat(kept) if f"{prefix}{key}" not in OUTSIDE}


def _with_bases(path: Path) -> Any:
    """A file on top of those of its own folder that its defaults list names."""
    content = OmegaConf.load(path)
    listed: list[Any] = content.get("defaults", []) if isinstance(content, DictConfig) else []
    bases = [base for base in listed if isinstance(base, str) and base not in ("schema", "_self_")]
    return OmegaConf.merge(*(_with_bases(path.with_name(f"{base}.yaml")) for base in bases), content)


def main() -> int:
    content = OmegaConf.to_container(OmegaConf.load(LEDGER)) if LEDGER.exists() else {}
    assert isinstance(content, dict)
    missing = 0
    for section, defaults in defaults_now().items():
        entries = content.setdefault(section, {})
        for key, default in defaults.items():
            if key not in entries:
                missing += 1
                entries[key] = default
                print(f"{section or 'top level'}: {key} = {default}")
    if missing and "--check" not in sys.argv[1:]:
        head = "# key -> its default when it was added. Entries never change: see scripts/update_ledger.py.\n"
        LEDGER.write_text(head + OmegaConf.to_yaml(OmegaConf.create(content)))
    return 1 if missing and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
