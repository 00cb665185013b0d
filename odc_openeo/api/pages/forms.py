"""Browser sessions: cookies, the signed-in user, and CSRF protection of forms.

Only the pages use cookies; the API accepts nothing but tokens in the ``Authorization`` header.
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

from odc_openeo.api.auth import restrict_catalog
from odc_openeo.api.backend import backend, public_path, root_url
from odc_openeo.api.middleware.request_strings import iterate_strings
from odc_openeo.api.pages.html import make_page_path, render_page
from odc_openeo.catalog import Catalog
from odc_openeo.errors import FormInvalid, TokenInvalid
from odc_openeo.telemetry.log_records import add_log_ids
from odc_openeo.untrusted.strict_json import check_string
from odc_openeo.users import browser_sessions
from odc_openeo.users.accounts import Account

P = ParamSpec("P")

SESSION_COOKIE: Final = "openeo-session"
VISITOR_COOKIE: Final = "openeo-visitor"
OIDC_COOKIE: Final = "openeo-traveller"
VISIT_SECONDS: Final = 3600


def uses_https() -> bool:
    """Tell whether browsers reach this service by HTTPS."""
    return root_url().startswith("https://")


def _make_cookie_name(name: str) -> str:
    # With this prefix browsers accept the cookie only from this host, over HTTPS.
    return f"__Host-{name}" if uses_https() else name


def read_cookie(name: str) -> str | None:
    """Return the value of one of the cookies set here, None if it is missing."""
    return request.cookies.get(_make_cookie_name(name))


def set_cookie(response: AnyResponse, name: str, value: str, seconds: float) -> None:
    """Set a cookie that no script can read and that is not sent with cross-site forms."""
    options: dict[str, Any] = {"httponly": True, "secure": uses_https(), "samesite": "Lax", "path": "/"}
    response.set_cookie(_make_cookie_name(name), value, max_age=int(seconds), **options)


def delete_cookie(response: AnyResponse, name: str) -> None:
    """Delete a cookie in the browser."""
    response.delete_cookie(
        _make_cookie_name(name), path="/", secure=uses_https(), httponly=True, samesite="Lax"
    )


def find_visitor() -> Account | None:
    """Find the signed-in user, None if nobody is signed in."""
    value = read_cookie(SESSION_COOKIE)
    try:
        user = browser_sessions.get_user(backend().config, value) if value else None
    except TokenInvalid:
        return None
    if user is not None:
        add_log_ids(user=user.id)
    return user


def get_visible_catalog() -> Catalog:
    """Return the catalogue as the visitor of the pages may read it."""
    return restrict_catalog(find_visitor, "Cookie")


def for_users(view: Callable[P, AnyResponse]) -> Callable[P, AnyResponse]:
    """Restrict a page to signed-in users; others are redirected to the sign-in page.

    Submitted forms are accepted only with a valid CSRF token.
    """
    return _guard_page(view, checks_forms=True)


def for_users_who_upload(view: Callable[P, AnyResponse]) -> Callable[P, AnyResponse]:
    """Restrict a page to signed-in users; the view itself checks the token, before it reads the files."""
    return _guard_page(view, checks_forms=False)


def _guard_page(view: Callable[P, AnyResponse], *, checks_forms: bool) -> Callable[P, AnyResponse]:
    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> AnyResponse:
        user = find_visitor()
        if user is None:
            target = public_path(request.full_path.rstrip("?")) if request.method == "GET" else None
            return redirect(make_page_path("sign_in.show", to=target), 303)
        g.page_user = user
        if request.method == "POST" and checks_forms:
            check_form(read_cookie(SESSION_COOKIE))
        return view(*args, **kwargs)

    return guarded


def get_visitor() -> Account:
    """Return the signed-in user; only valid in views that are `for_users`."""
    account: Account = g.page_user
    return account


def render_visitor_form(template: str, status: int, **context: Any) -> Response:
    """Render a page with a form for somebody who is not signed in; a cookie holds the secret of its token."""
    secret = read_cookie(VISITOR_COOKIE) or make_visit_secret()
    response = render_page(template, status, private=True, form_key=make_csrf_token(secret), **context)
    set_cookie(response, VISITOR_COOKIE, secret, VISIT_SECONDS)
    return response


def make_csrf_token(secret: str | None) -> str:
    """Make the CSRF token that a form must contain, derived from a secret in the browser's cookie."""
    message = b"form of " + (secret or "").encode()
    return hmac.digest(backend().config.signing_key(), message, "sha256").hex()


def check_form(secret: str | None) -> None:
    """Check the CSRF token and origin of a form; FormInvalid if it does not come from one of these pages."""
    for value in iterate_strings(request.form):
        check_string(value)
    check_form_token(secret, request.form.get("form_key", ""))


def check_form_token(secret: str | None, token: str) -> None:
    """Check the CSRF token and origin of a form; FormInvalid if it comes from elsewhere."""
    if (
        not secret
        or not hmac.compare_digest(token.encode(), make_csrf_token(secret).encode())
        or _is_cross_site()
    ):
        raise FormInvalid


def _is_cross_site() -> bool:
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none"):
        return True
    return origin is not None and urlsplit(origin).netloc not in (request.host, urlsplit(root_url()).netloc)


def make_visit_secret() -> str:
    """Make a secret for the forms of a visitor who is not signed in."""
    return secrets.token_urlsafe(24)


def render_private_page(template: str, status: int = 200, **context: Any) -> Response:
    """Render a page for the signed-in user."""
    csrf_token = make_csrf_token(read_cookie(SESSION_COOKIE))
    return render_page(template, status, private=True, user=get_visitor(), form_key=csrf_token, **context)
