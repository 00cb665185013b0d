"""STAC API: Item search and the Items of collections. Its landing page is the root of the openEO API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import Blueprint, Response, jsonify, request

from odc_openeo.api.auth import get_readable_catalog, user_if_signed_in
from odc_openeo.api.backend import api_url, make_link
from odc_openeo.api.json_body import read_json_object
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.api.stac.assets import find_place
from odc_openeo.api.stac.item_queries import (
    MAX_LIMIT,
    SEARCH_PARAMETERS,
    parse_query_string,
    parse_search,
)
from odc_openeo.api.view_bodies import GEOJSON, JSON_SCHEMA, PARQUET, answers
from odc_openeo.catalog.items_parquet import encode_items

blueprint = Blueprint("stac", __name__)

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
@answers(media_type=GEOJSON)
@takes(*SEARCH_PARAMETERS, exclusively=True)
def search() -> Response:
    """``GET /search``: search the items of all collections."""
    return _search_items(parse_query_string(), "/search")


@blueprint.post("/search")
@answers(media_type=GEOJSON)
def search_by_body() -> Response:
    """``POST /search``: search the items of all collections, with parameters in a JSON object."""
    return _search_items(read_json_object(), "/search")


@blueprint.get("/collections/<collection_id>/items")
@answers(media_type=GEOJSON)
@takes(*SEARCH_PARAMETERS, exclusively=True)
def list_items(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/items``: search the items of one collection."""
    return _search_items(
        parse_query_string(), f"/collections/{quote(collection_id, safe='')}/items", collection_id
    )


@blueprint.get("/collections/<collection_id>/items.parquet")
@answers(media_type=PARQUET)
@takes(*(name for name in SEARCH_PARAMETERS if name != "fields"), exclusively=True)
def download_items(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/items.parquet``: a page of such a search as stac-geoparquet.

    The header ``Link`` has the next page. The file is made in a runner.
    """
    body, path = parse_query_string(), f"/collections/{quote(collection_id, safe='')}/items.parquet"
    query, _ = parse_search({"limit": MAX_LIMIT, **body}, collection_id)
    page = get_readable_catalog().search_items(query, api_url(), find_place)
    user = user_if_signed_in()
    content = run_for_view(encode_items, page.items, user=None if user is None else str(user.id))
    response = Response(content, mimetype=PARQUET)
    for link in _make_next_links(body, path, page.token):
        response.headers["Link"] = f'<{link["href"]}>; rel="next"'
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/collections/<collection_id>/items/<item_id>")
@answers(media_type=GEOJSON)
@takes(exclusively=True)
def describe_item(collection_id: str, item_id: str) -> Response:
    """``GET /collections/{collection_id}/items/{item_id}``: a single item."""
    return _make_geojson_response(
        get_readable_catalog().get_item(collection_id, item_id, api_url(), find_place)
    )


@blueprint.get("/queryables")
@answers(media_type=JSON_SCHEMA)
def list_item_queryables() -> Response:
    """``GET /queryables``: properties for filtering the items of any collection."""
    response = jsonify(get_readable_catalog().get_item_queryables(api_url()))
    response.mimetype = "application/schema+json"
    return response


def make_landing_links() -> list[dict[str, Any]]:
    """Make the STAC links of the landing page."""
    get = {**make_link("search", api_url("/search"), "Search for items", GEOJSON), "method": "GET"}
    return [
        get,
        {**get, "title": "Search for items with a JSON body", "method": "POST"},
        make_link(QUERYABLES, api_url("/queryables"), "Properties to filter by", "application/schema+json"),
    ]


def _search_items(body: Mapping[str, Any], path: str, collection: str | None = None) -> Response:
    query, fields = parse_search(body, collection)
    page = get_readable_catalog().search_items(query, api_url(), find_place)
    feature_collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [fields.select_members(item) for item in page.items],
        "links": [*_make_page_links(path, collection), *_make_next_links(body, path, page.token)],
        "numberReturned": len(page.items),
    }
    if page.matched is not None:
        feature_collection["numberMatched"] = page.matched
    return _make_geojson_response(feature_collection)


def _make_self_url(path: str) -> str:
    query = request.query_string.decode("ascii", "replace") if request.method == "GET" else ""
    return f"{api_url(path)}?{query}" if query else api_url(path)


def _make_page_links(path: str, collection: str | None) -> list[dict[str, Any]]:
    links = [
        make_link("self", _make_self_url(path), "This page", GEOJSON),
        make_link("root", api_url("/"), "Capabilities"),
    ]
    if collection is not None:
        links.append(
            make_link("collection", api_url(f"/collections/{quote(collection, safe='')}"), "Collection")
        )
    return links


def _make_next_links(body: Mapping[str, Any], path: str, token: str | None) -> list[dict[str, Any]]:
    """Make the link to the next page, which is the same search with a token."""
    if token is None:
        return []
    if request.method == "POST":
        following = make_link("next", api_url(path), "Next page", GEOJSON)
        return [{**following, "method": "POST", "merge": False, "body": {**body, "token": token}}]
    url = f"{api_url(path)}?{urlencode({**request.args, 'token': token})}"
    return [{**make_link("next", url, "Next page", GEOJSON), "method": "GET"}]


def _make_geojson_response(value: Mapping[str, Any]) -> Response:
    response = jsonify(value)
    response.mimetype = GEOJSON
    response.add_etag()
    response.make_conditional(request)
    return response
