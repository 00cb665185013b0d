"""Secondary web services as JSON: models of request bodies, and documents of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from morecantile.models import TileMatrixSet

from odc_openeo.api.backend import backend, make_link, root_url
from odc_openeo.api.jobs.documents import JobChangesModel, parse_fields
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.errors import PropertyNotEditable
from odc_openeo.evaluation.validation import find_problems
from odc_openeo.services import Service, ServiceDraft, get_service_type, grids, links, parse_configuration
from odc_openeo.services.colors import EXTENSIONS
from odc_openeo.services.configuration import EXTENT
from odc_openeo.services.footprint import Footprint
from odc_openeo.services.wmts import LAYER
from odc_openeo.timestamps import format_rfc3339

SERVICES_PATH: Final = "/services"
"""Path of the services' map endpoints below the root of the server."""

READ_ONLY: Final = frozenset({"id", "url", "attributes", "created", "costs", "usage", "links"})
"""Properties that only the service sets."""


class ServiceChangesModel(JobChangesModel):
    """The members of a service that users may change."""

    enabled: bool = True
    configuration: dict[str, Any] = {}


class ServiceModel(ServiceChangesModel):
    """The members of a new service that users may set."""

    type: str
    process: dict[str, Any]


def parse_service(body: Mapping[str, Any], user: UUID) -> ServiceDraft:
    """Parse the body of ``POST /services``.

    Raises:
        ServiceUnsupported, ServiceConfigUnsupported, ServiceConfigInvalid: unsupported type or settings.
        OpenEOError: the first error of the process, or an error of `parse_fields`.
    """
    # Read-only members are ignored, as clients send back what they have received.
    settable = {name: value for name, value in body.items() if name not in READ_ONLY}
    fields = _parse_service_fields(ServiceModel, settable, user)
    return ServiceDraft(**{**fields, "type": get_service_type(fields["type"]).name})


def parse_service_changes(body: Mapping[str, Any], user: UUID) -> dict[str, Any]:
    """Parse the fields of `ServiceDraft` in the body of ``PATCH /services/{service_id}``.

    Raises:
        PropertyNotEditable: it sets a read-only member, or the type.
        OpenEOError: a value is not allowed, see `parse_service`.
    """
    for name in sorted(body.keys() & {*READ_ONLY, "type"}):
        raise PropertyNotEditable(property=name)
    return _parse_service_fields(ServiceChangesModel, body, user)


def _parse_service_fields(
    model: type[ServiceChangesModel], body: Mapping[str, Any], user: UUID
) -> dict[str, Any]:
    fields = parse_fields(model, body)
    if "configuration" in fields:
        fields["configuration"] = parse_configuration(fields["configuration"])
    if "process" in fields:
        _check_process(fields["process"], user)
    return fields


def _check_process(process: Mapping[str, Any], user: UUID) -> None:
    for error in run_for_view(find_problems, process, user, {EXTENT: None}, user=str(user)):
        raise error


# --- Responses -------------------------------------------------------------------------------------


def make_service_url(service: Service, key: str | None = None) -> str:
    """Make the base URL of a service: with the given key, with a new one if it is private, else without."""
    base = f"{root_url()}{SERVICES_PATH}/{service.id}"
    if key is None and not service.public:
        key = links.make_key(backend().config, service)
    return base if key is None else f"{base}/signed/{key}"


def make_client_url(service: Service) -> str:
    """Make the URL for map clients: a template with placeholders for XYZ, the entry point for WMTS."""
    if service.draft.type == "WMTS":
        return make_service_url(service)
    extension = EXTENSIONS[service.get_setting("format", "PNG")]
    return f"{make_service_url(service)}/{{z}}/{{x}}/{{y}}.{extension}"


def summary_to_dict(service: Service) -> dict[str, Any]:
    """Describe a service in a listing."""
    document: dict[str, Any] = {
        "id": str(service.id),
        "title": service.draft.title,
        "description": service.draft.description,
        "url": make_client_url(service),
        "type": service.draft.type,
        "enabled": service.draft.enabled,
        "created": format_rfc3339(service.created),
        "budget": service.draft.budget,
        "log_level": service.draft.log_level,
    }
    return {name: value for name, value in document.items() if value is not None}


def service_to_dict(service: Service, outline: Footprint) -> dict[str, Any]:
    """Describe a service in full; unknown members are omitted."""
    return {
        **service.draft.extras,
        **summary_to_dict(service),
        "process": service.draft.process,
        "configuration": service.draft.configuration,
        "attributes": _describe_attributes(service, outline),
        "usage": {
            "tiles": {"value": service.tiles, "unit": "tiles"},
            "network": {"value": service.nbytes, "unit": "b"},
            "cpu": {"value": round(service.cpu_s, 3), "unit": "cpu-seconds"},
        },
        "links": [make_link("monitor", f"{root_url()}/openeo/1.3/services/{service.id}/logs", "Logs")],
    }


def _describe_attributes(service: Service, outline: Footprint) -> dict[str, Any]:
    service_url = make_service_url(service)
    attributes = {
        "layers": [LAYER],
        "bounds": outline.bounds and list(outline.bounds),
        "times": list(outline.times) or None,
        "tileMatrixSets": [matrix_set.id for matrix_set in list_matrix_sets(service, outline)],
        "tileSize": service.get_setting("tile_size", 256),
        "tilejson": service_url if service.draft.type == "XYZ" else None,
        "legend": f"{service_url}/legend.png",
        "error": None if outline.reason is None else outline.reason.to_dict()["message"],
    }
    return {name: value for name, value in attributes.items() if value is not None}


def list_matrix_sets(service: Service, outline: Footprint) -> Sequence[TileMatrixSet]:
    """List the tile matrix sets of a service, the world-wide one first."""
    size = service.get_setting("tile_size", 256)
    world = grids.make_web_mercator_set(size)
    if (
        service.draft.type != "WMTS"
        or outline.native is None
        or outline.native.epsg == grids.get_epsg_code(world)
    ):
        return [world]
    return [world, grids.make_native_set(outline.native, size)]
