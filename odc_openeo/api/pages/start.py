"""Outside the versioned API: the start page for people, discovery of the API, health for probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, redirect, request
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo import __version__, db, oidc
from odc_openeo.api import capabilities
from odc_openeo.api.backend import API_PATH, backend
from odc_openeo.api.locator import Box, CloseUp, Span, TimeAxis, close_up, extent_box, time_axis
from odc_openeo.api.pages.html import found, has_demo_user, markdown, page, query
from odc_openeo.errors import OpenEOError
from odc_openeo.formats import FORMATS
from odc_openeo.process import PROCESSES

blueprint = Blueprint("pages", __name__)

PAGE: Final = 24
"""Collections shown together."""


@blueprint.get("/")
def start() -> AnyResponse:
    """The start page for browsers; API clients are led to the capabilities."""
    response = _start_page() if _wants_html() else redirect(f"{API_PATH}/", 307)
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


def _start_page() -> AnyResponse:
    config = backend().config
    collections, problem = _collections()
    words = query()
    hits = [c for c in collections if found(words, c["id"], c.get("title"), c.get("description"), *_names(c))]
    number = min(max(request.args.get("page", 1, type=int), 1), max(-(-len(hits) // PAGE), 1))
    shown = hits[(number - 1) * PAGE : number * PAGE]
    axis = time_axis(shown)
    return page(
        "start.html",
        description=markdown(config.description),
        cards=[_card(collection, axis) for collection in shown],
        count=len(collections),
        hits=len(hits),
        words=words,
        number=number,
        last=max(-(-len(hits) // PAGE), 1),
        first=collections[0]["id"] if collections else "COLLECTION",
        problem=problem,
        axis=axis,
        processes=len(PROCESSES),
        formats=list(FORMATS),
        demo=has_demo_user(),
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
    described = collection.get("summaries", {}).get("bands") or ()
    return [{"name": b["name"], "common": b.get("eo:common_name")} for b in described]


def _names(collection: dict[str, Any]) -> list[str]:
    """What else a collection can be found by: its keywords and the names of its bands."""
    bands = [each for b in _bands(collection) for each in (b["name"], b["common"]) if each]
    return [*(collection.get("keywords") or ()), *bands]
