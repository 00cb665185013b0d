"""The page for the first account: on this machine only, and only as long as there is no other account."""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api.backend import backend
from odc_openeo.api.pages.forms import VISITOR_COOKIE, check_form, read_cookie, render_visitor_form
from odc_openeo.api.pages.html import offers_first_account, with_error_pages
from odc_openeo.api.pages.sign_in import start_session
from odc_openeo.errors import NotFound
from odc_openeo.users import accounts

blueprint = with_error_pages(Blueprint("first_account", __name__))


@blueprint.get("/first-account")
def show() -> AnyResponse:
    """The form for the first account."""
    _require_first()
    return _render_form()


@blueprint.post("/first-account")
def create() -> AnyResponse:
    """Create the first account, and sign in to it."""
    _require_first()
    check_form(read_cookie(VISITOR_COOKIE))
    name, password = request.form.get("name", ""), request.form.get("password", "")
    if password != request.form.get("repeated", ""):
        return _render_form(400, "The two passwords differ.", name)
    try:
        user = accounts.create_first_user(backend().config, name, password)
    except ValueError as error:
        return _render_form(400, f"{str(error)[:1].upper()}{str(error)[1:]}.", name)
    return start_session(user, None)


def _require_first() -> None:
    if not offers_first_account():
        raise NotFound


def _render_form(status: int = 200, problem: str | None = None, name: str = "") -> Response:
    return render_visitor_form(
        "first_account.html", status, name=name, problem=problem, min_length=accounts.MIN_PASSWORD_LENGTH
    )
