"""What a runner is about to do, said before it does it: if that ends the process, its pool knows why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_send: Callable[[str], None] | None = None


def set_receiver(send: Callable[[str], None]) -> None:
    """Let notices of this process go to ``send``; without a receiver they go nowhere."""
    global _send
    _send = send


def note_files(names: Sequence[str]) -> None:
    """Say which files of a user are read from now on, by libraries that damaged files can crash."""
    if _send is not None:
        _send(", ".join(names)[:200])
