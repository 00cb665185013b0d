"""What a runner is about to do, said before it does it, so that its pool knows why it ended or hangs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LONGEST = 200
"""Characters of the names of files in a notice."""


@dataclass(frozen=True)
class Notice:
    """Files of a user that are read from now on, and how many seconds opening them may take."""

    files: str
    seconds: float | None = None


_send: Callable[[Notice], None] | None = None


def set_receiver(send: Callable[[Notice], None]) -> None:
    """Let notices of this process go to ``send``; without a receiver they go nowhere."""
    global _send
    _send = send


@contextlib.contextmanager
def opening_files(names: Sequence[str], seconds: float | None = None) -> Iterator[None]:
    """Say which files of a user are opened here, and read later, by libraries that damaged files can crash.

    Beyond ``seconds`` the process is ended: damaged files can let these libraries go round in circles.
    """
    files = ", ".join(names)[:LONGEST]
    _notify(Notice(files, seconds))
    yield
    if seconds is not None:
        _notify(Notice(files))


def _notify(notice: Notice) -> None:
    if _send is not None:
        _send(notice)
