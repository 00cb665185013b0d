"""Endpoints of secondary web services for map clients: tiles, capabilities, legends.

Private services need no sign-in if the URL is signed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, cast
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from morecantile.models import TileMatrixSet

from odc_openeo.api.auth import user_if_signed_in
from odc_openeo.api.backend import backend
from odc_openeo.api.middleware.error_handlers import make_error_response
from odc_openeo.api.services.documents import SERVICES_PATH, list_matrix_sets, make_service_url
from odc_openeo.api.view_bodies import ANY, answers
from odc_openeo.errors import OpenEOError, RequestInvalid, ServiceDisabled, ServiceNotFound
from odc_openeo.services import Service, Tiles, grids, links, store, wmts
from odc_openeo.services.colors import draw_notice
from odc_openeo.services.xyz import make_tilejson

EXTENSION: Final = "odc_openeo_tiles"
ALIASES: Final = {"WebMercatorQuad", "GoogleMapsCompatible", "3857"}
"""Accepted aliases of the world-wide tile matrix set."""

P = ParamSpec("P")

blueprint = Blueprint("service_tiles", __name__)


def register(app: Any) -> None:
    """Add the endpoints to an application: plain ones, and signed ones with a key."""
    app.register_blueprint(blueprint, url_prefix=f"{SERVICES_PATH}/<uuid:service_id>")
    prefix_with_key = f"{SERVICES_PATH}/<uuid:service_id>/signed/<key>"
    app.register_blueprint(blueprint, url_prefix=prefix_with_key, name="signed_service_tiles")


def get_tiles() -> Tiles:
    """Return the tile renderer of this process."""
    return cast(Tiles, current_app.extensions[EXTENSION])


def explain_errors(view: Callable[P, Response]) -> Callable[P, Response]:
    """Make a view report errors in a form that the client can show: a picture, XML for WMTS, else JSON."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            return view(*args, **kwargs)
        except OpenEOError as error:
            return _make_client_error(error)

    return guarded


def _make_client_error(error: OpenEOError) -> Response:
    response = make_error_response(error)
    response.headers["Cache-Control"] = "no-store"
    if "image/" in request.headers.get("Accept", ""):
        response.set_data(draw_notice(error.to_dict()["message"]))
        response.content_type = "image/png"
    elif "/wmts/" in request.path or _is_kvp() or request.path.endswith(".xml"):
        response.set_data(wmts.make_exception_report(error))
        response.content_type = wmts.MEDIA_TYPE
    return response


def _is_kvp() -> bool:
    return any(name.upper() in ("REQUEST", "SERVICE") for name in request.args)


def _open_service(service_id: UUID, key: str | None) -> Service:
    """Return the service if the requester may access it.

    Raises:
        ServiceNotFound: it does not exist, or it is private and the request is not its owner's, nor signed.
        ResultLinkExpired: the key is invalid or has expired.
        ServiceDisabled: its owner has disabled it.
    """
    config = backend().config
    if key is not None:
        links.check_key(config, service_id, key)
    service = store.get_active_service(config, service_id)
    if key is None and not service.public:
        user = user_if_signed_in()
        if user is None or user.id != service.user:
            raise ServiceNotFound(identifier=str(service_id))
    if not service.draft.enabled:
        raise ServiceDisabled
    return service


# --- Endpoints -----------------------------------------------------------------------------------


@blueprint.get("")
@answers(media_type=ANY)
@explain_errors
def entry(service_id: UUID, key: str | None = None) -> Response:
    """The entry point: TileJSON for XYZ services; for WMTS key-value requests, capabilities by default."""
    service = _open_service(service_id, key)
    if service.draft.type == "WMTS":
        return _answer_key_value_pairs(service, key)
    return jsonify(make_tilejson(service, get_tiles().get_footprint(service), make_service_url(service, key)))


@blueprint.get("/<int:z>/<int:x>/<y>")
@answers(media_type=ANY)
@explain_errors
def xyz_tile(service_id: UUID, z: int, x: int, y: str, key: str | None = None) -> Response:
    """An XYZ tile, with or without a file extension."""
    service = _open_service(service_id, key)
    time = request.args.get("time") or None
    return _send_tile(
        service,
        grids.make_web_mercator_set(service.get_setting("tile_size", 256)),
        str(z),
        x,
        _parse_row(y),
        time,
    )


@blueprint.get("/WMTSCapabilities.xml")
@answers(media_type=ANY)
@explain_errors
def wmts_capabilities(service_id: UUID, key: str | None = None) -> Response:
    """The WMTS capabilities (RESTful)."""
    return _send_capabilities(_open_service(service_id, key), key)


@blueprint.get("/wmts/<matrix_set>/<level>/<int:column>/<row>")
@answers(media_type=ANY)
@explain_errors
def wmts_tile(
    service_id: UUID, matrix_set: str, level: str, column: int, row: str, key: str | None = None
) -> Response:
    """A WMTS tile (RESTful)."""
    service = _open_service(service_id, key)
    return _send_tile(service, _get_matrix_set(service, matrix_set), level, column, _parse_row(row), None)


@blueprint.get("/wmts/<time>/<matrix_set>/<level>/<int:column>/<row>")
@answers(media_type=ANY)
@explain_errors
def wmts_tile_of_time(
    service_id: UUID, time: str, matrix_set: str, level: str, column: int, row: str, key: str | None = None
) -> Response:
    """A WMTS tile of a date (RESTful)."""
    service = _open_service(service_id, key)
    return _send_tile(service, _get_matrix_set(service, matrix_set), level, column, _parse_row(row), time)


@blueprint.get("/legend.json")
@explain_errors
def legend(service_id: UUID, key: str | None = None) -> Response:
    """The legend as JSON."""
    style, names = get_tiles().get_style(_open_service(service_id, key))
    return jsonify(style.describe_legend(names))


@blueprint.get("/legend.png")
@answers(media_type=ANY)
@explain_errors
def legend_picture(service_id: UUID, key: str | None = None) -> Response:
    """The legend as a picture."""
    style, names = get_tiles().get_style(_open_service(service_id, key))
    return Response(style.draw_legend(names), content_type="image/png")


# --- Responses -------------------------------------------------------------------------------------


def _parse_row(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})(@2x)?(\.[a-zA-Z]{3,4})?", text)
    if match is None:
        raise RequestInvalid(reason=f"'{text}' is not a valid tile row. Use an integer.")
    return int(match[1])


def _answer_key_value_pairs(service: Service, key: str | None) -> Response:
    parameters = {name.upper(): value for name, value in request.args.items()}
    match parameters.get("REQUEST", "GetCapabilities").lower():
        case "getcapabilities":
            return _send_capabilities(service, key)
        case "gettile":
            tile = wmts.parse_tile_request(parameters)
            matrix_set = _get_matrix_set(service, tile.matrix_set)
            return _send_tile(service, matrix_set, tile.level, tile.column, tile.row, tile.time or None)
        case other:
            raise RequestInvalid(
                reason=f"REQUEST is '{other}'; only GetCapabilities and GetTile are supported."
            )


def _send_capabilities(service: Service, key: str | None) -> Response:
    outline = get_tiles().get_footprint(service)
    document = wmts.make_capabilities(
        service, outline, list_matrix_sets(service, outline), make_service_url(service, key)
    )
    return Response(document, content_type=wmts.MEDIA_TYPE)


def _get_matrix_set(service: Service, name: str) -> TileMatrixSet:
    matrix_sets = list_matrix_sets(service, get_tiles().get_footprint(service))
    requested_name = grids.WEB_MERCATOR if name in ALIASES else name
    matrix_set = next(
        (
            candidate
            for candidate in matrix_sets
            if grids.get_set_id(candidate).lower() == requested_name.lower()
        ),
        None,
    )
    if matrix_set is None:
        offered = ", ".join(map(grids.get_set_id, matrix_sets))
        raise RequestInvalid(reason=f"there is no TileMatrixSet '{name}'. Available are: {offered}.")
    return matrix_set


def _send_tile(
    service: Service, matrix_set: TileMatrixSet, level: str, column: int, row: int, time: str | None
) -> Response:
    number = wmts.strip_set_id(matrix_set, level)
    grid = grids.get_tile_grid(matrix_set, number, column, row)
    tag = get_tiles().compute_tag(service, matrix_set.id, number, column, row, time)
    if tag is not None and request.if_none_match.contains(tag):
        return _add_cache_headers(Response(status=304), service, tag)
    tile = get_tiles().get_tile(service, grid, time, tag)
    return _add_cache_headers(Response(tile.content, content_type=tile.media_type), service, tag)


def _add_cache_headers(response: Response, service: Service, tag: str | None) -> Response:
    """Add headers that let clients cache a tile and revalidate it."""
    if tag is None:
        response.headers["Cache-Control"] = "no-store"
        return response
    response.set_etag(tag)
    if service.public:
        response.cache_control.public = True
    else:
        response.cache_control.private = True
    response.cache_control.max_age = service.get_setting("max_age", 0)
    response.cache_control.must_revalidate = True
    return response
