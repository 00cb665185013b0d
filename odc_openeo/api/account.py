"""Tag Account Management: signing in, and the account of the signed-in user."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from odc_openeo.api.auth import current_user, read_basic_credentials, signed_in
from odc_openeo.api.backend import api_url, backend, make_link
from odc_openeo.config import Config
from odc_openeo.jobs import quotas
from odc_openeo.user_data import files
from odc_openeo.users import accounts, oidc

blueprint = Blueprint("account", __name__)
basic = Blueprint("basic_login", __name__)
oidc_login = Blueprint("oidc_login", __name__)


def list_sign_in_blueprints(config: Config) -> list[Blueprint]:
    """List the sign-in endpoints that the configuration enables; ValueError if it is invalid."""
    return [*([oidc_login] if oidc.list_providers(config) else []), *([basic] if config.basic_login else [])]


@oidc_login.get("/credentials/oidc")
def authenticate_oidc() -> dict[str, Any]:
    """``GET /credentials/oidc``: the OpenID Connect providers whose users may sign in."""
    return {"providers": oidc.list_providers(backend().config)}


@basic.get("/credentials/basic")
def authenticate_basic() -> Response:
    """``GET /credentials/basic``: an access token for a user name and password."""
    name, password = read_basic_credentials()
    user = accounts.log_in(backend().config, name, password, request.remote_addr or "")
    token = accounts.issue_token(backend().config, user, api_url("/credentials/basic"))
    response = jsonify({"access_token": token})
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/me")
@signed_in
def describe_account() -> dict[str, Any]:
    """``GET /me``: the signed-in user; the budget is the CPU hours left this month, null without a limit."""
    user = current_user()
    hours = quotas.count_free_cpu_hours(backend().config, user.id)
    account_url = oidc.find_account_url(backend().config, user.issuer)
    links = [make_link("edit-form", account_url, "Your account", "text/html")] if account_url else []
    return {
        "user_id": str(user.id),
        "name": user.name,
        "roles": ["user", *user.roles],
        "budget": None if hours is None else round(hours, 4),
        "storage": _describe_storage(str(user.id)),
        "links": links,
    }


def _describe_storage(user: str) -> dict[str, int] | None:
    """Describe the user's storage quota and free space in bytes; None without a quota."""
    quota = files.get_storage_quota(backend().config, user)
    free_bytes = files.count_free_storage(backend().config, user)
    return None if quota is None or free_bytes is None else {"free": free_bytes, "quota": quota}
