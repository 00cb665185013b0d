"""Tag EO Data Discovery: the collections of the index."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from odc_openeo import own_collections
from odc_openeo.api.auth import current_user, signed_in, user_if_signed_in
from odc_openeo.api.backend import api_url, backend, link
from odc_openeo.api.job_documents import limit_argument, page_links
from odc_openeo.api.parameters import takes

blueprint = Blueprint("collections", __name__)

LARGE: Final = frozenset({"cube:dimensions", "item_assets", "summaries"})


@blueprint.get("/collections")
@takes("limit", "after")
def list_collections() -> Response:
    """``GET /collections``: all and the user's own, without what makes them large; ``limit`` gives pages."""
    limit, after = limit_argument(), request.args.get("after", "")
    found = [c for c in _collections() if c["id"] > after]
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
    own = _own(collection_id)
    return _conditional(
        own.describe(api_url()) if own else backend().catalog.collection(collection_id, api_url())
    )


@blueprint.delete("/collections/<collection_id>")
@signed_in
def delete_collection(collection_id: str) -> Response:
    """``DELETE /collections/{collection_id}``: remove a collection of the user, with its files."""
    own_collections.delete(backend().config, current_user().id, collection_id)
    return Response(status=204)


@blueprint.get("/collections/<collection_id>/queryables")
def list_queryables(collection_id: str) -> Response:
    """``GET /collections/{collection_id}/queryables``: properties to filter by."""
    own = _own(collection_id)
    found = own.queryables(api_url()) if own else backend().catalog.queryables(collection_id, api_url())
    response = _conditional(found)
    response.mimetype = "application/schema+json"
    return response


def _own(id_: str) -> own_collections.OwnCollection | None:
    """The collection of the user who is signed in, None if there is none."""
    user = user_if_signed_in()
    return None if user is None else own_collections.find(backend().config, user.id, id_)


def _collections() -> list[dict[str, Any]]:
    """The user's own and all others, by id. An own one hides another of the same id."""
    found = {c["id"]: c for c in backend().catalog.collections(api_url())}
    user = user_if_signed_in()
    if user is not None:
        own = own_collections.list_collections(backend().config, user.id)
        found |= {c.product.name: c.describe(api_url()) for c in own}
    return [found[id_] for id_ in sorted(found)]


def _brief(collection: dict[str, Any]) -> dict[str, Any]:
    """What the listing tells of a collection: all but what makes it large."""
    return {key: value for key, value in collection.items() if key not in LARGE}


def _conditional(document: dict[str, Any]) -> Response:
    """JSON that is not sent again while the client has it."""
    response = jsonify(document)
    response.add_etag()
    response.make_conditional(request)
    return response
