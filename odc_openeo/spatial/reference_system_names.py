"""Names of coordinate reference systems in messages, logs and metadata that people read."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import pyproj
from odc.geo import CRS

LONGEST: Final = 80
NAMELESS: Final = ("", "unknown", "unnamed", "undefined", "unknown crs")


def name_crs(crs: CRS | pyproj.CRS) -> str:
    """The code of a reference system such as ``EPSG:32632``, else its name; never its whole definition."""
    parsed = crs.proj if isinstance(crs, CRS) else crs
    return _name_definition(parsed)


@lru_cache(1024)
def _name_definition(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    if authority is not None:
        return ":".join(authority)
    name = "".join(c if c.isprintable() else " " for c in str(crs.name or "")).strip()[:LONGEST]
    if name.lower() not in NAMELESS:
        return name
    operation: Any = crs.coordinate_operation
    method = operation.method_name if operation is not None else None
    return f"unnamed system ({method})" if method else "unnamed system"
