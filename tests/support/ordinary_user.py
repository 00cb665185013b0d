"""Run Python as an ordinary user, as tests often run as root."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def may_enter(path: Path) -> bool:
    """Return whether every user may enter a folder or run a file."""
    real = path.resolve()
    return real.exists() and all(entry.stat().st_mode & 0o001 for entry in (real, *real.parents))


def find_python_of_all(packages: Iterable[Path]) -> str | None:
    """Find a Python of our version that every user may run, as ours may be in root's home.

    None if there is none, or if not every user may read the packages.
    """
    ours = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [sys.executable, f"/usr/local/bin/{ours}", f"/usr/bin/{ours}"]
    if not all(may_enter(entry) for entry in packages):
        return None
    return next((entry for entry in candidates if may_enter(Path(entry))), None)
