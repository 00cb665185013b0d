"""Files that an operator writes: read again when they have changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def read_if_changed(
    path: Path, title: str, failure: type[ValueError], read_cached: Callable[[Path, int], T]
) -> T:
    """Read a file of settings by a function that is cached by path and time of change in nanoseconds.

    Raises:
        ValueError: of the type ``failure``: the file cannot be read; the message has its ``title`` and why.
    """
    try:
        return read_cached(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise failure(f"the {title} {path} cannot be read: {reason}") from error
