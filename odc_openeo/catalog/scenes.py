"""Scenes: datasets of the index as the other packages use them, independent of the database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from affine import Affine
from datacube.utils.uris import uri_resolve
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from odc_openeo.errors import FeatureUnsupported
from odc_openeo.storage.buckets import NO_RULES, AddressRefusedError, BucketAccess, BucketRules

DEFAULT_GRID = "default"

Interval = tuple[datetime, datetime]
"""Start and end in UTC; the end does not belong to it."""


@dataclass(frozen=True)
class File:
    """Location of the pixels of one band: ``band`` counts from 1, ``layer`` is the variable in a netCDF file.

    ``place`` says where it may be opened if it is not from the index (see `odc_openeo.untrusted.rasters`);
    such a file has a ``nodata`` value of its own, where it has none itself, and ``uses_alpha`` says whether
    its alpha band, if it has one, marks the pixels without data. ``access`` is the operator's rule for its
    bucket, if there is one.
    """

    href: str
    band: int = 1
    layer: str | None = None
    grid: str = DEFAULT_GRID
    place: Any = None
    nodata: float | None = None
    uses_alpha: bool = False
    access: BucketAccess | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """A dataset: ``time`` is its nominal time in UTC, ``interval`` what it is valid for, if that is not one
    instant; ``footprint`` is in any reference system.

    ``turn`` is by how many degrees the longitudes of its grids are ahead of those of its files. ``version``
    changes whenever the index entry does.
    """

    id: str
    product: str
    time: datetime
    crs: CRS
    grids: Mapping[str, GeoBox]
    files: Mapping[str, File]
    footprint: Geometry
    properties: Mapping[str, Any] = field(repr=False)
    version: str = ""
    interval: Interval | None = None
    turn: float = 0.0

    def turn_by(self, degrees: float) -> Scene:
        """Return the scene with longitudes that are counted from elsewhere."""
        if not degrees:
            return self
        move = Affine.translation(degrees, 0)
        grids = {name: GeoBox(g.shape, move @ g.transform, g.crs) for name, g in self.grids.items()}
        return replace(self, grids=grids, turn=self.turn + degrees)

    def use_bucket_rules(self, rules: BucketRules) -> Scene:
        """Return the scene with the operator's rules for the buckets that its files are in."""
        if rules == NO_RULES:
            return self
        files = {name: self._use_rules(file, rules) for name, file in self.files.items()}
        return replace(self, files=files)

    def _use_rules(self, file: File, rules: BucketRules) -> File:
        try:
            return replace(file, access=rules.find_access(file.href, self.product))
        except AddressRefusedError:
            # Reading it will say so.
            return file

    def is_within(self, start: datetime | None, end: datetime | None) -> bool:
        """Return whether the scene is valid at any time from ``start`` on and before ``end``.

        An interval goes on until its end, which does not belong to it; the nominal time always counts.
        """
        if (start is None or start <= self.time) and (end is None or self.time < end):
            return True
        if self.interval is None:
            return False
        first, last = self.interval
        return (start is None or start < last) and (end is None or first < end)

    def find_grid(self, band: str) -> GeoBox | None:
        """Find the pixel grid of a band, None if the scene lacks the band."""
        file = self.files.get(band)
        return None if file is None else self.grids.get(file.grid)

    @cached_property
    def outline(self) -> Geometry:
        """The outline of the whole image, in its own reference system."""
        return self.grids[DEFAULT_GRID].extent


def make_scene(row: Any, document: Mapping[str, Any]) -> Scene:
    """Make a scene from a row of the index (id, location, product) and its EO3 document.

    Raises:
        FeatureUnsupported: the dataset has no EO3 metadata.
    """
    id_ = str(row.id)
    if not document.get("grids") or not document.get("crs"):
        raise FeatureUnsupported(
            feature=f"datasets without a pixel grid: {id_} of collection '{row.product}' has no EO3 metadata "
            "with 'crs' and 'grids'. Operators: index it anew with EO3 documents, in a product of type eo3"
        )
    crs = _parse_crs(document["crs"], id_)
    grids = {name: _make_grid(spec, crs) for name, spec in document["grids"].items()}
    location = row.location or document.get("location")
    properties = document.get("properties") or {}
    outline = document.get("geometry")
    return Scene(
        id=id_,
        product=row.product,
        time=get_nominal_time(properties, id_),
        crs=crs,
        grids=grids,
        files={name: _make_file(m, location) for name, m in (document.get("measurements") or {}).items()},
        footprint=Geometry(outline, crs) if outline else grids[DEFAULT_GRID].extent,
        properties=properties,
        version=hashlib.sha256(repr((location, document)).encode()).hexdigest(),
        interval=find_interval(properties, id_),
    )


def _parse_crs(code: Any, id_: str) -> CRS:
    try:
        return CRS(code)
    except (
        Exception
    ) as error:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        feature = f"unknown reference systems: dataset {id_} is in {str(code)[:60]!r}"
        raise FeatureUnsupported(feature=feature) from error


def _make_grid(spec: Mapping[str, Any], crs: CRS) -> GeoBox:
    return GeoBox(tuple(spec["shape"]), Affine(*spec["transform"][:6]), crs)


def _make_file(measurement: Mapping[str, Any], location: str | None) -> File:
    path = measurement["path"]
    uri = uri_resolve(location, path) if location else path
    parts = urlsplit(uri)
    # GDAL does not decode file URLs.
    href = url2pathname(parts.path) if parts.scheme == "file" else uri
    return File(
        href, measurement.get("band") or 1, measurement.get("layer"), measurement.get("grid", DEFAULT_GRID)
    )


def get_nominal_time(properties: Mapping[str, Any], id_: str) -> datetime:
    """Return the ``datetime`` of a dataset, else the middle of its interval; UTC if it has no time zone."""
    at = properties.get("datetime")
    if at is not None:
        return parse_utc(at, id_)
    interval = find_interval(properties, id_)
    if interval is None:
        raise FeatureUnsupported(feature=f"datasets without a time: dataset {id_} has no 'datetime'")
    return interval[0] + (interval[1] - interval[0]) / 2


def find_interval(properties: Mapping[str, Any], id_: str) -> Interval | None:
    """Find what a dataset is valid for in its metadata; None if that is an instant."""
    start, end = properties.get("dtr:start_datetime"), properties.get("dtr:end_datetime")
    if start is None or end is None:
        return None
    first, last = sorted((parse_utc(start, id_), parse_utc(end, id_)))
    return first, last


def parse_utc(value: Any, id_: str) -> datetime:
    """Parse a time of a dataset; UTC if it has no time zone.

    Raises:
        FeatureUnsupported: it is not a time.
    """
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        # The first or last day of the calendar, in a time zone where it is the day beyond.
        return (datetime.min if time.year == 1 else datetime.max).replace(tzinfo=UTC)
    except (ValueError, TypeError) as error:
        reason = f"dataset {id_} has the time {str(value)[:60]!r}"
        raise FeatureUnsupported(
            feature=f"times that are not written as ISO 8601 has them: {reason}"
        ) from error
