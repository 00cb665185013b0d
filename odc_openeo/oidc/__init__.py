"""OpenID Connect: which providers there are, and whom an access token of theirs belongs to."""

from __future__ import annotations

from odc_openeo.oidc.browser import Arrival, Departure, arrive, depart, for_browsers
from odc_openeo.oidc.entitlements import Identity
from odc_openeo.oidc.identify import account_url, asks, check, find_provider, identify, listing
from odc_openeo.oidc.provider import Provider
from odc_openeo.oidc.settings import ProviderSettings, load_providers

__all__ = [
    "Arrival",
    "Departure",
    "Identity",
    "Provider",
    "ProviderSettings",
    "account_url",
    "arrive",
    "asks",
    "check",
    "depart",
    "find_provider",
    "for_browsers",
    "identify",
    "listing",
    "load_providers",
]
