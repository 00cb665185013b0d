"""Signing in and out in the browser: with name and password, or with a provider of OpenID Connect."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import accounts, oidc, sessions
from odc_openeo.accounts import Account, Bearer
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.failures import answer
from odc_openeo.api.pages.forms import (
    SESSION,
    TRAVELLER,
    VISIT_SECONDS,
    VISITOR,
    check_form,
    cookie,
    for_users,
    forget_cookie,
    form_key,
    new_visit,
    set_cookie,
    visitor,
)
from odc_openeo.api.pages.html import address, has_demo_user, page, shows_errors
from odc_openeo.errors import AuthenticationSchemeInvalid, OpenEOError

blueprint = shows_errors(Blueprint("sign_in", __name__))


@blueprint.get("/sign-in")
def show() -> AnyResponse:
    """The form for name and password, and the providers."""
    if visitor() is not None:
        return redirect(_place(request.args.get("to")), 303)
    return _form()


@blueprint.post("/sign-in")
def with_password() -> AnyResponse:
    """Sign in with name and password."""
    check_form(cookie(VISITOR))
    name, password = request.form.get("name", ""), request.form.get("password", "")
    config = backend().config
    if not config.basic_login:
        raise AuthenticationSchemeInvalid
    try:
        user = accounts.log_in(config, name, password, request.remote_addr or "")
    except OpenEOError as error:
        return _refused(error, name)
    return _signed_in(user, request.form.get("to"))


@blueprint.get("/sign-in/with/<provider>")
def with_provider(provider: str) -> AnyResponse:
    """Send the browser to a provider, with all that the way back needs in a cookie."""
    departure = oidc.depart(backend().config, provider, _callback(), request.args.get("to", ""))
    response = redirect(departure.url, 303)
    response.headers["Cache-Control"] = "no-store"
    set_cookie(response, TRAVELLER, departure.secret, VISIT_SECONDS)
    return response


@blueprint.get("/sign-in/callback")
def from_provider() -> AnyResponse:
    """The browser comes back from a provider, with a code for a token."""
    config = backend().config
    arrival = oidc.arrive(config, cookie(TRAVELLER) or "", _callback(), request.args.to_dict())
    bearer = Bearer(arrival.token, arrival.provider)
    user = accounts.user_of_bearer(config, bearer, request.remote_addr or "")
    response = _signed_in(user, arrival.to)
    forget_cookie(response, TRAVELLER)
    return response


@blueprint.post("/sign-out")
@for_users
def sign_out() -> AnyResponse:
    """End the session."""
    sessions.end(backend().config, cookie(SESSION) or "")
    response = redirect(address("pages.start"), 303)
    forget_cookie(response, SESSION)
    return response


def _callback() -> str:
    return f"{root_url()}/sign-in/callback"


def _form(status: int = 200, error: OpenEOError | None = None, name: str = "") -> Response:
    config = backend().config
    secret = cookie(VISITOR) or new_visit()
    response = page(
        "sign_in.html",
        status,
        private=True,
        form_key=form_key(secret),
        to=request.values.get("to", ""),
        name=name,
        error=error,
        basic=config.basic_login,
        demo=has_demo_user(),
        providers=oidc.for_browsers(config, _callback()),
    )
    set_cookie(response, VISITOR, secret, VISIT_SECONDS)
    return response


def _refused(error: OpenEOError, name: str) -> Response:
    plain = answer(error)
    response = _form(error.status, error, name)
    if "Retry-After" in plain.headers:
        response.headers["Retry-After"] = plain.headers["Retry-After"]
    return response


def _signed_in(user: Account, to: str | None) -> AnyResponse:
    """Begin a session, always a new one, and go on to the page that was wanted."""
    config = backend().config
    response = redirect(_place(to), 303)
    response.headers["Cache-Control"] = "no-store"
    value = sessions.begin(config, user)
    set_cookie(response, SESSION, value, config.token_lifetime_hours * 3600)
    forget_cookie(response, VISITOR)
    return response


def _place(wanted: str | None) -> str:
    """The page to go to: one of those for users, never another address."""
    own = address("my_jobs.job_list").removesuffix("/jobs")
    good = wanted and wanted.startswith(f"{own}/") and wanted.isprintable() and "\\" not in wanted
    return str(wanted) if good else address("my_jobs.job_list")
