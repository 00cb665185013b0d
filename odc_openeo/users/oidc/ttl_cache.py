"""A document of a provider, cached for a limited time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from odc_openeo.users.oidc.http import Unreachable

log = logging.getLogger(__name__)

MAX_AGE_S = 86_400.0
"""How long the last document of an unreachable provider is used, in seconds."""

T = TypeVar("T")


class CachedDocument(Generic[T]):
    """The result of ``fetch``, refreshed after ``lifetime_s``, but not more often than every ``interval_s``.

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
        """Get the document; Unreachable if there is none and it cannot be fetched."""
        kept = self._value
        if kept is not None and time.monotonic() - kept[0] < self._lifetime:
            return kept[1]
        if kept is not None and self._lock.locked():
            # Another thread is refreshing it; the cached document is good enough in the meantime.
            return kept[1]
        return self.get_newer(kept)

    def get_newer(self, than: tuple[float, T] | None = None) -> T:
        """Fetch the document again, unless that was done since ``than`` or attempted just now."""
        with self._lock:
            if self._value is than or than is None:
                self._refresh()
            return self._get_usable()

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

    def _get_usable(self) -> T:
        if self._value is None or time.monotonic() - self._value[0] > max(MAX_AGE_S, self._lifetime):
            raise Unreachable(self._failure)
        return self._value[1]
