"""The page of a collection: where, when, which bands, what it looks like, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from odc_openeo import oidc
from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.locator import close_up, extent_box, interval
from odc_openeo.api.pages.chart import Chart, chart
from odc_openeo.api.pages.html import has_demo_user, markdown, page, shows_errors
from odc_openeo.api.pages.preview import preview_of
from odc_openeo.api.pages.snippets import Ways, example
from odc_openeo.catalog import Band, Product, Summary
from odc_openeo.errors import OpenEOError

blueprint = shows_errors(Blueprint("collection_pages", __name__))


@blueprint.get("/collections")
def collection_list() -> Response:
    """All collections are on the start page."""
    response = Response(status=308)
    response.headers["Location"] = "./#collections"
    return response


@blueprint.get("/collections/<path:collection_id>")
def collection(collection_id: str) -> Response:
    """Everything about a collection that people want to know."""
    catalog = backend().catalog
    described = catalog.collection(collection_id)
    product, summary = catalog.product(collection_id), catalog.summary(collection_id)
    box = extent_box(described) if summary.count else None
    return page(
        "collection.html",
        id=collection_id,
        title=described["title"],
        description=markdown(described["description"]),
        facts=_facts(described, summary),
        bands=[_row(band, described, summary) for band in product.bands],
        box=box,
        close_up=close_up(box) if box else None,
        chart=_chart(collection_id),
        example=_example(product),
        links=[each for each in described["links"] if each["href"].startswith(("http:", "https:"))],
        previews=backend().config.collection_previews and summary.count > 0,
    )


@blueprint.get("/previews/<path:collection_id>")
def preview(collection_id: str) -> Response:
    """A small picture of a scene; a drawing that says so if there is none."""
    picture = preview_of(backend(), collection_id)
    response = Response(picture.data, mimetype=picture.media_type)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.cache_control.public = True
    response.cache_control.max_age = picture.seconds
    response.add_etag()
    response.make_conditional(request)
    return response


def _facts(described: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    start, end = interval(dict(described))
    providers = [p["name"] for p in described.get("providers") or () if p.get("name")]
    summaries = described.get("summaries", {})
    return {
        "time": [f"{t:%Y-%m-%d}" if t else "open" for t in (start, end)] if start or end else None,
        "count": summary.count,
        "license": described["license"],
        "providers": providers,
        "platforms": summaries.get("platform") or [],
        "systems": summaries.get("proj:code") or list(summary.crs),
        "keywords": described.get("keywords") or [],
    }


def _row(band: Band, described: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    """A line of the table of bands."""
    size = summary.grids.get(band.name)
    listed = described.get("summaries", {}).get("bands") or ()
    metres = next((b.get("gsd") for b in listed if b["name"] == band.name), None)
    resolution = f"{metres:g} m" if metres else f"{max(size):.6g}°" if size else None
    return {"band": band, "resolution": resolution}


def _chart(id_: str) -> Chart | None:
    return chart(backend().catalog.months(id_))


def _example(product: Product) -> Ways | None:
    try:
        scene = backend().catalog.specimen(product.name)
    except OpenEOError:
        # Datasets of a kind that can't be loaded have no example.
        return None
    if scene is None or not product.bands:
        return None
    openid = bool(oidc.listing(backend().config))
    return example(product, scene, root_url(), demo=has_demo_user(), openid=openid)
