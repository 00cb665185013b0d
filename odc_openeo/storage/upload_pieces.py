"""Pieces of an upload, handed from the thread that reads the source to the one that sends them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, Self

MOST_WAITING: Final = 4
"""Pieces that are read ahead."""


class SourceFailedError(Exception):
    """The source has failed: the upload is to be aborted."""


class Pieces:
    """An iterator over pieces that another thread adds. It raises SourceFailedError if that thread fails."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._is_closed = self._has_failed = self._has_ended = False

    def add(self, piece: bytes) -> bool:
        """Add a piece once there is room for it; False if nobody takes pieces any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._pieces) < MOST_WAITING or self._has_ended)
            self._pieces.append(piece)
            self._changed.notify_all()
            return not self._has_ended

    def close(self) -> None:
        """There are no more pieces."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def fail(self) -> None:
        """Let the upload be aborted."""
        with self._changed:
            self._has_failed = True
            self._changed.notify_all()

    def end(self) -> None:
        """No more pieces will be taken: the upload has ended."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._is_closed or self._has_failed)
            if self._has_failed:
                raise SourceFailedError
            if not self._pieces:
                raise StopIteration
            self._changed.notify_all()
            return self._pieces.popleft()
