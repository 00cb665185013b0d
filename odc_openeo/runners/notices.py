"""Notices of what a runner is about to do, so that its pool knows why it crashed or hangs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LONGEST = 200
"""Maximum number of characters of the file names in a notice."""


@dataclass(frozen=True)
class Notice:
    """The files of a user that are read from now on, and how many seconds opening them may take."""

    files: str
    seconds: float | None = None


_send: Callable[[Notice], None] | None = None


def set_receiver(send: Callable[[Notice], None]) -> None:
    """Send notices of this process to ``send``; without a receiver they are dropped."""
    global _send
    _send = send


@contextlib.contextmanager
def opening_files(names: Sequence[str], seconds: float | None = None) -> Iterator[None]:
    """Announce files of a user that are opened here, and read later, by libraries that they can crash.

    After ``seconds`` the process is ended: damaged files can send these libraries into an endless loop.
    """
    files = ", ".join(names)[:LONGEST]
    _send_notice(Notice(files, seconds))
    yield
    if seconds is not None:
        _send_notice(Notice(files))


def _send_notice(notice: Notice) -> None:
    if _send is not None:
        _send(notice)
