"""STAC API: searches for the Items of the collections. The root of the openEO API is its landing page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import Blueprint, Response, jsonify, request

from odc_openeo.api.assets import place
from odc_openeo.api.backend import api_url, backend, link
from odc_openeo.api.body import json_object
from odc_openeo.api.item_queries import SEARCH, body_of_query, item_query
from odc_openeo.api.parameters import takes

blueprint = Blueprint("stac", __name__)

GEOJSON: Final = "application/geo+json"
QUERYABLES: Final = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
STAC: Final = "https://api.stacspec.org/v1.0.0"
FILTER: Final = "https://api.stacspec.org/v1.0.0-rc.3"
OGC: Final = "http://www.opengis.net/spec"
CONFORMS_TO: Final = (
    *(f"{STAC}/{name}" for name in ("core", "collections", "ogcapi-features", "item-search")),
    *(f"{STAC}/{part}#{name}" for part in ("item-search", "ogcapi-features") for name in ("fields", "sort")),
    f"{FILTER}/item-search#filter",
    *(f"{OGC}/ogcapi-features-1/1.0/conf/{name}" for name in ("core", "geojson", "oas30")),
    *(f"{OGC}/ogcapi-features-3/1.0/conf/{name}" for name in ("filter", "features-filter")),
    *(f"{OGC}/cql2/1.0/conf/{name}" for name in ("cql2-text", "cql2-json", "basic-cql2")),
    *(f"{OGC}/cql2/1.0/conf/{name}" for name in ("advanced-comparison-operators", "basic-spatial-functions")),
)


@blueprint.get("/search")
@takes(*SEARCH, only=True)
def search() -> Response:
    """``GET /search``: items of all collections."""
    return _answer(body_of_query(), "/search")


@blueprint.post("/search")
def search_by_body() -> Response:
    """``POST /search``: items of all collections; the parameters are members of a JSON object."""
    return _answer(json_object(), "/search")


@blueprint.get("/collections/<collection_id>/items")
@takes(*SEARCH, only=True)
def list_items(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/items``: items of one collection."""
    return _answer(body_of_query(), f"/collections/{quote(collection_id, safe='')}/items", collection_id)


@blueprint.get("/collections/<collection_id>/items/<item_id>")
@takes(only=True)
def describe_item(collection_id: str, item_id: str) -> Response:
    """``GET /collections/{collection_id}/items/{item_id}``: one item."""
    return _geojson(backend().catalog.item(collection_id, item_id, api_url(), place))


@blueprint.get("/queryables")
def list_item_queryables() -> Response:
    """``GET /queryables``: properties that items of any collection can be filtered by."""
    response = jsonify(backend().catalog.item_queryables(api_url()))
    response.mimetype = "application/schema+json"
    return response


def links() -> list[dict[str, Any]]:
    """What the landing page links to."""
    get = {**link("search", api_url("/search"), "Search for items", GEOJSON), "method": "GET"}
    return [
        get,
        {**get, "method": "POST"},
        link(QUERYABLES, api_url("/queryables"), "Properties to filter by", "application/schema+json"),
    ]


def _answer(body: Mapping[str, Any], path: str, collection: str | None = None) -> Response:
    query, fields = item_query(body, collection)
    page = backend().catalog.items(query, api_url(), place)
    found: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [fields.of(item) for item in page.items],
        "links": [*_page_links(path, collection), *_next(body, path, page.token)],
        "numberReturned": len(page.items),
    }
    if page.matched is not None:
        found["numberMatched"] = page.matched
    return _geojson(found)


def _self_url(path: str) -> str:
    query = request.query_string.decode("ascii", "replace") if request.method == "GET" else ""
    return f"{api_url(path)}?{query}" if query else api_url(path)


def _page_links(path: str, collection: str | None) -> list[dict[str, Any]]:
    links = [
        link("self", _self_url(path), "This page", GEOJSON),
        link("root", api_url("/"), "Capabilities"),
    ]
    if collection is not None:
        links.append(link("collection", api_url(f"/collections/{quote(collection, safe='')}"), "Collection"))
    return links


def _next(body: Mapping[str, Any], path: str, token: str | None) -> list[dict[str, Any]]:
    """The link to the following page: the same search, from a token on."""
    if token is None:
        return []
    if request.method == "POST":
        following = link("next", api_url(path), "Next page", GEOJSON)
        return [{**following, "method": "POST", "merge": False, "body": {**body, "token": token}}]
    address = f"{api_url(path)}?{urlencode({**request.args, 'token': token})}"
    return [{**link("next", address, "Next page", GEOJSON), "method": "GET"}]


def _geojson(value: Mapping[str, Any]) -> Response:
    response = jsonify(value)
    response.mimetype = GEOJSON
    response.add_etag()
    response.make_conditional(request)
    return response
