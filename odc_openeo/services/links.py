"""Signed links to the tiles of private services."""

from __future__ import annotations

import re
import time
from typing import Final
from uuid import UUID

from odc_openeo.config import Config
from odc_openeo.errors import ResultLinkExpired
from odc_openeo.services.model import Service
from odc_openeo.storage.signed_links import SIGNATURE_DIGITS, compute_expiry, is_valid_signature, sign_link

PATTERN: Final = rf"[0-9]{{1,12}}-[0-9a-f]{{{SIGNATURE_DIGITS}}}"
"""The key that a link has in its path after the id of the service."""

PURPOSE: Final = "service"


def sign_service(config: Config, service: UUID, expires: int) -> str:
    """Sign links to one service; the signature opens no other service."""
    return sign_link(config, PURPOSE, (service,), expires)


def make_key(config: Config, service: Service) -> str:
    """Return a key to a service that is valid for at least ``link_lifetime_hours`` from now."""
    expires = compute_expiry(config)
    return f"{expires}-{sign_service(config, service.id, expires)}"


def check_key(config: Config, service: UUID, key: str) -> None:
    """Raise ResultLinkExpired unless the key opens the service now."""
    expires, _, signature = key.partition("-")
    is_key = re.fullmatch(PATTERN, key) is not None
    if not is_key or not is_valid_signature(config, PURPOSE, (service,), int(expires), signature):
        raise ResultLinkExpired("The link is not valid. Copy all of it from the metadata of the service.")
    if int(expires) < time.time():
        raise ResultLinkExpired(
            "The link to this service has expired. Its owner can get a new one from the metadata of the "
            "service, or make the service public."
        )
