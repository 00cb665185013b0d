"""Query parameters and links of paged lists."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import request

from odc_openeo.api.backend import api_url, make_link
from odc_openeo.errors import RequestInvalid
from odc_openeo.jobs import LEVELS


def read_limit() -> int | None:
    """Read the query parameter ``limit``, the maximum length of a list; None for all elements."""
    limit = request.args.get("limit") or None
    if limit is None:
        return None
    if not (limit.isascii() and limit.isdecimal() and int(limit[:9]) > 0 and len(limit) < 10):
        raise RequestInvalid(reason="'limit' must be an integer of at least 1.")
    return int(limit)


def read_flag(name: str) -> bool:
    """Read a query parameter that is ``true`` or ``false`` (the default)."""
    flag = request.args.get(name, "false").lower()
    if flag not in ("true", "false"):
        raise RequestInvalid(reason=f"'{name}' must be true or false.")
    return flag == "true"


def read_level() -> str:
    """Read the query parameter ``level`` of log requests."""
    level = request.args.get("level") or "debug"
    if level not in LEVELS:
        raise RequestInvalid(reason=f"'level' must be one of {', '.join(LEVELS)}.")
    return level


def make_page_links(
    path: str, after: str | None, name: str = "after", **parameters: Any
) -> list[dict[str, Any]]:
    """Make the links of a page of a list: to the next page, if there is one."""
    if after is None:
        return []
    query = urlencode({key: value for key, value in {**parameters, name: after}.items() if value is not None})
    return [make_link("next", f"{api_url(path)}?{query}", "Next page")]
