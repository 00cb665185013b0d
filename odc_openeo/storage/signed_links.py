"""Signed links: an HMAC of what a link opens and until when, so that a link cannot be guessed or changed.

The signature is an HMAC-SHA256 with the service's signing key, shortened to 160 bits.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from typing import Final
from uuid import UUID

from odc_openeo.config import Config

LINK_STEP_S: Final = 3600
"""Links made within the same hour are identical, so that caches and interrupted downloads can use them."""

SIGNATURE_DIGITS: Final = 40
"""Hexadecimal digits of a signature."""


def compute_expiry(config: Config) -> int:
    """Return when a link made now expires, in seconds since 1970."""
    until = time.time() + config.link_lifetime_hours * 3600
    return math.ceil(until / LINK_STEP_S) * LINK_STEP_S


def sign_link(config: Config, purpose: str, ids: tuple[UUID, ...], expires: int) -> str:
    """Sign a link; it opens nothing of another ``purpose``, and nothing but what ``ids`` name."""
    message = " ".join((purpose, *map(str, ids), str(expires))).encode()
    return hmac.new(config.signing_key(), message, hashlib.sha256).hexdigest()[:SIGNATURE_DIGITS]


def is_valid_signature(
    config: Config, purpose: str, ids: tuple[UUID, ...], expires: int, signature: str
) -> bool:
    """Whether the signature is that of `sign_link`; the time of expiry is not checked."""
    return hmac.compare_digest(signature.encode(), sign_link(config, purpose, ids, expires).encode())
