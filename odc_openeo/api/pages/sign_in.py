"""Signing in and out in the browser: with name and password, or with an OpenID Connect provider."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.middleware.error_handlers import make_error_response
from odc_openeo.api.pages.forms import (
    OIDC_COOKIE,
    SESSION_COOKIE,
    VISIT_SECONDS,
    VISITOR_COOKIE,
    check_form,
    delete_cookie,
    find_visitor,
    for_users,
    read_cookie,
    render_visitor_form,
    set_cookie,
)
from odc_openeo.api.pages.html import (
    has_demo_user,
    make_page_path,
    offers_first_account,
    with_error_pages,
)
from odc_openeo.errors import AuthenticationSchemeInvalid, OpenEOError
from odc_openeo.users import accounts, browser_sessions, oidc
from odc_openeo.users.accounts import Account, Bearer

blueprint = with_error_pages(Blueprint("sign_in", __name__))


@blueprint.get("/sign-in")
def show() -> AnyResponse:
    """The sign-in page: a form for name and password, and the OpenID Connect providers."""
    if find_visitor() is not None:
        return redirect(_choose_target_path(request.args.get("to")), 303)
    return _render_form()


@blueprint.post("/sign-in")
def with_password() -> AnyResponse:
    """Sign in with name and password."""
    check_form(read_cookie(VISITOR_COOKIE))
    name, password = request.form.get("name", ""), request.form.get("password", "")
    config = backend().config
    if not config.basic_login:
        raise AuthenticationSchemeInvalid
    try:
        user = accounts.log_in(config, name, password, request.remote_addr or "")
    except OpenEOError as error:
        return _refuse_sign_in(error, name)
    return start_session(user, request.form.get("to"))


@blueprint.get("/sign-in/with/<provider>")
def with_provider(provider: str) -> AnyResponse:
    """Redirect the browser to a provider; a cookie holds the state for the callback."""
    departure = oidc.begin_sign_in(
        backend().config, provider, _make_callback_url(), request.args.get("to", "")
    )
    response = redirect(departure.url, 303)
    response.headers["Cache-Control"] = "no-store"
    set_cookie(response, OIDC_COOKIE, departure.secret, VISIT_SECONDS)
    return response


@blueprint.get("/sign-in/callback")
def from_provider() -> AnyResponse:
    """Handle the provider's callback: exchange the authorization code for a token."""
    config = backend().config
    arrival = oidc.finish_sign_in(
        config, read_cookie(OIDC_COOKIE) or "", _make_callback_url(), request.args.to_dict()
    )
    bearer = Bearer(arrival.token, arrival.provider)
    rules = backend().catalog.list_claim_rules()
    user = accounts.get_user_by_bearer(config, bearer, request.remote_addr or "", rules)
    response = start_session(user, arrival.to)
    delete_cookie(response, OIDC_COOKIE)
    return response


@blueprint.post("/sign-out")
@for_users
def sign_out() -> AnyResponse:
    """End the session."""
    browser_sessions.end(backend().config, read_cookie(SESSION_COOKIE) or "")
    response = redirect(make_page_path("pages.start"), 303)
    delete_cookie(response, SESSION_COOKIE)
    return response


def _make_callback_url() -> str:
    return f"{root_url()}/sign-in/callback"


def _render_form(status: int = 200, error: OpenEOError | None = None, name: str = "") -> Response:
    config = backend().config
    return render_visitor_form(
        "sign_in.html",
        status,
        to=request.values.get("to", ""),
        name=name,
        error=error,
        basic=config.basic_login,
        demo=has_demo_user(),
        lacks_accounts=offers_first_account(),
        providers=oidc.list_browser_providers(config, _make_callback_url()),
    )


def _refuse_sign_in(error: OpenEOError, name: str) -> Response:
    api_response = make_error_response(error)
    response = _render_form(error.status, error, name)
    if "Retry-After" in api_response.headers:
        response.headers["Retry-After"] = api_response.headers["Retry-After"]
    return response


def start_session(user: Account, to: str | None) -> AnyResponse:
    """Start a new session (never reuse one) and redirect to the requested page."""
    config = backend().config
    response = redirect(_choose_target_path(to), 303)
    response.headers["Cache-Control"] = "no-store"
    value = browser_sessions.begin(config, user)
    set_cookie(response, SESSION_COOKIE, value, config.token_lifetime_hours * 3600)
    delete_cookie(response, VISITOR_COOKIE)
    return response


def _choose_target_path(path: str | None) -> str:
    """Choose the page to redirect to: one of the user's pages, never another URL (open redirect)."""
    user_pages = make_page_path("my_jobs.job_list").removesuffix("/jobs")
    is_allowed = path and path.startswith(f"{user_pages}/") and path.isprintable() and "\\" not in path
    return str(path) if is_allowed else make_page_path("my_jobs.job_list")
