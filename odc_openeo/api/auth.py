"""Authentication: which user makes the request."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from flask import Response, after_this_request, g, request

from odc_openeo.api.backend import backend
from odc_openeo.api.middleware import rate_limit
from odc_openeo.catalog import Catalog
from odc_openeo.errors import AuthenticationRequired, AuthenticationSchemeInvalid, OpenEOError
from odc_openeo.telemetry.log_records import add_log_ids
from odc_openeo.user_data.run_environment import make_reader
from odc_openeo.users import accounts
from odc_openeo.users.accounts import Account, Bearer

P = ParamSpec("P")
R = TypeVar("R")


def signed_in(view: Callable[P, R]) -> Callable[P, R]:
    """Restrict a view to signed-in users; inside it, `current_user` returns the user."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        g.user = _authenticate_or_count()
        add_log_ids(user=g.user.id)
        rate_limit.count_user(str(g.user.id))
        return view(*args, **kwargs)

    setattr(guarded, rate_limit.SIGNED_IN, True)
    return guarded


def _authenticate_or_count() -> Account:
    """Return the user of the request; unauthenticated requests count against their IP address."""
    try:
        bearer = accounts.parse_bearer(request.headers.get("Authorization"))
        return _get_user(bearer)
    except OpenEOError:
        rate_limit.count_address()
        raise


def user_if_signed_in() -> Account | None:
    """Return the user of the request, None if it has no Authorization header."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    if "bearer_user" not in g:
        g.bearer_user = _get_user(accounts.parse_bearer(header))
        add_log_ids(user=g.bearer_user.id)
    return cast(Account, g.bearer_user)


def _get_user(bearer: Bearer) -> Account:
    rules = backend().catalog.list_claim_rules()
    return accounts.get_user_by_bearer(backend().config, bearer, request.remote_addr or "", rules)


def get_readable_catalog() -> Catalog:
    """Return the catalogue as the user of the request may read it, or somebody who is not signed in."""
    return restrict_catalog(user_if_signed_in, "Authorization")


def restrict_catalog(find_user: Callable[[], Account | None], header: str) -> Catalog:
    """Return the catalogue as a user may read it, whom a header of the request names.

    Nobody is looked for where everybody may read everything.
    """
    catalog = backend().catalog
    if not catalog.has_restricted_collections():
        return catalog

    def make_private(response: Response) -> Response:
        # No cache between client and server may show one user's collections to another.
        response.vary.add(header)
        response.cache_control.public = False
        response.cache_control.private = True
        return response

    after_this_request(make_private)
    return catalog.for_reader(make_reader(find_user()))


def current_user() -> Account:
    """Return the user of the request; only valid in views that are `signed_in`."""
    return cast(Account, g.user)


def read_basic_credentials() -> tuple[str, str]:
    """Read the user name and password of HTTP Basic authentication.

    Raises:
        AuthenticationRequired: the request has no Authorization header.
        AuthenticationSchemeInvalid: the header uses another scheme or is malformed.
    """
    advice = "Send a user name and password using HTTP Basic authentication."
    if not request.headers.get("Authorization"):
        raise AuthenticationRequired(advice)
    authorization = request.authorization
    if authorization is None or authorization.type != "basic":
        raise AuthenticationSchemeInvalid(advice)
    return authorization.username or "", authorization.password or ""
