"""What map clients ask of secondary web services: tiles, capabilities, legends. No sign-in, but a link."""

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
from odc_openeo.api.failures import answer
from odc_openeo.api.service_documents import PATH, address, matrix_sets
from odc_openeo.errors import OpenEOError, RequestInvalid, ServiceDisabled, ServiceNotFound
from odc_openeo.services import Service, Tiles, grids, links, store, wmts
from odc_openeo.services.colors import notice
from odc_openeo.services.xyz import tilejson

EXTENSION: Final = "odc_openeo_tiles"
ALIASES: Final = {"WebMercatorQuad", "GoogleMapsCompatible", "3857"}
"""Other names of the grid of the world."""

P = ParamSpec("P")

blueprint = Blueprint("service_tiles", __name__)


def register(place: Any) -> None:
    """Add the addresses of tiles to an application: plain ones, and those with a key."""
    place.register_blueprint(blueprint, url_prefix=f"{PATH}/<uuid:service_id>")
    keyed = f"{PATH}/<uuid:service_id>/signed/<key>"
    place.register_blueprint(blueprint, url_prefix=keyed, name="signed_service_tiles")


def tiles() -> Tiles:
    """What makes tiles in this process."""
    return cast(Tiles, current_app.extensions[EXTENSION])


def explained(view: Callable[P, Response]) -> Callable[P, Response]:
    """Show errors in the form that the client can show: a picture, XML for WMTS, else JSON."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            return view(*args, **kwargs)
        except OpenEOError as error:
            return _shown(error)

    return guarded


def _shown(error: OpenEOError) -> Response:
    response = answer(error)
    response.headers["Cache-Control"] = "no-store"
    if "image/" in request.headers.get("Accept", ""):
        response.set_data(notice(error.to_dict()["message"]))
        response.content_type = "image/png"
    elif "/wmts/" in request.path or _is_kvp() or request.path.endswith(".xml"):
        response.set_data(wmts.exception(error))
        response.content_type = wmts.MEDIA_TYPE
    return response


def _is_kvp() -> bool:
    return any(name.upper() in ("REQUEST", "SERVICE") for name in request.args)


def _opened(service_id: UUID, key: str | None) -> Service:
    """The service, if whoever asks may see it.

    Raises:
        ServiceNotFound: there is none, or it is private and this is neither its owner nor a signed link.
        ResultLinkExpired: the key is not good, or not any more.
        ServiceDisabled: its owner has switched it off.
    """
    config = backend().config
    if key is not None:
        links.check(config, service_id, key)
    service = store.find(config, service_id)
    if key is None and not service.public:
        user = user_if_signed_in()
        if user is None or user.id != service.user:
            raise ServiceNotFound(identifier=str(service_id))
    if not service.draft.enabled:
        raise ServiceDisabled
    return service


# --- Addresses -----------------------------------------------------------------------------------


@blueprint.get("")
@explained
def entry(service_id: UUID, key: str | None = None) -> Response:
    """The service itself: TileJSON of XYZ tiles; WMTS by key-value pairs, the capabilities by default."""
    service = _opened(service_id, key)
    if service.draft.type == "WMTS":
        return _key_value_pairs(service, key)
    return jsonify(tilejson(service, tiles().outline(service), address(service, key)))


@blueprint.get("/<int:z>/<int:x>/<y>")
@explained
def xyz_tile(service_id: UUID, z: int, x: int, y: str, key: str | None = None) -> Response:
    """An XYZ tile, with or without an extension."""
    service = _opened(service_id, key)
    time = request.args.get("time") or None
    return _tile(service, grids.web_mercator(service.setting("tile_size", 256)), str(z), x, _row(y), time)


@blueprint.get("/WMTSCapabilities.xml")
@explained
def wmts_capabilities(service_id: UUID, key: str | None = None) -> Response:
    """The capabilities of WMTS by path."""
    return _capabilities(_opened(service_id, key), key)


@blueprint.get("/wmts/<matrix_set>/<level>/<int:column>/<row>")
@explained
def wmts_tile(
    service_id: UUID, matrix_set: str, level: str, column: int, row: str, key: str | None = None
) -> Response:
    """A WMTS tile by path."""
    service = _opened(service_id, key)
    return _tile(service, _matrix_set(service, matrix_set), level, column, _row(row), None)


@blueprint.get("/wmts/<time>/<matrix_set>/<level>/<int:column>/<row>")
@explained
def wmts_tile_of_time(
    service_id: UUID, time: str, matrix_set: str, level: str, column: int, row: str, key: str | None = None
) -> Response:
    """A WMTS tile of a date by path."""
    service = _opened(service_id, key)
    return _tile(service, _matrix_set(service, matrix_set), level, column, _row(row), time)


@blueprint.get("/legend.json")
@explained
def legend(service_id: UUID, key: str | None = None) -> Response:
    """What the colours mean."""
    style, names = tiles().style(_opened(service_id, key))
    return jsonify(style.legend(names))


@blueprint.get("/legend.png")
@explained
def legend_picture(service_id: UUID, key: str | None = None) -> Response:
    """What the colours mean, as a picture."""
    style, names = tiles().style(_opened(service_id, key))
    return Response(style.legend_picture(names), content_type="image/png")


# --- Answers -------------------------------------------------------------------------------------


def _row(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})(@2x)?(\.[a-zA-Z]{3,4})?", text)
    if found is None:
        raise RequestInvalid(reason=f"'{text}' is no row of tiles. Write a whole number.")
    return int(found[1])


def _key_value_pairs(service: Service, key: str | None) -> Response:
    parameters = {name.upper(): value for name, value in request.args.items()}
    match parameters.get("REQUEST", "GetCapabilities").lower():
        case "getcapabilities":
            return _capabilities(service, key)
        case "gettile":
            wanted = wmts.tile_request(parameters)
            found = _matrix_set(service, wanted.matrix_set)
            return _tile(service, found, wanted.level, wanted.column, wanted.row, wanted.time or None)
        case other:
            raise RequestInvalid(reason=f"REQUEST is '{other}'; GetCapabilities and GetTile are possible.")


def _capabilities(service: Service, key: str | None) -> Response:
    known = tiles().outline(service)
    document = wmts.capabilities(service, known, matrix_sets(service, known), address(service, key))
    return Response(document, content_type=wmts.MEDIA_TYPE)


def _matrix_set(service: Service, name: str) -> TileMatrixSet:
    sets = matrix_sets(service, tiles().outline(service))
    wanted = grids.WEB_MERCATOR if name in ALIASES else name
    found = next((each for each in sets if grids.name(each).lower() == wanted.lower()), None)
    if found is None:
        offered = ", ".join(map(grids.name, sets))
        raise RequestInvalid(reason=f"there is no TileMatrixSet '{name}'. There are: {offered}.")
    return found


def _tile(
    service: Service, matrix_set: TileMatrixSet, level: str, column: int, row: int, time: str | None
) -> Response:
    number = wmts.level_of(matrix_set, level)
    grid = grids.tile(matrix_set, number, column, row)
    tag = tiles().tag(service, matrix_set.id, number, column, row, time)
    if tag is not None and request.if_none_match.contains(tag):
        return _cached(Response(status=304), service, tag)
    tile = tiles().tile(service, grid, time, tag)
    return _cached(Response(tile.content, content_type=tile.media_type), service, tag)


def _cached(response: Response, service: Service, tag: str | None) -> Response:
    """With headers that let clients keep a tile, and ask whether it is still the same."""
    if tag is None:
        response.headers["Cache-Control"] = "no-store"
        return response
    response.set_etag(tag)
    if service.public:
        response.cache_control.public = True
    else:
        response.cache_control.private = True
    response.cache_control.max_age = service.setting("max_age", 0)
    response.cache_control.must_revalidate = True
    return response
