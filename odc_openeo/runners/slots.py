"""Slots of users: they limit how many runs a user has at once, over all processes of this machine.

A slot is a file lock. The kernel releases it when the process that holds it ends, so none is ever lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

POLL_S: Final = 0.02


@contextlib.contextmanager
def hold_slot(
    folder: Path, user: str, slots: int, wait_s: float, is_wanted: Callable[[], bool]
) -> Iterator[bool]:
    """Hold one of the ``slots`` of a user; False if none is free in ``wait_s`` or while it is wanted."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = _wait_for_slot(folder, user, slots, time.monotonic() + wait_s, is_wanted)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _wait_for_slot(
    folder: Path, user: str, slots: int, deadline: float, is_wanted: Callable[[], bool]
) -> int | None:
    while True:
        for number in range(slots):
            descriptor = _try_slot(folder / f"{_name_of(user)}-{number}")
            if descriptor is not None:
                return descriptor
        if time.monotonic() >= deadline or not is_wanted():
            return None
        time.sleep(POLL_S)


def _name_of(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()[:32]


def _try_slot(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
