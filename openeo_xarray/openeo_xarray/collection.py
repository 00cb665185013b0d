"""Collections before any pixel is read: dimensions, labels, bands and the reference system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from openeo.internal.graph_building import PGNode
from openeo.rest import OpenEoRestError

from openeo_xarray.declared_labels import find_declared_labels
from openeo_xarray.elementwise import call
from openeo_xarray.nodes import Axis, digest

BBOX_SIDES = ("west", "south", "east", "north")


@dataclass(frozen=True)
class Band:
    """A band as the metadata describe it."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    scale: float
    offset: float
    resolution: float | None
    attributes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """A part of a collection of a back-end.

    `extent` is the argument of `load_collection`; `bands` are all that were asked for: they share the grid
    of the finest of them.
    """

    connection: Any
    collection: str
    spatial_extent: dict[str, Any] | None
    temporal_extent: tuple[str | None, str | None] | None
    bands: tuple[Band, ...]
    bands_dimension: str | None
    properties: Mapping[str, Any] | None = None
    crs: Any = None
    labels: Mapping[str, Any] | None = None
    """Labels that the user has given, by dimension."""

    @property
    def finest_resolution(self) -> float | None:
        """The smallest declared resolution of the bands."""
        return min((b.resolution for b in self.bands if b.resolution is not None), default=None)

    @cached_property
    def key(self) -> str:
        return digest(
            id(self.connection),
            self.collection,
            self.spatial_extent,
            self.temporal_extent,
            [b.name for b in self.bands],
            repr(self.properties),
        )

    def load(self, names: Sequence[str] | None) -> PGNode:
        """The call that loads some bands."""
        arguments: dict[str, Any] = {
            "id": self.collection,
            "spatial_extent": self.spatial_extent,
            "temporal_extent": list(self.temporal_extent) if self.temporal_extent else None,
        }
        if self.bands_dimension is not None and names is not None:
            arguments["bands"] = list(names)
        if self.properties:
            arguments["properties"] = dict(self.properties)
        return PGNode("load_collection", arguments=arguments)

    def list_bands_to_load(self, names: Sequence[str]) -> list[str]:
        """Bands to load so that these have the grid of all bands: one of the finest is among them."""
        resolutions = {b.name: b.resolution for b in self.bands if b.resolution is not None}
        finest = self.finest_resolution
        if finest is None or any(resolutions.get(name, finest) == finest for name in names):
            return list(names)
        anchor = next(name for name, resolution in resolutions.items() if resolution == finest)
        return [*names, anchor]


def read_bands(metadata: Mapping[str, Any], names: Sequence[str] | None) -> tuple[Band, ...]:
    """The bands of a collection, or some of them by name or alias, in the order given."""
    described = {band["name"]: band for band in list_described_bands(metadata)}
    dimension = find_dimension(metadata, "bands")
    values = metadata.get("cube:dimensions", {}).get(dimension, {}).get("values", list(described))
    aliases = {
        alias: name
        for name, band in described.items()
        for alias in (*band.get("aliases", ()), band.get("eo:common_name"), band.get("common_name"))
        if alias
    }
    chosen = []
    for name in names or values:
        if name not in values and aliases.get(name) not in values:
            raise ValueError(f"the collection has no band {name!r}, but {', '.join(map(str, values))}")
        chosen.append(read_band(name, described.get(name) or described.get(aliases.get(name, name), {})))
    return tuple(chosen)


def list_described_bands(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Descriptions of bands from wherever STAC puts them."""
    summaries = metadata.get("summaries", {})
    bands: dict[str, dict[str, Any]] = {}
    for item in (
        *summaries.get("raster:bands", ()),
        *summaries.get("eo:bands", ()),
        *summaries.get("bands", ()),
        *metadata.get("bands", ()),
    ):
        if item.get("name"):
            bands.setdefault(item["name"], {}).update(item)
    return list(bands.values())


def read_band(name: str, description: Mapping[str, Any]) -> Band:
    """A band from its description in STAC."""
    nodata = description.get("nodata")
    attributes = {
        key.split(":")[-1]: description[key]
        for key in (
            "description",
            "unit",
            "eo:common_name",
            "common_name",
            "eo:center_wavelength",
            "center_wavelength",
        )
        if description.get(key) is not None
    }
    return Band(
        name,
        np.dtype(description.get("data_type", "float32")),
        float(nodata) if isinstance(nodata, int | float) else np.nan if nodata == "nan" else None,
        float(description.get("raster:scale", description.get("scale", 1)) or 1),
        float(description.get("raster:offset", description.get("offset", 0)) or 0),
        description.get(
            "gsd",
            description.get("openeo:gsd", {}).get("value")
            if isinstance(description.get("openeo:gsd"), Mapping)
            else None,
        ),
        attributes,
    )


def find_dimension(metadata: Mapping[str, Any], kind: str, axis: str | None = None) -> str | None:
    """The name of the dimension of a type, and of an axis if it is a spatial one."""
    for name, dimension in metadata.get("cube:dimensions", {}).items():
        if dimension.get("type") == kind and (axis is None or dimension.get("axis") == axis):
            return str(name)
    return None


def read_axes(source: Source, metadata: Mapping[str, Any]) -> tuple[Axis, ...]:
    """The dimensions with labels, but for the bands: time first, then y and x, then others."""
    names = {
        "time": find_dimension(metadata, "temporal"),
        "y": find_dimension(metadata, "spatial", "y"),
        "x": find_dimension(metadata, "spatial", "x"),
    }
    axes = [
        Axis(name, read_labels(source, metadata, name, kind), kind) for kind, name in names.items() if name
    ]
    used = {*names.values(), source.bands_dimension}
    others = [n for n in metadata.get("cube:dimensions", {}) if n not in used]
    return (*axes, *(Axis(n, read_labels(source, metadata, n, "other"), "other") for n in others))


def read_labels(source: Source, metadata: Mapping[str, Any], dimension: str, kind: str) -> np.ndarray:
    """The labels of a dimension: the back-end says them without reading pixels, or the metadata do.

    Raises:
        LabelsUnknown: nobody says them.
    """
    for name in (dimension, kind):
        if source.labels is not None and name in source.labels:
            labels = np.asarray(source.labels[name])
            return labels.astype("datetime64[ns]") if kind == "time" else labels
    names = [band.name for band in source.bands]
    if is_local(source.connection):
        return np.asarray(execute(source.connection, source.load(names))[dimension].values)
    graph = call("dimension_labels", data=source.load(names), dimension=dimension)
    try:
        labels = execute(source.connection, graph)
    except OpenEoRestError:
        if has_process(source.connection, "dimension_labels"):
            raise
        return find_declared_labels(source, metadata, dimension, kind)
    if kind != "time":
        return np.asarray(labels)
    return np.array([str(label).removesuffix("Z") for label in labels], "datetime64[ns]")


def has_process(connection: Any, process: str) -> bool:
    """Whether a back-end lists a process."""
    return any(p.get("id") == process for p in connection.list_processes())


def execute(connection: Any, graph: PGNode) -> Any:
    """The value of a process graph, without a validation before, which would be a request of its own."""
    if is_local(connection):
        return connection.execute(graph.flat_graph())
    return connection.execute(graph.flat_graph(), validate=False)


def is_local(connection: Any) -> bool:
    """Whether process graphs run in this process and give lazy xarray objects, as by `openeo.local`."""
    return connection is not None and not hasattr(connection, "download")


def find_crs(source: Source, metadata: Mapping[str, Any], axes: Sequence[Axis]) -> Any:
    """The EPSG code of x and y, from the metadata, the extent, or the file of a single pixel."""
    extent = source.spatial_extent or {}
    coordinates = {axis.kind: axis.labels for axis in axes}
    if {"x", "y"} - set(coordinates):
        return None
    if extent.get("crs") and _contains(extent, coordinates):
        return extent["crs"]
    summaries = metadata.get("summaries", {})
    codes = [*summaries.get("proj:code", ()), *summaries.get("proj:epsg", ())]
    if len(codes) == 1:
        return int(str(codes[0]).split(":")[-1])
    from openeo_xarray.request import read_crs

    return read_crs(source, axes)


def _contains(extent: Mapping[str, Any], coordinates: Mapping[str, np.ndarray]) -> bool:
    """Whether all pixels are in or at a bounding box that has their reference system."""
    for kind, low, high in (("x", "west", "east"), ("y", "south", "north")):
        labels = coordinates[kind]
        step = abs(float(labels[1] - labels[0])) if len(labels) > 1 else 0.0
        if labels.min() < extent[low] - step or labels.max() > extent[high] + step:
            return False
    return True
