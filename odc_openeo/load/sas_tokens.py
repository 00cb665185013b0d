"""Tokens that sign URLs (shared access signatures), from a token server as the Planetary Computer has one.

Tokens are kept in memory until shortly before they expire. They are in no graph, error or log.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from odc_openeo.config import read_variable
from odc_openeo.errors import OpenEOError, UrlUnreachable
from odc_openeo.storage.buckets import WEB, Location, Signing
from odc_openeo.untrusted.safe_http import Policy, fetch_json

KEY_HEADER: Final = "Ocp-Apim-Subscription-Key"
"""The header in which the Planetary Computer expects the subscription key."""

SERVER: Final = Policy(allow=("*",), bytes=2**16, seconds=20.0)
"""Token servers are the operator's: they may be in the operator's network."""

MARGIN_S: Final = 120.0
"""Seconds before its end from which a token is not used any more."""

UNKNOWN_S: Final = 300.0
"""Seconds for which a token is used that does not say when it expires."""

PAUSE_S: Final = 3.0
"""Seconds for which a token server that has failed is not asked again."""


class TokenUnavailableError(Exception):
    """There is no token; the message is a clause such as "the token server is unreachable".

    ``is_permanent``: the token server has refused, and will refuse again.
    """

    def __init__(self, reason: str, *, is_permanent: bool = False) -> None:
        super().__init__(reason)
        self.is_permanent = is_permanent


@dataclass(frozen=True)
class _TokenEntry:
    """A token, or the failure to get one, and until when it counts (`time.time`)."""

    token: str
    until: float
    failure: TokenUnavailableError | None = None


_entries: dict[str, _TokenEntry] = {}
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def get_token(signing: Signing, location: Location, account: str | None = None) -> str:
    """The query by which URLs of a container are signed, without a question mark.

    Raises:
        TokenUnavailableError: the token server does not give one.
    """
    url = _make_token_url(signing, location, account)
    with _locks[url]:
        entry = _entries.get(url)
        if entry is None or entry.until <= time.time():
            entry = _entries[url] = _fetch_entry(url, signing)
    if entry.failure is not None:
        # An error that several threads raise would collect the tracebacks of all.
        raise TokenUnavailableError(str(entry.failure), is_permanent=entry.failure.is_permanent)
    return entry.token


def forget_tokens() -> None:
    """Fetch tokens again when they are needed next: they may have been withdrawn."""
    _entries.clear()


def _make_token_url(signing: Signing, location: Location, account: str | None) -> str:
    if location.scheme in WEB:
        account, container = location.bucket.partition(".")[0], location.key.partition("/")[0]
    else:
        container = location.bucket
    url = signing.token_url.replace("{account}", quote(account or "", safe=""))
    return url.replace("{container}", quote(container, safe=""))


def _fetch_entry(url: str, signing: Signing) -> _TokenEntry:
    try:
        document = fetch_json(SERVER, url, headers=_make_headers(signing), most_redirects=0)
        return _read_entry(document)
    except TokenUnavailableError as error:
        failure = error
    except UrlUnreachable as error:
        failure = TokenUnavailableError(
            "the token server cannot be reached, or does not answer with a token",
            is_permanent=error.server_status is not None
            and error.server_status < 500
            and error.server_status != 429,
        )
    except OpenEOError:
        failure = TokenUnavailableError("the answer of the token server is too large", is_permanent=True)
    return _TokenEntry("", time.time() + PAUSE_S, failure)


def _make_headers(signing: Signing) -> dict[str, str]:
    if signing.key_variable is None:
        return {}
    key = read_variable(signing.key_variable)
    if key is None:
        raise TokenUnavailableError(
            f"the environment variable {signing.key_variable} with the subscription key is not set",
            is_permanent=True,
        )
    return {KEY_HEADER: key}


def _read_entry(document: Any) -> _TokenEntry:
    token = document.get("token") if isinstance(document, Mapping) else None
    if not isinstance(token, str) or not 0 < len(token) < 4096 or not _is_query(token.removeprefix("?")):
        raise TokenUnavailableError("the answer of the token server has no token", is_permanent=True)
    return _TokenEntry(token.removeprefix("?"), _find_end(document))


def _is_query(text: str) -> bool:
    return text.isascii() and text.isprintable() and not set(text) & set(" #?/\\\"'<>@")


def _find_end(document: Mapping[str, Any]) -> float:
    expiry = document.get("msft:expiry")
    try:
        end = datetime.fromisoformat(str(expiry))
    except ValueError:
        return time.time() + UNKNOWN_S
    seconds = (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()
    # A token that is about to expire is used nevertheless: there is no other.
    return max(seconds - MARGIN_S, time.time() + 1)
