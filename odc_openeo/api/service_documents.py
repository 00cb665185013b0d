"""Secondary web services as JSON: what requests hold, what answers show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from morecantile.models import TileMatrixSet

from odc_openeo.api.backend import backend, link, root_url
from odc_openeo.api.job_documents import changes
from odc_openeo.api.runs import run_for_view
from odc_openeo.errors import ProcessInvalid, PropertyNotEditable, RequestInvalid
from odc_openeo.evaluation.validation import find_problems
from odc_openeo.results import rfc3339
from odc_openeo.services import Service, ServiceDraft, check_configuration, grids, kind, links
from odc_openeo.services.colors import EXTENSIONS
from odc_openeo.services.configuration import EXTENT
from odc_openeo.services.outline import Outline
from odc_openeo.services.wmts import LAYER

PATH: Final = "/services"
"""Path below the root of the server at which the tiles of services are."""

FIXED: Final = frozenset({"id", "url", "attributes", "created", "costs", "usage", "links"})
"""Properties that only the service sets."""


def draft(body: Mapping[str, Any], user: UUID) -> ServiceDraft:
    """The service that the body of ``POST /services`` asks for.

    Raises:
        ServiceUnsupported, ServiceConfigUnsupported, ServiceConfigInvalid: type or settings are not offered.
        OpenEOError: the first error of the process.
    """
    if not isinstance(body.get("type"), str):
        raise RequestInvalid(reason="'type' must be a text, one of those that GET /service_types lists.")
    if "process" not in body:
        raise ProcessInvalid(
            reason="the body needs a member 'process', an object that holds 'process_graph'."
        )
    # What only the service sets is ignored here, as clients send back what they were given.
    wanted = {name: v for name, v in body.items() if name not in FIXED and name != "type"}
    return ServiceDraft(type=kind(body["type"]).name, **service_changes(wanted, user))


def service_changes(body: Mapping[str, Any], user: UUID) -> dict[str, Any]:
    """The fields of `ServiceDraft` that a body sets.

    Raises:
        PropertyNotEditable: it sets what only the service sets, or the type.
        OpenEOError: a value is not allowed, see `draft`.
    """
    for name in sorted(body.keys() & {*FIXED, "type"}):
        raise PropertyNotEditable(property=name)
    own = {"enabled", "configuration"}
    found = changes({name: value for name, value in body.items() if name not in own})
    if "enabled" in body:
        found["enabled"] = _enabled(body["enabled"])
    if "configuration" in body:
        found["configuration"] = _configuration(body["configuration"])
    if "process" in found:
        _check(found["process"], user)
    return found


def _enabled(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestInvalid(reason="'enabled' must be true or false.")
    return value


def _configuration(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestInvalid(reason="'configuration' must be an object.")
    return check_configuration(value)


def _check(process: Mapping[str, Any], user: UUID) -> None:
    for error in run_for_view(find_problems, process, user, {EXTENT: None}, user=str(user)):
        raise error


# --- Answers -------------------------------------------------------------------------------------


def address(service: Service, key: str | None = None) -> str:
    """Where the tiles of a service are: for a key if it is given, else for anybody who is told."""
    plain = f"{root_url()}{PATH}/{service.id}"
    if key is None and not service.public:
        key = links.key(backend().config, service)
    return plain if key is None else f"{plain}/signed/{key}"


def url(service: Service) -> str:
    """The address that map clients want: of XYZ tiles with placeholders, of WMTS without."""
    if service.draft.type == "WMTS":
        return address(service)
    extension = EXTENSIONS[service.setting("format", "PNG")]
    return f"{address(service)}/{{z}}/{{x}}/{{y}}.{extension}"


def short_service(service: Service) -> dict[str, Any]:
    """A service in a listing."""
    shown: dict[str, Any] = {
        "id": str(service.id),
        "title": service.draft.title,
        "description": service.draft.description,
        "url": url(service),
        "type": service.draft.type,
        "enabled": service.draft.enabled,
        "created": rfc3339(service.created),
        "budget": service.draft.budget,
        "log_level": service.draft.log_level,
    }
    return {name: value for name, value in shown.items() if value is not None}


def full_service(service: Service, known: Outline) -> dict[str, Any]:
    """All of a service; what is not known is left out."""
    return {
        **service.draft.extras,
        **short_service(service),
        "process": service.draft.process,
        "configuration": service.draft.configuration,
        "attributes": _attributes(service, known),
        "usage": {
            "tiles": {"value": service.tiles, "unit": "tiles"},
            "network": {"value": service.nbytes, "unit": "b"},
            "cpu": {"value": round(service.cpu_s, 3), "unit": "cpu-seconds"},
        },
        "links": [link("monitor", f"{root_url()}/openeo/1.3/services/{service.id}/logs", "Logs")],
    }


def _attributes(service: Service, known: Outline) -> dict[str, Any]:
    plain = address(service)
    found = {
        "layers": [LAYER],
        "bounds": known.bounds and list(known.bounds),
        "times": list(known.times) or None,
        "tileMatrixSets": [each.id for each in matrix_sets(service, known)],
        "tileSize": service.setting("tile_size", 256),
        "tilejson": plain if service.draft.type == "XYZ" else None,
        "legend": f"{plain}/legend.png",
        "error": None if known.reason is None else known.reason.to_dict()["message"],
    }
    return {name: value for name, value in found.items() if value is not None}


def matrix_sets(service: Service, known: Outline) -> Sequence[TileMatrixSet]:
    """The grids of the tiles of a service, the one of the world first."""
    size = service.setting("tile_size", 256)
    world = grids.web_mercator(size)
    if service.draft.type != "WMTS" or known.native is None or known.native.epsg == grids.epsg(world):
        return [world]
    return [world, grids.native(known.native, size)]
