"""Signed links to the tiles of private services."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import Final
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import ResultLinkExpired
from odc_openeo.results import expiry
from odc_openeo.services.model import Service

PATTERN: Final = r"[0-9]{1,12}-[0-9a-f]{40}"
"""What a link has in its path after the id of the service."""


def signature(config: Config, service: UUID, expires: int) -> str:
    """The signature of links to one service: no other service can be seen with it."""
    message = f"service {service} {expires}".encode()
    return hmac.new(config.signing_key(), message, hashlib.sha256).hexdigest()[:40]


def key(config: Config, service: Service) -> str:
    """A key to a service that is good from now for ``link_lifetime_hours`` at least."""
    expires = expiry(config)
    return f"{expires}-{signature(config, service.id, expires)}"


def check(config: Config, service: UUID, given: str) -> None:
    """Raise ResultLinkExpired unless the key opens the service now."""
    expires, _, signed = given.partition("-")
    right = re.fullmatch(PATTERN, given) is not None
    if not right or not hmac.compare_digest(signed, signature(config, service, int(expires))):
        raise ResultLinkExpired("The link is not right. Copy it whole from the metadata of the service.")
    if int(expires) < time.time():
        raise ResultLinkExpired(
            "The link to this service has expired. Its owner gets another one from the service's metadata, "
            "or can make the service public."
        )
