"""TileJSON, which describes XYZ tiles to map clients."""

from __future__ import annotations

from typing import Any

from odc_openeo.services.colors import EXTENSIONS
from odc_openeo.services.footprint import MERCATOR_LATITUDE, Footprint
from odc_openeo.services.grids import LEVEL_COUNT
from odc_openeo.services.model import Service


def make_tilejson(service: Service, footprint: Footprint, address: str) -> dict[str, Any]:
    """Return the TileJSON 3.0 document of a service at an address."""
    extension = EXTENSIONS[service.get_setting("format", "PNG")]
    bounds = footprint.bounds or (-180.0, -MERCATOR_LATITUDE, 180.0, MERCATOR_LATITUDE)
    return {
        "tilejson": "3.0.0",
        "name": service.draft.title or str(service.id),
        "description": service.draft.description or "",
        "scheme": "xyz",
        "tiles": [f"{address}/{{z}}/{{x}}/{{y}}.{extension}"],
        "minzoom": 0,
        "maxzoom": LEVEL_COUNT - 1,
        "bounds": list(bounds),
        "legend": f"{address}/legend.png",
        "vector_layers": [],
    }
