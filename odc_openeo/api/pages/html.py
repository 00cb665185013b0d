"""Common parts of all pages: rendering, headers, paths, CommonMark and error pages."""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlsplit

from flask import Blueprint, Response, render_template, request, url_for
from markdown_it import MarkdownIt
from markupsafe import Markup

from odc_openeo import __version__
from odc_openeo.api.backend import API_VERSION, api_url, backend, public_path, root_url, web_editor_url
from odc_openeo.api.middleware.error_handlers import make_error_response
from odc_openeo.config import is_loopback
from odc_openeo.errors import OpenEOError
from odc_openeo.users import accounts

COPY_SCRIPT: Final = (files("odc_openeo.api") / "static" / "copy.js").read_text(encoding="utf-8")
"""Adds buttons that copy code. It is part of each page; browsers run no other script."""

_script_hash = b64encode(sha256(COPY_SCRIPT.encode()).digest()).decode()
CSP: Final = (
    f"default-src 'none'; script-src 'sha256-{_script_hash}'; img-src 'self'; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def render_page(template: str, status: int = 200, *, private: bool = False, **context: Any) -> Response:
    """Render a template as a response; ``private`` pages are not cached, others have an ETag."""
    response = Response(render_template(template, **_make_site_context(), **context), status)
    response.headers["Content-Security-Policy"] = CSP
    # Without referrers browsers send no origin with forms, so cross-site forms could not be detected.
    response.headers["Referrer-Policy"] = "same-origin"
    if private:
        response.headers["Cache-Control"] = "no-store"
    elif status == 200:
        response.headers["Cache-Control"] = "no-cache"
        response.add_etag()
        response.make_conditional(request)
    return response


def has_demo_user() -> bool:
    """Tell whether there is a demo user; False if the database is unavailable, so that pages still render."""
    try:
        return accounts.has_demo_user(backend().config)
    except OpenEOError:
        return False


def offers_first_account() -> bool:
    """Whether this request may create the first account: it comes from a browser on this machine."""
    config = backend().config
    # A page of another site could be served under a name that leads to this machine.
    hosts = (urlsplit(f"//{request.host}").hostname or "", request.remote_addr or "")
    is_local = config.basic_login and config.is_local_only and all(map(is_loopback, hosts))
    return is_local and not accounts.has_users(config)


def _make_site_context() -> dict[str, Any]:
    config = backend().config
    return {
        "url_for": make_page_path,
        "as_size": format_size,
        "copy_script": Markup(COPY_SCRIPT),  # noqa: S704
        "site": config.title,
        "root": root_url(),
        "api": api_url(),
        "api_version": API_VERSION,
        "version": __version__,
        "editor": editor_url(),
        "signs_in": config.basic_login or config.oidc_providers is not None,
    }


def make_page_path(endpoint: str, **values: Any) -> str:
    """Make the path of a page or file as browsers see it, including the path prefix of a proxy."""
    path = url_for(endpoint, **values).removeprefix(request.script_root)
    return public_path(path)


def editor_url() -> str | None:
    """Return the URL that opens the Web Editor with this server; None if there is no editor."""
    base = web_editor_url()
    return f"{base}?server={quote(root_url(), safe='')}" if base else None


def with_error_pages(blueprint: Blueprint) -> Blueprint:
    """Make a blueprint respond to errors with an HTML page."""
    blueprint.register_error_handler(OpenEOError, _render_error)
    return blueprint


def _render_error(error: OpenEOError) -> Response:
    api_response = make_error_response(error)
    response = render_page("problem.html", error.status, private=True, error=error)
    if "Retry-After" in api_response.headers:
        response.headers["Retry-After"] = api_response.headers["Retry-After"]
    return response


def format_size(size: float) -> str:
    """Write a number of bytes with a decimal prefix, such as ``1.5 MB``."""
    if size < 999.5:
        return f"{size:.0f} bytes"
    units = ["kB", "MB", "GB", "TB", "PB"]
    while (size := size / 1000) >= 999.95 and len(units) > 1:
        units.pop(0)
    return f"{size:,.1f} {units[0]}"


@lru_cache(maxsize=1024)
def render_markdown(text: str) -> Markup:
    """Render CommonMark as HTML; embedded HTML is escaped and images become links."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(renderer.render(text))  # noqa: S704


def read_search_words() -> str:
    """Read the search words from the query parameter ``q``."""
    return request.args.get("q", "").strip()[:200]


def contains_words(words: str, *texts: str | None) -> bool:
    """Tell whether the texts contain all of the words."""
    text = " ".join(filter(None, texts)).casefold()
    return all(word in text for word in words.casefold().split())
