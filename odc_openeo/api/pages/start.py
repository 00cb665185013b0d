"""Unversioned endpoints: the start page and discovery of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, redirect, request
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from odc_openeo.api import capabilities
from odc_openeo.api.backend import API_PATH, backend, public_path
from odc_openeo.api.pages.forms import get_visible_catalog
from odc_openeo.api.pages.html import (
    contains_words,
    has_demo_user,
    read_search_words,
    render_markdown,
    render_page,
)
from odc_openeo.api.pages.locator import (
    CloseUp,
    DegreeBox,
    LocatorSpan,
    TimeAxis,
    find_extent_box,
    make_close_up,
    make_time_axis,
)
from odc_openeo.api.processes.offered import list_offered_processes
from odc_openeo.api.view_bodies import JSON, answers
from odc_openeo.errors import OpenEOError
from odc_openeo.formats import FORMATS
from odc_openeo.users import oidc

blueprint = Blueprint("pages", __name__)

PAGE_SIZE: Final = 24
"""Collections per page."""


@blueprint.get("/")
def start() -> AnyResponse:
    """The start page for browsers; API clients are redirected to the capabilities."""
    response = _render_start_page() if _wants_html() else redirect(public_path(f"{API_PATH}/"), 307)
    response.vary.add("Accept")
    return response


@blueprint.get("/.well-known/openeo")
@answers(media_type=JSON)
def well_known() -> dict[str, Any]:
    """The API versions served here."""
    return capabilities.describe_versions()


def _wants_html() -> bool:
    offered = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(offered, "application/json") == "text/html"


@dataclass(frozen=True)
class Card:
    """A collection as shown on the start page."""

    id: str
    title: str
    description: Markup
    bands: list[dict[str, Any]]
    box: DegreeBox | None
    close_up: CloseUp | None
    span: LocatorSpan | None
    has_preview: bool


def _render_start_page() -> AnyResponse:
    config = backend().config
    collections, problem = _list_collections()
    words = read_search_words()
    hits = [
        c
        for c in collections
        if contains_words(words, c["id"], c.get("title"), c.get("description"), *_list_keywords(c))
    ]
    number = min(max(request.args.get("page", 1, type=int), 1), max(-(-len(hits) // PAGE_SIZE), 1))
    page_collections = hits[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
    axis = make_time_axis(page_collections)
    return render_page(
        "start.html",
        description=render_markdown(config.description),
        cards=[_make_card(collection, axis) for collection in page_collections],
        count=len(collections),
        hits=len(hits),
        words=words,
        number=number,
        last=max(-(-len(hits) // PAGE_SIZE), 1),
        first=collections[0]["id"] if collections else "COLLECTION",
        problem=problem,
        axis=axis,
        processes=len(list_offered_processes()),
        formats=list(FORMATS),
        demo=has_demo_user(),
        openid=bool(oidc.list_providers(config)),
    )


def _list_collections() -> tuple[list[dict[str, Any]], str | None]:
    """List all collections; none, and an error message, if the index is unavailable."""
    try:
        return list(get_visible_catalog().list_collections()), None
    except OpenEOError as error:
        return [], error.message


def _make_card(collection: dict[str, Any], axis: TimeAxis | None) -> Card:
    box = find_extent_box(collection)
    return Card(
        id=collection["id"],
        title=collection.get("title") or collection["id"],
        description=render_markdown(collection.get("description", "")),
        bands=_list_bands(collection),
        box=box,
        close_up=make_close_up(box) if box else None,
        span=axis.find_span(collection) if axis else None,
        has_preview=box is not None and backend().config.collection_previews,
    )


def _list_bands(collection: dict[str, Any]) -> list[dict[str, Any]]:
    band_summaries = collection.get("summaries", {}).get("bands") or ()
    return [{"name": b["name"], "common": b.get("eo:common_name")} for b in band_summaries]


def _list_keywords(collection: dict[str, Any]) -> list[str]:
    """List further search terms of a collection: its keywords and band names."""
    bands = [name for b in _list_bands(collection) for name in (b["name"], b["common"]) if name]
    return [*(collection.get("keywords") or ()), *bands]
