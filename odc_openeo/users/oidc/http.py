"""Requests to identity providers: bounded in time and size, never redirected, tokens never logged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from json import JSONDecodeError, loads
from typing import Any
from urllib.parse import urlsplit

import requests

from odc_openeo.users.oidc.settings import is_loopback

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
MAX_BYTES = 2**20


class Unreachable(Exception):
    """A provider gave no usable response; the message says why and holds no secret."""


def fetch_json(
    url: str,
    *,
    bearer: str | None = None,
    form: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
) -> tuple[int, Any]:
    """Fetch status and JSON of a URL (None if it is not JSON); POST if there is a ``form``.

    Raises Unreachable without a response, and for a status of 429, 3xx or 5xx.
    """
    place = f"{urlsplit(url).netloc}{urlsplit(url).path}"
    try:
        status, body = _send_request(url, bearer, form, basic)
    except (requests.RequestException, OSError) as error:
        raise Unreachable(f"{place}: {type(error).__name__}") from None
    if status == 429 or 300 <= status < 400 or status >= 500:
        raise Unreachable(f"{place} responds with status {status}")
    try:
        return status, loads(body)
    except (JSONDecodeError, UnicodeDecodeError, RecursionError):
        return status, None


def _send_request(
    url: str, bearer: str | None, form: Mapping[str, str] | None, basic: tuple[str, str] | None
) -> tuple[int, bytes]:
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # A function, so that requests does not replace it by a password of .netrc.
        if bearer is not None:
            request.headers["Authorization"] = f"Bearer {bearer}"
        return request

    with requests.Session() as session:
        # Requests to this machine must not go through a proxy of the environment.
        session.trust_env = not is_loopback(url)
        answer = session.request(
            "GET" if form is None else "POST",
            url,
            data=form,
            auth=basic or sign,
            headers={"Accept": "application/json"},
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            stream=True,
        )
        return answer.status_code, _read_body(answer)


def _read_body(answer: requests.Response) -> bytes:
    deadline = time.monotonic() + READ_SECONDS
    body = bytearray()
    for chunk in answer.iter_content(2**14):
        body += chunk
        if len(body) > MAX_BYTES or time.monotonic() > deadline:
            raise requests.RequestException("too large or too slow")
    return bytes(body)
