"""Who makes the request."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from flask import g, request

from odc_openeo import accounts
from odc_openeo.accounts import Account
from odc_openeo.api import rate_limit
from odc_openeo.api.backend import backend
from odc_openeo.errors import AuthenticationRequired, AuthenticationSchemeInvalid, OpenEOError

P = ParamSpec("P")
R = TypeVar("R")


def signed_in(view: Callable[P, R]) -> Callable[P, R]:
    """Let the view run only for a user who is signed in; `current_user` gives who it is."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        g.user = _user_or_count()
        rate_limit.count_user(str(g.user.id))
        return view(*args, **kwargs)

    setattr(guarded, rate_limit.SIGNED_IN, True)
    return guarded


def _user_or_count() -> Account:
    """The user of the request; those who are nobody are counted by their address."""
    try:
        sent = accounts.bearer(request.headers.get("Authorization"))
        return accounts.user_of_bearer(backend().config, sent, request.remote_addr or "")
    except OpenEOError:
        rate_limit.count_address()
        raise


def user_if_signed_in() -> Account | None:
    """The user of the request, None if it has no Authorization header."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    return accounts.user_of_bearer(backend().config, accounts.bearer(header), request.remote_addr or "")


def current_user() -> Account:
    """The user of the request; only in views that are `signed_in`."""
    return cast(Account, g.user)


def basic_credentials() -> tuple[str, str]:
    """User name and password of HTTP Basic authentication.

    Raises:
        AuthenticationRequired: the request has no Authorization header.
        AuthenticationSchemeInvalid: the header is not of HTTP Basic authentication, or is malformed.
    """
    advice = "Send user name and password by HTTP Basic authentication."
    if not request.headers.get("Authorization"):
        raise AuthenticationRequired(advice)
    given = request.authorization
    if given is None or given.type != "basic":
        raise AuthenticationSchemeInvalid(advice)
    return given.username or "", given.password or ""
