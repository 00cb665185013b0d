"""Secondary web services: results of process graphs as map tiles, made when a map client asks for them.

`store` keeps the services, `configuration` says what can be set, `tiles` makes pictures by running the
process (`evaluation`) for the pixels of one tile (`grids`) and giving the values colours (`colors`); `xyz`
and `wmts` are the protocols.
"""

from odc_openeo.services.configuration import KINDS, check_configuration, kind
from odc_openeo.services.model import Service, ServiceDraft
from odc_openeo.services.tiles import Tile, Tiles

__all__ = ["KINDS", "Service", "ServiceDraft", "Tile", "Tiles", "check_configuration", "kind"]
