"""Secondary web services: results of process graphs as map tiles, rendered when a map client requests them.

`store` keeps the services and `configuration` defines their settings. `tiles` renders pictures: it runs the
process (`evaluation`) for the pixels of one tile (`grids`) and turns the values into colours (`colors`).
`xyz` and `wmts` are the protocols.
"""

from odc_openeo.services.configuration import SERVICE_TYPES, get_service_type, parse_configuration
from odc_openeo.services.model import Service, ServiceDraft
from odc_openeo.services.tiles import MapTile, Tiles

__all__ = [
    "SERVICE_TYPES",
    "MapTile",
    "Service",
    "ServiceDraft",
    "Tiles",
    "get_service_type",
    "parse_configuration",
]
