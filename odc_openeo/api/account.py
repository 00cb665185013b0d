"""Tag Account Management: signing in, and who one is."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from odc_openeo import accounts
from odc_openeo.api.auth import basic_credentials, current_user, signed_in
from odc_openeo.api.backend import backend

blueprint = Blueprint("account", __name__)


@blueprint.get("/credentials/basic")
def authenticate_basic() -> Response:
    """``GET /credentials/basic``: a token for user name and password."""
    name, password = basic_credentials()
    user = accounts.verify_password(backend().config, name, password)
    response = jsonify({"access_token": accounts.issue_token(backend().config, user)})
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/me")
@signed_in
def describe_account() -> dict[str, Any]:
    """``GET /me``: who is signed in."""
    user = current_user()
    return {"user_id": str(user.id), "name": user.name}
