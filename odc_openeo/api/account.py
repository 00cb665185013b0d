"""Tag Account Management: signing in, and who one is."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from odc_openeo import accounts, files, oidc
from odc_openeo.api.auth import basic_credentials, current_user, signed_in
from odc_openeo.api.backend import api_url, backend, link
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported

blueprint = Blueprint("account", __name__)
basic = Blueprint("basic_login", __name__)
oidc_login = Blueprint("oidc_login", __name__)


def sign_in_methods(config: Config) -> list[Blueprint]:
    """The addresses for signing in that the configuration allows; ValueError when it is faulty."""
    return [*([oidc_login] if oidc.listing(config) else []), *([basic] if config.basic_login else [])]


@oidc_login.get("/credentials/oidc")
def authenticate_oidc() -> dict[str, Any]:
    """``GET /credentials/oidc``: the providers whose users may sign in."""
    return {"providers": oidc.listing(backend().config)}


@basic.get("/credentials/basic")
def authenticate_basic() -> Response:
    """``GET /credentials/basic``: a token for user name and password."""
    name, password = basic_credentials()
    user = accounts.log_in(backend().config, name, password, request.remote_addr or "")
    token = accounts.issue_token(backend().config, user, api_url("/credentials/basic"))
    response = jsonify({"access_token": token})
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/me")
@signed_in
def describe_account() -> dict[str, Any]:
    """``GET /me``: who is signed in. There is no limit of budget."""
    user = current_user()
    account_url = oidc.account_url(backend().config, user.issuer)
    links = [link("edit-form", account_url, "Your account", "text/html")] if account_url else []
    return {
        "user_id": str(user.id),
        "name": user.name,
        "roles": ["user", *user.roles],
        "budget": None,
        "storage": _storage(str(user.id)),
        "links": links,
    }


def _storage(user: str) -> dict[str, int] | None:
    """Bytes that the user's files may take, and those that are free; None without a limit."""
    quota = backend().config.user_storage_bytes
    if quota is None:
        return None
    try:
        return {"free": max(quota - files.used(backend().config, user), 0), "quota": quota}
    except FeatureUnsupported:
        return None
