"""What all pages have in common: addresses, headers, CommonMark, errors as pages."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, render_template, request, url_for
from markdown_it import MarkdownIt
from markupsafe import Markup

from odc_openeo import __version__, accounts
from odc_openeo.api.backend import API_VERSION, api_url, backend, public_path, root_url, web_editor_url
from odc_openeo.api.failures import answer
from odc_openeo.errors import OpenEOError

CSP: Final = (
    "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def page(template: str, status: int = 200, *, private: bool = False, **context: Any) -> Response:
    """A template as an answer; ``private`` pages are kept by nobody, the others are not sent twice."""
    response = Response(render_template(template, **_site(), **context), status)
    response.headers["Content-Security-Policy"] = CSP
    # Without a referrer browsers hide where a form comes from, and we could not tell our own.
    response.headers["Referrer-Policy"] = "same-origin"
    if private:
        response.headers["Cache-Control"] = "no-store"
    elif status == 200:
        response.headers["Cache-Control"] = "no-cache"
        response.add_etag()
        response.make_conditional(request)
    return response


def has_demo_user() -> bool:
    """Whether to tell of the demo user; pages are shown without a database too."""
    try:
        return accounts.has_demo_user(backend().config)
    except OpenEOError:
        return False


def _site() -> dict[str, Any]:
    config = backend().config
    return {
        "url_for": address,
        "site": config.title,
        "root": root_url(),
        "api": api_url(),
        "api_version": API_VERSION,
        "version": __version__,
        "editor": editor_url(),
        "signs_in": config.basic_login or config.oidc_providers is not None,
    }


def address(endpoint: str, **values: Any) -> str:
    """The path of a page or file as browsers see it, which a proxy may have given a beginning."""
    path = url_for(endpoint, **values).removeprefix(request.script_root)
    return public_path(path)


def editor_url() -> str | None:
    """The Web Editor, opened with this server; None if there is none."""
    base = web_editor_url()
    return f"{base}?server={quote(root_url(), safe='')}" if base else None


def shows_errors(blueprint: Blueprint) -> Blueprint:
    """Let a blueprint answer errors with a page."""
    blueprint.register_error_handler(OpenEOError, _problem)
    return blueprint


def _problem(error: OpenEOError) -> Response:
    plain = answer(error)
    response = page("problem.html", error.status, private=True, error=error)
    if "Retry-After" in plain.headers:
        response.headers["Retry-After"] = plain.headers["Retry-After"]
    return response


@lru_cache(maxsize=1024)
def markdown(text: str) -> Markup:
    """CommonMark as HTML; HTML in the text is shown, never run, and pictures are links."""
    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(made.render(text))  # noqa: S704


def query() -> str:
    """What is searched for: the parameter ``q``."""
    return request.args.get("q", "").strip()[:200]


def found(words: str, *texts: str | None) -> bool:
    """Whether all words are in the texts."""
    text = " ".join(each or "" for each in texts).casefold()
    return all(word in text for word in words.casefold().split())
