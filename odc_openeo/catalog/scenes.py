"""Scenes: datasets of the index as the other packages use them, independent of the database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
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

DEFAULT_GRID = "default"


@dataclass(frozen=True)
class File:
    """Location of the pixels of one band: ``band`` counts from 1, ``layer`` is the variable in a netCDF file.

    ``place`` says where it may be opened if it is not from the index (see `odc_openeo.untrusted.rasters`);
    such a file has a ``nodata`` value of its own, where it has none itself, and ``uses_alpha`` says whether
    its alpha band, if it has one, marks the pixels without data.
    """

    href: str
    band: int = 1
    layer: str | None = None
    grid: str = DEFAULT_GRID
    place: Any = None
    nodata: float | None = None
    uses_alpha: bool = False


@dataclass(frozen=True, eq=False)
class Scene:
    """A dataset: ``time`` is its nominal time in UTC, ``footprint`` in its own reference system.

    ``version`` changes whenever the index entry does.
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

    def find_grid(self, band: str) -> GeoBox | None:
        """Find the pixel grid of a band, None if the scene lacks the band."""
        file = self.files.get(band)
        return None if file is None else self.grids.get(file.grid)

    @cached_property
    def outline(self) -> Geometry:
        """The outline of the whole image, in its own reference system."""
        return self.grids[DEFAULT_GRID].extent


def make_scene(dataset: Any) -> Scene:
    """Make a scene from an ODC dataset, straight from its EO3 document.

    Raises:
        FeatureUnsupported: the dataset has no EO3 metadata.
    """
    document = dataset.metadata_doc
    if not document.get("grids") or not document.get("crs"):
        raise FeatureUnsupported(
            feature=f"collections without EO3 metadata: dataset {dataset.id} has no 'crs' and 'grids'"
        )
    crs = CRS(document["crs"])
    grids = {name: _make_grid(spec, crs) for name, spec in document["grids"].items()}
    location = dataset.uri or document.get("location")
    properties = document.get("properties") or {}
    outline = document.get("geometry")
    return Scene(
        id=str(dataset.id),
        product=dataset.product.name,
        time=get_nominal_time(properties, str(dataset.id)),
        crs=crs,
        grids=grids,
        files={name: _make_file(m, location) for name, m in (document.get("measurements") or {}).items()},
        footprint=Geometry(outline, crs) if outline else grids[DEFAULT_GRID].extent,
        properties=properties,
        version=hashlib.sha256(repr((location, document)).encode()).hexdigest(),
    )


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
        return _parse_utc(at)
    start, end = properties.get("dtr:start_datetime"), properties.get("dtr:end_datetime")
    if start is None or end is None:
        raise FeatureUnsupported(feature=f"datasets without a time: dataset {id_} has no 'datetime'")
    return _parse_utc(start) + (_parse_utc(end) - _parse_utc(start)) / 2


def _parse_utc(value: str | datetime) -> datetime:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
