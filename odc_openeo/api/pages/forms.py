"""Sessions in browsers: the cookie, who is signed in, and forms that only our own pages can send.

Only these pages look at the cookie: the API takes tokens of the header ``Authorization`` and nothing else.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec
from urllib.parse import urlsplit

from flask import Response, g, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import sessions
from odc_openeo.accounts import Account
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.pages.html import address, page
from odc_openeo.api.request_strings import strings_of
from odc_openeo.errors import FormInvalid, TokenInvalid
from odc_openeo.strict_json import check_string

P = ParamSpec("P")

SESSION: Final = "openeo-session"
VISITOR: Final = "openeo-visitor"
TRAVELLER: Final = "openeo-traveller"
VISIT_SECONDS: Final = 3600


def https() -> bool:
    """Whether browsers reach this service by https."""
    return root_url().startswith("https://")


def _name(cookie: str) -> str:
    # With this beginning browsers take the cookie only from this host, by https.
    return f"__Host-{cookie}" if https() else cookie


def cookie(name: str) -> str | None:
    """The value of a cookie of ours."""
    return request.cookies.get(_name(name))


def set_cookie(response: AnyResponse, name: str, value: str, seconds: float) -> None:
    """Let the browser keep a value that no script can read; other sites' forms are sent without it."""
    options: dict[str, Any] = {"httponly": True, "secure": https(), "samesite": "Lax", "path": "/"}
    response.set_cookie(_name(name), value, max_age=int(seconds), **options)


def forget_cookie(response: AnyResponse, name: str) -> None:
    """Let the browser forget a value."""
    response.delete_cookie(_name(name), path="/", secure=https(), httponly=True, samesite="Lax")


def visitor() -> Account | None:
    """Who is signed in, None if nobody is."""
    value = cookie(SESSION)
    try:
        return sessions.user(backend().config, value) if value else None
    except TokenInvalid:
        return None


def for_users(view: Callable[P, AnyResponse]) -> Callable[P, AnyResponse]:
    """Let a page be seen only by users who are signed in; others are led to the page for that.

    What a form sends is looked at only if it came from one of our pages.
    """

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> AnyResponse:
        user = visitor()
        if user is None:
            wanted = request.full_path.rstrip("?") if request.method == "GET" else None
            return redirect(address("sign_in.show", to=wanted), 303)
        g.page_user = user
        if request.method == "POST":
            check_form(cookie(SESSION))
        return view(*args, **kwargs)

    return guarded


def user() -> Account:
    """Who is signed in; only in views that are `for_users`."""
    found: Account = g.page_user
    return found


def form_key(secret: str | None) -> str:
    """What a form must bring, so that we know that the browser has it from us."""
    message = b"form of " + (secret or "").encode()
    return hmac.digest(backend().config.signing_key(), message, "sha256").hex()


def check_form(secret: str | None) -> None:
    """FormInvalid unless the form came from a page of ours in the same browser."""
    for value in strings_of(request.form):
        check_string(value)
    sent = request.form.get("form_key", "")
    if not secret or not hmac.compare_digest(sent.encode(), form_key(secret).encode()) or _from_elsewhere():
        raise FormInvalid


def _from_elsewhere() -> bool:
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none"):
        return True
    return origin is not None and urlsplit(origin).netloc not in (request.host, urlsplit(root_url()).netloc)


def new_visit() -> str:
    """A secret for the form of somebody who is not signed in."""
    return secrets.token_urlsafe(24)


def private_page(template: str, status: int = 200, **context: Any) -> Response:
    """A page for the user who is signed in."""
    key = form_key(cookie(SESSION))
    return page(template, status, private=True, user=user(), form_key=key, **context)
