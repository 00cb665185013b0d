"""Tag EO Data Discovery: the collections of the index."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from odc_openeo.api.backend import api_url, backend, link
from odc_openeo.api.job_documents import limit_argument, page_links
from odc_openeo.api.parameters import takes

blueprint = Blueprint("collections", __name__)

LARGE: Final = frozenset({"cube:dimensions", "item_assets", "summaries"})


@blueprint.get("/collections")
@takes("limit", "after")
def list_collections() -> Response:
    """``GET /collections``: all, without dimensions and summaries; in pages if ``limit`` is given."""
    limit, after = limit_argument(), request.args.get("after", "")
    found = [c for c in backend().catalog.collections(api_url()) if c["id"] > after]
    page = found[:limit]
    links = [
        link("self", api_url("/collections"), "Collections"),
        link("root", api_url("/"), "Capabilities"),
        *page_links("/collections", page[-1]["id"] if len(page) < len(found) else None, limit=limit),
    ]
    return _conditional({"collections": [_brief(collection) for collection in page], "links": links})


@blueprint.get("/collections/<collection_id>")
def describe_collection(collection_id: str) -> Response:
    """``GET /collections/{collection_id}``: all metadata of one."""
    return _conditional(backend().catalog.collection(collection_id, api_url()))


@blueprint.get("/collections/<collection_id>/queryables")
def list_queryables(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/queryables``: properties to filter by."""
    response = _conditional(backend().catalog.queryables(collection_id, api_url()))
    response.mimetype = "application/schema+json"
    return response


def _brief(collection: dict[str, Any]) -> dict[str, Any]:
    """What the listing tells of a collection: all but what makes it large."""
    return {key: value for key, value in collection.items() if key not in LARGE}


def _conditional(document: dict[str, Any]) -> Response:
    """JSON that is not sent again while the client has it."""
    response = jsonify(document)
    response.add_etag()
    response.make_conditional(request)
    return response
