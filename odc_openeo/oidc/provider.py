"""An identity provider: its discovery document, its keys, and what it says about tokens."""

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
from odc_openeo.oidc.fetch import Unreachable, fetch_json
from odc_openeo.oidc.remembered import Remembered
from odc_openeo.oidc.settings import ProviderSettings, is_loopback

log = logging.getLogger(__name__)

MOST_TOKENS = 10_000
SMALLEST_RSA_BITS = 2048
WELL_KNOWN = "/.well-known/openid-configuration"

Claims = dict[str, Any]


class Provider:
    """One per process and provider; safe to share between threads. Nothing is asked before it is needed.

    Its methods raise Unreachable when the provider gives no usable answer.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings: Final = settings
        timing = (settings.keys_lifetime_s, settings.refresh_interval_s)
        self._document = Remembered(self._fetch_document, *timing)
        self._keys = Remembered(self._fetch_keys, *timing)
        self._answers: TTLCache[bytes, Claims | None] = TTLCache(MOST_TOKENS, settings.cache_s)
        self._lock = threading.Lock()

    @property
    def issuer(self) -> str:
        """The issuer exactly as its tokens spell it."""
        return str(self._document.get()["issuer"])

    def keys(self, kid: str | None) -> list[Key]:
        """The keys with an id, all if None; they are fetched anew when there is none."""
        found = _with_id(self._keys.get(), kid)
        return found or _with_id(self._keys.newer(), kid)

    def introspect(self, token: str) -> Claims:
        """What the provider says about a token; TokenInvalid when it is not good."""
        return self._remembered("introspection", token, self._introspect)

    def userinfo(self, token: str) -> Claims:
        """What the provider says about the user of a token; TokenInvalid when it is not good."""
        return self._remembered("userinfo", token, self._userinfo)

    def remembers(self, token: str) -> bool:
        """Whether the provider has been asked about an opaque token just now."""
        with self._lock:
            return _hash(self.settings.opaque_tokens, token) in self._answers

    def _remembered(self, what: str, token: str, ask: Callable[[str], Claims | None]) -> Claims:
        key = _hash(what, token)
        with self._lock:
            known = key in self._answers
            claims = self._answers.get(key)
        if not known:
            claims = ask(token)
            with self._lock:
                self._answers[key] = claims
        if claims is None:
            raise TokenInvalid
        return claims

    def _introspect(self, token: str) -> Claims | None:
        settings = self.settings
        assert settings.client_id is not None
        assert settings.client_secret is not None
        status, claims = fetch_json(
            self.endpoint("introspection_endpoint"),
            form={"token": token, "token_type_hint": "access_token"},
            basic=(settings.client_id, settings.client_secret.get_secret_value()),
        )
        if status != 200 or not isinstance(claims, dict):
            raise Unreachable(f"introspection answers with status {status}: see client_id and client_secret")
        return claims if claims.get("active") is True else None

    def _userinfo(self, token: str) -> Claims | None:
        status, claims = fetch_json(self.endpoint("userinfo_endpoint"), bearer=token)
        if status in (400, 401, 403):
            return None
        if status != 200 or not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
            raise Unreachable(f"userinfo answers with status {status} and no claims in JSON")
        return claims

    def endpoint(self, name: str) -> str:
        """A URL of the discovery document."""
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
            raise Unreachable(f"the discovery document has status {status}, or is no JSON object")
        # Otherwise one provider could speak for another.
        if str(document.get("issuer")).rstrip("/") != self.settings.issuer:
            raise Unreachable("the discovery document names another issuer than the settings")
        return document

    def _fetch_keys(self) -> list[Key]:
        status, document = fetch_json(self.endpoint("jwks_uri"))
        if status != 200 or not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise Unreachable(f"the keys have status {status}, or are no key set")
        return [key for each in document["keys"] if (key := _import(each)) is not None]


def _hash(what: str, token: str) -> bytes:
    return hashlib.sha256(f"{what} {token}".encode()).digest()


def _with_id(keys: list[Key], kid: str | None) -> list[Key]:
    return [key for key in keys if kid is None or key.get("kid") == kid]


def _import(document: Any) -> Key | None:
    """A public key for signatures, None if it is another kind of key, or too weak."""
    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(document)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey):
        return key if key.raw_value.key_size >= SMALLEST_RSA_BITS else None
    return key if isinstance(key, ECKey | OKPKey) else None
