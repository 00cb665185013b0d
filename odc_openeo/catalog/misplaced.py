"""Datasets whose place or time in the index is wrong, as conditions of SQL.

Open Data Cube derives longitudes and latitudes from corners: those of a map that holds a pole or goes around
the Earth, or of a disk seen from space, become NaN or a sliver. It drops the offset of times from UTC.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import numpy as np
from odc.geo import CRS
from sqlalchemy import ColumnElement, Text, and_, literal, literal_column, or_
from sqlalchemy.types import Boolean

from odc_openeo.catalog.eo_documents import EO_PATHS
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import get_projection

LONGEST_OFFSET: Final = timedelta(hours=16)
"""No time zone is further from UTC."""

_NO_PLACE: Final = " OR ".join(
    f"coalesce(metadata #>> '{{extent,{axis},{end}}}', 'NaN') !~ '^-?[0-9]'"
    for axis in ("lon", "lat")
    for end in ("begin", "end")
)
NOT_A_PLACE: Final = f"metadata #> '{{extent,coord}}' IS NULL AND ({_NO_PLACE})"
"""Whether the index has no longitudes and latitudes; documents of type ``eo`` have them elsewhere."""

_CORNERS: Final = {
    axis: ", ".join(
        f"(metadata #>> '{{grid_spatial,projection,geo_ref_points,{corner},{axis}}}')::float"
        for corner in ("ul", "ur", "lr", "ll")
    )
    for axis in ("x", "y")
}
_OFFSET: Final = r"\d\d:\d\d.*[+-]\d\d(:?\d\d)?$"


def _get_property(name: str) -> str:
    older = ",".join(EO_PATHS[name])
    return f"coalesce(metadata #>> '{{properties,{name}}}', metadata #>> '{{{older}}}')"


HAS_OFFSET: Final = " OR ".join(
    f"{_get_property(name)} ~ '{_OFFSET}' AND {_get_property(name)} !~ '[+-]00(:?00)?$'"
    for name in ("datetime", "dtr:start_datetime", "dtr:end_datetime")
)
"""Whether the index has another time than the document."""


def utc_sql(name: str) -> str:
    """The time in a property of the document as if it had no offset from UTC."""
    return f"{_get_property(name)}::timestamp AT TIME ZONE 'UTC'"


def instant_sql(name: str) -> str:
    """The time in a property of the document, with its offset from UTC; without one it is UTC."""
    value = _get_property(name)
    instant = f"CASE WHEN {value} ~ '{_OFFSET}' THEN {value}::timestamptz ELSE {utc_sql(name)} END"
    # Python has no times before the first and after the last year.
    return (
        f"CASE WHEN {value} IS NOT NULL THEN "
        f"least(greatest({instant}, '0001-01-01 00:00:00+00'::timestamptz), "
        "'9999-12-31 23:59:59.999999+00'::timestamptz) END"
    )


FIRST_TIME: Final = f"least({instant_sql('dtr:start_datetime')}, {instant_sql('datetime')})"
LAST_TIME: Final = f"greatest({instant_sql('dtr:end_datetime')}, {instant_sql('datetime')})"


def is_misplaced(codes: tuple[str, ...]) -> ColumnElement[bool]:
    """The condition that a dataset's longitudes and latitudes in the index are not those of its outline.

    ``codes`` are the reference systems of the datasets.
    """
    conditions: list[ColumnElement[Any]] = [literal_column(f"({NOT_A_PLACE})", Boolean)]
    for code in codes:
        places = _list_conditions(code)
        if places:
            conditions.append(
                and_(
                    literal_column("metadata ->> 'crs'", Text) == literal(code, Text),
                    literal_column(f"({' OR '.join(places)})", Boolean),
                )
            )
    return or_(*conditions)


def may_be_misplaced(code: str) -> bool:
    """Return whether datasets in a reference system can hold a pole or go around the Earth."""
    return bool(_list_conditions(code))


def _list_conditions(code: str) -> list[str]:
    try:
        crs = CRS(code)
        projection = get_projection(crs)
    except Exception:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        return []
    if projection.is_local or has_degrees(str(crs)):
        return []
    conditions = []
    for x, y in projection.poles.values():
        if np.isfinite([x, y]).all():
            conditions.append(f"({_spans('x', x)} AND {_spans('y', y)})")
    if projection.width:
        x, half = _CORNERS["x"], projection.width / 2
        conditions.append(f"greatest({x}) - least({x}) >= {half!r}")
    return conditions


def _spans(axis: str, value: float) -> str:
    """A condition that corners are on both sides of a value, or on it to a billionth of their size."""
    corners = _CORNERS[axis]
    slack = f"1e-9 * (greatest({corners}) - least({corners}))"
    return f"({float(value)!r} BETWEEN least({corners}) - {slack} AND greatest({corners}) + {slack})"
