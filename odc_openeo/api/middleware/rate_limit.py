"""Limits on requests per minute: per signed-in user, and per IP address for all other requests."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from typing import Final, cast

from cachetools import TTLCache
from flask import Flask, current_app, request

from odc_openeo.api.backend import backend
from odc_openeo.errors import TooManyRequests
from odc_openeo.users import accounts

EXTENSION: Final = "odc_openeo.rates"
PERIOD_S: Final = 60.0
MAX_KEYS: Final = 100_000
SIGNED_IN: Final = "signed_in"
"""Attribute that marks views for signed-in users only."""


class RateLimiter:
    """Limits requests per key: a burst of ``per_minute`` is allowed, later ones as the allowance refills.

    It stores the time until which a key has used its allowance (generic cell rate algorithm), so no counters
    have to be reset every minute. Thread-safe; every process counts separately.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._used_until: TTLCache[str, float] = TTLCache(MAX_KEYS, PERIOD_S, timer=time.monotonic)
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Count a request; TooManyRequests if it exceeds the limit."""
        if not self.per_minute:
            return
        now, step = time.monotonic(), PERIOD_S / self.per_minute
        with self._lock:
            until = max(self._used_until.get(key, now), now) + step
            if until - now <= PERIOD_S:
                self._used_until[key] = until
                return
        seconds = math.ceil(until - now - PERIOD_S)
        raise TooManyRequests(
            f"More than {self.per_minute} requests within a minute. Please wait {seconds} s.", seconds=seconds
        )


def register(app: Flask) -> None:
    """Count all requests; those of users are counted once they are authenticated."""
    config = app.extensions["odc_openeo"].config
    app.extensions[EXTENSION] = {
        "user": RateLimiter(config.requests_per_minute_user),
        "address": RateLimiter(config.requests_per_minute_address),
    }
    app.before_request(_count_anonymous_request)


def _count_anonymous_request() -> None:
    view = current_app.view_functions.get(request.endpoint or "")
    if request.method != "OPTIONS" and not getattr(view, SIGNED_IN, False):
        count_address()


def count_user(user: str) -> None:
    """Count a request of a user; TooManyRequests if it exceeds the limit."""
    _get_limiter("user").take(user)


def count_address() -> None:
    """Count an unauthenticated request by its IP address; TooManyRequests if it exceeds the limit.

    Loopback requests are not limited if the service can only be reached from this machine: they are the
    operator's. Otherwise a proxy may be in front of it, and without ``trusted_proxies`` all of the proxy's
    clients share its address.
    """
    address = accounts.get_network(request.remote_addr or "")
    if not (_is_loopback(address) and backend().config.is_local_only):
        _get_limiter("address").take(address)


def _get_limiter(kind: str) -> RateLimiter:
    return cast(RateLimiter, current_app.extensions[EXTENSION][kind])


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_network(address).is_loopback
    except ValueError:
        return False
