"""An identity provider: its discovery document, its keys, and its claims about tokens."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from cachetools import TTLCache
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from odc_openeo.errors import TokenInvalid
from odc_openeo.users.oidc.http import Unreachable, fetch_json
from odc_openeo.users.oidc.settings import ProviderSettings, is_loopback
from odc_openeo.users.oidc.ttl_cache import CachedDocument

log = logging.getLogger(__name__)

MAX_TOKENS = 10_000
MIN_RSA_BITS = 2048
WELL_KNOWN = "/.well-known/openid-configuration"

Claims = dict[str, Any]


class OidcProvider:
    """An identity provider, one object per process; thread-safe. Nothing is requested before it is needed.

    Its methods raise Unreachable if the provider gives no usable response.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings: Final = settings
        timing = (settings.keys_lifetime_s, settings.refresh_interval_s)
        self._document = CachedDocument(self._fetch_document, *timing)
        self._keys = CachedDocument(self._fetch_keys, *timing)
        self._answers: TTLCache[bytes, Claims | None] = TTLCache(MAX_TOKENS, settings.cache_s)
        self._lock = threading.Lock()

    @property
    def issuer(self) -> str:
        """The issuer exactly as its tokens spell it."""
        return str(self._document.get()["issuer"])

    def get_keys(self, kid: str | None) -> list[Key]:
        """Get the keys with an id, or all; they are fetched again if there is none."""
        matching_keys = _select_keys(self._keys.get(), kid)
        return matching_keys or _select_keys(self._keys.get_newer(), kid)

    def introspect(self, token: str) -> Claims:
        """Get the claims of a token by introspection; TokenInvalid if it is not valid."""
        return self._ask_once("introspection", token, self._request_introspection)

    def fetch_userinfo(self, token: str) -> Claims:
        """Get the claims about the user of a token from userinfo; TokenInvalid if it is not valid."""
        return self._ask_once("userinfo", token, self._request_userinfo)

    def has_answer(self, token: str) -> bool:
        """Whether there is a cached answer about an opaque token."""
        with self._lock:
            return _hash_token(self.settings.opaque_tokens, token) in self._answers

    def _ask_once(self, what: str, token: str, ask: Callable[[str], Claims | None]) -> Claims:
        key = _hash_token(what, token)
        with self._lock:
            is_cached = key in self._answers
            claims = self._answers.get(key)
        if not is_cached:
            claims = ask(token)
            with self._lock:
                self._answers[key] = claims
        if claims is None:
            raise TokenInvalid
        return claims

    def _request_introspection(self, token: str) -> Claims | None:
        settings = self.settings
        assert settings.client_id is not None
        assert settings.client_secret is not None
        status, claims = fetch_json(
            self.get_endpoint("introspection_endpoint"),
            form={"token": token, "token_type_hint": "access_token"},
            basic=(settings.client_id, settings.client_secret.get_secret_value()),
        )
        if status != 200 or not isinstance(claims, dict):
            raise Unreachable(
                f"introspection responds with status {status}: check client_id and client_secret"
            )
        return claims if claims.get("active") is True else None

    def _request_userinfo(self, token: str) -> Claims | None:
        status, claims = fetch_json(self.get_endpoint("userinfo_endpoint"), bearer=token)
        if status in (400, 401, 403):
            return None
        if status != 200 or not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
            raise Unreachable(f"userinfo responds with status {status} and no claims in JSON")
        return claims

    def get_endpoint(self, name: str) -> str:
        """Get a URL of the discovery document."""
        url = self._document.get().get(name)
        secure = isinstance(url, str) and (
            url.startswith("https://") or (is_loopback(self.settings.issuer) and is_loopback(url))
        )
        if not secure:
            raise Unreachable(f"the discovery document has no {name} with https://")
        return str(url)

    def _fetch_document(self) -> Claims:
        status, document = fetch_json(self.settings.issuer + WELL_KNOWN)
        if status != 200 or not isinstance(document, dict):
            raise Unreachable(f"the discovery document has status {status}, or is not a JSON object")
        # Otherwise a provider could impersonate another one.
        if str(document.get("issuer")).rstrip("/") != self.settings.issuer:
            raise Unreachable("the discovery document names another issuer than the settings")
        return document

    def _fetch_keys(self) -> list[Key]:
        status, document = fetch_json(self.get_endpoint("jwks_uri"))
        if status != 200 or not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise Unreachable(f"the keys have status {status}, or are not a key set")
        return [key for jwk in document["keys"] if (key := _import_key(jwk)) is not None]


def _hash_token(what: str, token: str) -> bytes:
    return hashlib.sha256(f"{what} {token}".encode()).digest()


def _select_keys(keys: list[Key], kid: str | None) -> list[Key]:
    return [key for key in keys if kid is None or key.get("kid") == kid]


def _import_key(document: Any) -> Key | None:
    """Import a public key for signatures; None if it is another kind of key, or too weak."""
    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(document)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey):
        return key if key.raw_value.key_size >= MIN_RSA_BITS else None
    return key if isinstance(key, ECKey | OKPKey) else None
