"""Tag EO Data Discovery: the collections of the catalogue and of the user."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from odc_openeo.api.auth import current_user, get_readable_catalog, signed_in, user_if_signed_in
from odc_openeo.api.backend import api_url, backend, make_link
from odc_openeo.api.paging import make_page_links, read_limit
from odc_openeo.api.query_parameters import takes
from odc_openeo.api.view_bodies import JSON_SCHEMA, answers
from odc_openeo.user_data import collections

blueprint = Blueprint("collections", __name__)

LARGE_MEMBERS: Final = frozenset({"cube:dimensions", "item_assets", "summaries"})


@blueprint.get("/collections")
@takes("limit", "after")
def list_collections() -> Response:
    """``GET /collections``: all collections, including the user's own, without their large members.

    With ``limit`` the list is paginated.
    """
    limit, after = read_limit(), request.args.get("after", "")
    remaining = [c for c in _list_visible_collections() if c["id"] > after]
    page = remaining[:limit]
    last_id = page[-1]["id"] if len(page) < len(remaining) else None
    links = [
        make_link("self", api_url("/collections"), "Collections"),
        make_link("root", api_url("/"), "Capabilities"),
        *make_page_links("/collections", last_id, limit=limit),
    ]
    return _make_conditional_response(
        {"collections": [_drop_large_members(collection) for collection in page], "links": links}
    )


@blueprint.get("/collections/<collection_id>")
def describe_collection(collection_id: str) -> Response:
    """``GET /collections/{collection_id}``: the full metadata of a collection."""
    user_collection = _find_user_collection(collection_id)
    if user_collection is not None:
        return _make_conditional_response(user_collection.describe(api_url()))
    return _make_conditional_response(get_readable_catalog().get_collection(collection_id, api_url()))


@blueprint.delete("/collections/<collection_id>")
@answers(204)
@signed_in
def delete_collection(collection_id: str) -> Response:
    """``DELETE /collections/{collection_id}``: delete a collection of the user with its files."""
    collections.delete_collection(backend().config, current_user().id, collection_id)
    return Response(status=204)


@blueprint.get("/collections/<collection_id>/queryables")
@answers(media_type=JSON_SCHEMA)
def list_queryables(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/queryables``: properties to filter by."""
    user_collection = _find_user_collection(collection_id)
    if user_collection is not None:
        queryables = user_collection.queryables(api_url())
    else:
        queryables = get_readable_catalog().get_queryables(collection_id, api_url())
    response = _make_conditional_response(queryables)
    response.mimetype = "application/schema+json"
    return response


def _find_user_collection(id_: str) -> collections.OwnCollection | None:
    """Find a collection of the signed-in user, None if there is none."""
    user = user_if_signed_in()
    return None if user is None else collections.find_collection(backend().config, user.id, id_)


def _list_visible_collections() -> list[dict[str, Any]]:
    """List the catalogue's and the user's collections by id; the user's take precedence."""
    by_id = {c["id"]: c for c in get_readable_catalog().list_collections(api_url())}
    user = user_if_signed_in()
    if user is not None:
        user_collections = collections.list_collections(backend().config, user.id)
        by_id |= {c.product.name: c.describe(api_url()) for c in user_collections}
    return [by_id[id_] for id_ in sorted(by_id)]


def _drop_large_members(collection: dict[str, Any]) -> dict[str, Any]:
    """Reduce a collection to what the listing shows: everything but its large members."""
    return {key: value for key, value in collection.items() if key not in LARGE_MEMBERS}


def _make_conditional_response(document: dict[str, Any]) -> Response:
    """Make a JSON response with an ETag; 304 if the client already has it."""
    response = jsonify(document)
    response.add_etag()
    response.make_conditional(request)
    return response
