"""The page of a collection: extents, bands, preview and code to load it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, request
from odc.geo import CRS
from pyproj.exceptions import CRSError

from odc_openeo.api.backend import backend, root_url
from odc_openeo.api.pages.chart import make_chart
from odc_openeo.api.pages.forms import get_visible_catalog
from odc_openeo.api.pages.html import has_demo_user, render_markdown, render_page, with_error_pages
from odc_openeo.api.pages.locator import find_extent_box, make_close_up, read_interval
from odc_openeo.api.pages.preview import get_preview
from odc_openeo.api.pages.snippets import LoadExample, make_example
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.catalog import Band, Catalog, Product, Summary
from odc_openeo.errors import OpenEOError
from odc_openeo.spatial.reference_system_names import name_crs
from odc_openeo.users import oidc

blueprint = with_error_pages(Blueprint("collection_pages", __name__))


@blueprint.get("/collections")
def collection_list() -> Response:
    """Redirect to the list of collections on the start page."""
    response = Response(status=308)
    response.headers["Location"] = "./#collections"
    return response


@blueprint.get("/collections/<path:collection_id>")
def collection(collection_id: str) -> Response:
    """The page of a collection."""
    catalog = get_visible_catalog()
    document = catalog.get_collection(collection_id)
    product, summary = catalog.get_product(collection_id), catalog.get_summary(collection_id)
    box = find_extent_box(document) if summary.count else None
    return render_page(
        "collection.html",
        id=collection_id,
        title=document["title"],
        description=render_markdown(document["description"]),
        facts=_collect_facts(document, summary),
        bands=[_make_band_row(band, document, summary) for band in product.bands],
        box=box,
        close_up=make_close_up(box) if box else None,
        chart=make_chart(catalog.count_by_month(collection_id)),
        example=_make_collection_example(catalog, product),
        links=[link for link in document["links"] if link["href"].startswith(("http:", "https:"))],
        previews=backend().config.collection_previews and summary.count > 0,
    )


@blueprint.get("/previews/<path:collection_id>")
@answers(media_type=ANY)
def preview(collection_id: str) -> Response:
    """A small picture of a scene of a collection, or a placeholder if there is none."""
    picture = get_preview(get_visible_catalog(), collection_id)
    response = Response(picture.data, mimetype=picture.media_type)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.cache_control.public = True
    response.cache_control.max_age = picture.seconds
    response.add_etag()
    response.make_conditional(request)
    return response


def _collect_facts(document: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    start, end = read_interval(dict(document))
    providers = [p["name"] for p in document.get("providers") or () if p.get("name")]
    summaries = document.get("summaries", {})
    return {
        "time": [f"{t:%Y-%m-%d}" if t else "open" for t in (start, end)] if start or end else None,
        "count": summary.count,
        "license": document["license"],
        "providers": providers,
        "platforms": summaries.get("platform") or [],
        "systems": summaries.get("proj:code") or list(_name_systems(summary.crs)),
        "keywords": document.get("keywords") or [],
    }


def _name_systems(definitions: Iterable[str]) -> Iterator[str]:
    for definition in definitions:
        with contextlib.suppress(CRSError, ValueError):
            yield name_crs(CRS(definition))


def _make_band_row(band: Band, document: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    """Make a row of the table of bands."""
    size = summary.grids.get(band.name)
    band_summaries = document.get("summaries", {}).get("bands") or ()
    gsd = next((b.get("gsd") for b in band_summaries if b["name"] == band.name), None)
    resolution = f"{gsd:g} m" if gsd else f"{max(size):.6g}°" if size else None
    return {"band": band, "resolution": resolution}


def _make_collection_example(catalog: Catalog, product: Product) -> LoadExample | None:
    try:
        scene = catalog.find_preview_scene(product.name)
    except OpenEOError:
        # There is no example for datasets of an unsupported kind.
        return None
    if scene is None or not product.bands:
        return None
    openid = bool(oidc.list_providers(backend().config))
    return make_example(product, scene, root_url(), demo=has_demo_user(), openid=openid)
