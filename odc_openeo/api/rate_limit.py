"""Limits of requests per minute: of a user who is signed in, and of an address for everything else."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from typing import Final, cast

from cachetools import TTLCache
from flask import Flask, current_app, request

from odc_openeo import accounts
from odc_openeo.api.backend import backend
from odc_openeo.errors import TooManyRequests

EXTENSION: Final = "odc_openeo.rates"
PERIOD_S: Final = 60.0
MOST_KEYS: Final = 100_000
SIGNED_IN: Final = "signed_in"
"""Attribute of views that run only for users who are signed in."""


class Rates:
    """Counts requests by key: ``per_minute`` may come at once, then one when the next is due.

    Kept is the time until which a key has used up its share, so nothing needs to be counted anew after a
    minute. Safe to share between threads; each process counts by itself.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._used_until: TTLCache[str, float] = TTLCache(MOST_KEYS, PERIOD_S, timer=time.monotonic)
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Count a request; TooManyRequests if it is one too many."""
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
    """Count requests to all addresses; those of users are counted once it is known who they are."""
    config = app.extensions["odc_openeo"].config
    app.extensions[EXTENSION] = {
        "user": Rates(config.requests_per_minute_user),
        "address": Rates(config.requests_per_minute_address),
    }
    app.before_request(_before)


def _before() -> None:
    view = current_app.view_functions.get(request.endpoint or "")
    if request.method != "OPTIONS" and not getattr(view, SIGNED_IN, False):
        count_address()


def count_user(user: str) -> None:
    """Count a request of a user; TooManyRequests if it is one too many."""
    _rates("user").take(user)


def count_address() -> None:
    """Count a request of nobody known by its address; TooManyRequests if it is one too many.

    This machine itself is not limited where nobody else can come in: that is the operator. Where a proxy may
    be in front, its clients without ``trusted_proxies`` all have its address.
    """
    address = accounts.network(request.remote_addr or "")
    if not (_is_loopback(address) and backend().config.is_local_only):
        _rates("address").take(address)


def _rates(kind: str) -> Rates:
    return cast(Rates, current_app.extensions[EXTENSION][kind])


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_network(address).is_loopback
    except ValueError:
        return False
