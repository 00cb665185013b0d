"""A document of a provider, kept for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from odc_openeo.oidc.fetch import Unreachable

log = logging.getLogger(__name__)

LONGEST_S = 86_400.0
"""A provider that cannot be reached is known by its last answer for so long, in seconds."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """What ``fetch`` gives, asked for again after ``lifetime_s``, and never more often than ``interval_s``.

    Safe to share between threads. ``fetch`` raises Unreachable when it fails.
    """

    def __init__(self, fetch: Callable[[], T], lifetime_s: float, interval_s: float) -> None:
        self._fetch = fetch
        self._lifetime = lifetime_s
        self._interval = interval_s
        self._lock = threading.Lock()
        self._value: tuple[float, T] | None = None
        self._tried: float | None = None
        self._failure = ""

    def get(self) -> T:
        """The document; Unreachable when there is none and it cannot be fetched."""
        kept = self._value
        if kept is not None and time.monotonic() - kept[0] < self._lifetime:
            return kept[1]
        if kept is not None and self._lock.locked():
            # Somebody asks already; what is known is good enough meanwhile.
            return kept[1]
        return self.newer(kept)

    def newer(self, than: tuple[float, T] | None = None) -> T:
        """The document fetched anew, unless that was done since ``than`` or tried just now."""
        with self._lock:
            if self._value is than or than is None:
                self._refresh()
            return self._usable()

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._tried is not None and now - self._tried < self._interval:
            return
        self._tried = now
        try:
            self._value = (time.monotonic(), self._fetch())
        except Unreachable as error:
            self._failure = str(error)
            log.warning("Identity provider: %s", error)

    def _usable(self) -> T:
        if self._value is None or time.monotonic() - self._value[0] > max(LONGEST_S, self._lifetime):
            raise Unreachable(self._failure)
        return self._value[1]
