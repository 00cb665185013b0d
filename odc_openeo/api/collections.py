"""Tag EO Data Discovery: the collections of the index."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, jsonify

from odc_openeo.api.backend import api_url, backend, link

blueprint = Blueprint("collections", __name__)

LARGE: Final = frozenset({"cube:dimensions", "summaries"})


@blueprint.get("/collections")
def list_collections() -> dict[str, Any]:
    """``GET /collections``: all, without dimensions and summaries."""
    collections = backend().catalog.collections(api_url())
    links = [
        link("self", api_url("/collections"), "Collections"),
        link("root", api_url("/"), "Capabilities"),
    ]
    return {"collections": [_brief(collection) for collection in collections], "links": links}


@blueprint.get("/collections/<collection_id>")
def describe_collection(collection_id: str) -> dict[str, Any]:
    """``GET /collections/{collection_id}``: all metadata of one."""
    return backend().catalog.collection(collection_id, api_url())


@blueprint.get("/collections/<collection_id>/queryables")
def list_queryables(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/queryables``: properties to filter by."""
    response = jsonify(backend().catalog.queryables(collection_id, api_url()))
    response.mimetype = "application/schema+json"
    return response


def _brief(collection: dict[str, Any]) -> dict[str, Any]:
    """What the listing tells of a collection: all but what makes it large."""
    return {key: value for key, value in collection.items() if key not in LARGE}
