"""OpenID Connect: identity providers, and the users that their access tokens belong to."""

from __future__ import annotations

from odc_openeo.users.oidc.code_flow import (
    SignInRedirect,
    SignInResult,
    begin_sign_in,
    finish_sign_in,
    list_browser_providers,
)
from odc_openeo.users.oidc.entitlements import Identity
from odc_openeo.users.oidc.identify import (
    check_providers,
    find_account_url,
    find_provider,
    identify_user,
    list_providers,
    needs_provider,
)
from odc_openeo.users.oidc.provider import OidcProvider
from odc_openeo.users.oidc.settings import ProviderSettings, load_providers

__all__ = [
    "Identity",
    "OidcProvider",
    "ProviderSettings",
    "SignInRedirect",
    "SignInResult",
    "begin_sign_in",
    "check_providers",
    "find_account_url",
    "find_provider",
    "finish_sign_in",
    "identify_user",
    "list_browser_providers",
    "list_providers",
    "load_providers",
    "needs_provider",
]
