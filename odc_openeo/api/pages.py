"""Outside the versioned API: the start page for people, discovery of the API, health for probes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, redirect, render_template, request
from markdown_it import MarkdownIt
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import __version__, db, oidc
from odc_openeo.api import capabilities
from odc_openeo.api.backend import API_PATH, API_VERSION, api_url, backend, root_url
from odc_openeo.api.locator import Box, CloseUp, Span, TimeAxis, close_up, extent_box, time_axis
from odc_openeo.errors import OpenEOError
from odc_openeo.formats import FORMATS
from odc_openeo.process import PROCESSES

blueprint = Blueprint("pages", __name__)

MOST_SHOWN: Final = 60
"""Collections on the start page; the others are in ``GET /collections``."""


@blueprint.get("/")
def start() -> AnyResponse:
    """The start page for browsers; API clients are led to the capabilities."""
    if not _wants_html():
        response = redirect(f"{API_PATH}/", 307)
    else:
        response = Response(_start_page())
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; img-src 'self'; style-src 'self' 'unsafe-inline'; base-uri 'none'"
        )
    response.vary.add("Accept")
    return response


@blueprint.get("/.well-known/openeo")
def well_known() -> dict[str, Any]:
    """The versions of the API served here."""
    return capabilities.well_known()


@blueprint.get("/health")
def health() -> tuple[dict[str, str], int]:
    """200 when requests can be answered: the database is there. The cluster is looked at by doctor."""
    config = backend().config
    db.check(config)
    scheduler = config.dask_scheduler or "none: computing on threads"
    return {"status": "ok", "version": __version__, "dask": scheduler}, 200


def _wants_html() -> bool:
    offered = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(offered, "application/json") == "text/html"


@dataclass(frozen=True)
class Card:
    """What the start page shows of one collection."""

    id: str
    title: str
    description: Markup
    bands: list[dict[str, Any]]
    box: Box | None
    close_up: CloseUp | None
    span: Span | None


def _start_page() -> str:
    config = backend().config
    collections, problem = _collections()
    axis = time_axis(collections)
    return render_template(
        "start.html",
        title=config.title,
        description=markdown(config.description),
        cards=[_card(collection, axis) for collection in collections[:MOST_SHOWN]],
        count=len(collections),
        problem=problem,
        axis=axis,
        processes=len(PROCESSES),
        formats=list(FORMATS),
        root=root_url(),
        api=api_url(),
        api_version=API_VERSION,
        version=__version__,
        editor=_editor_url(),
        demo=config.on_loopback and config.demo_user is not False and config.basic_login,
        openid=bool(oidc.listing(config)),
    )


def _collections() -> tuple[list[dict[str, Any]], str | None]:
    """All collections, or none and what to tell when the index can't be reached."""
    try:
        return list(backend().catalog.collections()), None
    except OpenEOError as error:
        return [], error.message


def _card(collection: dict[str, Any], axis: TimeAxis | None) -> Card:
    box = extent_box(collection)
    return Card(
        id=collection["id"],
        title=collection.get("title") or collection["id"],
        description=markdown(collection.get("description", "")),
        bands=_bands(collection),
        box=box,
        close_up=close_up(box) if box else None,
        span=axis.span(collection) if axis else None,
    )


def _bands(collection: dict[str, Any]) -> list[dict[str, Any]]:
    described = collection.get("summaries", {}).get("bands") or collection.get("bands")
    if described:
        return [{"name": b["name"], "common": b.get("eo:common_name")} for b in described]
    dimensions = collection.get("cube:dimensions", {}).values()
    return [{"name": n} for d in dimensions if d.get("type") == "bands" for n in d.get("values", ())]


def _editor_url() -> str | None:
    base = backend().config.web_editor_url
    return f"{base}?server={quote(root_url(), safe='')}" if base else None


@lru_cache(maxsize=1024)
def markdown(text: str) -> Markup:
    """CommonMark as HTML; HTML in the text is shown, never run."""
    return Markup(MarkdownIt("commonmark", {"html": False}).render(text))  # noqa: S704
