"""TileJSON: what map clients want to know of XYZ tiles."""

from __future__ import annotations

from typing import Any

from odc_openeo.services.colors import EXTENSIONS
from odc_openeo.services.grids import LEVELS
from odc_openeo.services.model import Service
from odc_openeo.services.outline import MERCATOR_LATITUDE, Outline


def tilejson(service: Service, known: Outline, address: str) -> dict[str, Any]:
    """TileJSON 3.0 of a service at an address."""
    extension = EXTENSIONS[service.setting("format", "PNG")]
    bounds = known.bounds or (-180.0, -MERCATOR_LATITUDE, 180.0, MERCATOR_LATITUDE)
    return {
        "tilejson": "3.0.0",
        "name": service.draft.title or str(service.id),
        "description": service.draft.description or "",
        "scheme": "xyz",
        "tiles": [f"{address}/{{z}}/{{x}}/{{y}}.{extension}"],
        "minzoom": 0,
        "maxzoom": LEVELS - 1,
        "bounds": list(bounds),
        "legend": f"{address}/legend.png",
        "vector_layers": [],
    }
