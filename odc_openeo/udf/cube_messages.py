"""Cubes as messages to and from the interpreter of user code: a description in JSON, and plain arrays.

What comes back was written by user code, so that nothing in it is taken for granted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.coordinates import RESERVED
from odc_openeo.errors import RequestInvalid, UdfResultInvalid
from odc_openeo.untrusted.reference_systems import CrsRefusedError, parse_crs
from odc_openeo.untrusted.strict_json import MOST_DEPTH, is_deeper_than, parse_json

MOST_DIMENSIONS: Final = 16
MOST_LABELS: Final = 1_000_000
LONGEST_NAME: Final = 256
SHOWN_LABELS: Final = 20
NUMBERS: Final = "biuf"

Labels = np.ndarray
"""The labels of a dimension: numbers, times (``datetime64[ns]``) or strings (objects)."""


@dataclass(frozen=True)
class PlainCube:
    """Values with the names, openEO types and labels of their dimensions, without xarray.

    A dimension without labels is missing in ``labels``; ``features`` has the geometries of a vector cube.
    """

    values: np.ndarray
    dims: tuple[str, ...]
    labels: Mapping[str, Labels] = field(default_factory=dict)
    features: gpd.GeoDataFrame | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by dimension."""
        return dict(zip(self.dims, self.values.shape, strict=True))

    def describe(self) -> str:
        """Describe dimensions, sizes and type in a few words."""
        return f"{describe_sizes(self.sizes)} of {self.values.dtype}"


def describe_sizes(sizes: Mapping[str, int]) -> str:
    """Describe dimensions and sizes, such as ``(t: 3, y: 512, x: 512)``."""
    return f"({', '.join(f'{name}: {size}' for name, size in sizes.items())})"


# --- To user code --------------------------------------------------------------------------------


def get_plain_labels(data: xr.DataArray, dimension: str) -> Labels | None:
    """Return the labels of a dimension as user code gets them: geometries are numbered."""
    if dimension not in data.coords:
        return None
    labels = data.coords[dimension].values
    if labels.dtype.kind == "M":
        return labels.astype("datetime64[ns]")
    if labels.dtype.kind in "iuf":
        return labels
    if cube.dimension_type(data, dimension) == "geometry":
        return np.arange(labels.size)
    return np.array([str(label) for label in labels.tolist()], dtype=object)


def encode_cube(
    data: PlainCube, types: Mapping[str, str], attrs: Mapping[str, str], arrays: list[np.ndarray]
) -> dict[str, Any]:
    """Describe a cube; its values and labels are appended to ``arrays``."""
    # In any order: they are copied once, into shared memory.
    arrays.append(data.values)
    return {
        "kind": "cube",
        "array": len(arrays) - 1,
        "dims": list(data.dims),
        "types": [types.get(name, "other") for name in data.dims],
        "coords": {name: _encode_labels(labels, arrays) for name, labels in data.labels.items()},
        "extents": {name: _find_extent(labels) for name, labels in data.labels.items()},
        "attrs": dict(attrs),
    }


def _encode_labels(labels: Labels, arrays: list[np.ndarray]) -> dict[str, Any]:
    if labels.dtype.kind not in "iufM":
        return {"list": labels.tolist()}
    is_time = labels.dtype.kind == "M"
    arrays.append(np.ascontiguousarray(labels.view("int64") if is_time else labels))
    return {"array": len(arrays) - 1, **({"times": True} if is_time else {})}


def _find_extent(labels: Labels) -> list[Any] | None:
    """The first and the last label in order, for the metadata of the client."""
    if labels.dtype.kind not in "iufM" or not labels.size:
        return None
    return cube.json_labels(np.array([labels.min(), labels.max()]))


def encode_features(frame: gpd.GeoDataFrame, arrays: list[np.ndarray]) -> dict[str, Any]:
    """Describe geometries and their properties; they are appended to ``arrays`` as WKB and as JSON."""
    parts = [bytes(part) for part in frame.geometry.to_wkb()]
    columns = {
        str(name): [_as_json(v) for v in frame[name].tolist()]
        for name in frame.columns.drop(frame.geometry.name)
    }
    arrays.append(np.frombuffer(b"".join(parts), dtype=np.uint8))
    arrays.append(np.cumsum([len(part) for part in parts], dtype=np.int64))
    arrays.append(np.frombuffer(json.dumps(columns).encode(), dtype=np.uint8))
    first = len(arrays) - 3
    crs = None if frame.crs is None else frame.crs.to_wkt()
    return {"kind": "features", "array": first, "ends": first + 1, "properties": first + 2, "crs": crs}


def _as_json(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)


# --- From user code ------------------------------------------------------------------------------


def decode_outputs(header: Mapping[str, Any], arrays: Sequence[np.ndarray], kind: str) -> list[Any]:
    """Decode all outputs of a kind: `PlainCube`, frames (``features``) or JSON values (``json``).

    Raises:
        UdfResultInvalid: one of them is not valid.
    """
    decoders = {"cube": _decode_cube, "features": _decode_features, "json": _decode_json}
    outputs = header.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        raise UdfResultInvalid(reason="its description is damaged.")
    try:
        return [decoders[kind](output, arrays) for output in outputs if output.get("kind") == kind]
    except (LookupError, TypeError, ValueError, RecursionError, RequestInvalid, CrsRefusedError) as error:
        raise UdfResultInvalid(reason=f"it can't be read ({type(error).__name__}: {error}).") from error


def _decode_cube(description: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> PlainCube:
    values = _get_array(arrays, description["array"])
    dims = tuple(description["dims"])
    if len(dims) > MOST_DIMENSIONS or not all(_is_name(name) for name in dims) or len(set(dims)) < len(dims):
        raise ValueError("the names of the dimensions are not valid")
    if len(dims) != values.ndim or values.dtype.kind not in NUMBERS:
        raise ValueError("values and dimensions do not fit each other")
    coords = description["coords"]
    sizes = dict(zip(dims, values.shape, strict=True))
    labels = {name: _decode_labels(coords[name], arrays, sizes[name]) for name in dims if name in coords}
    return PlainCube(values, dims, labels)


def _is_name(name: Any) -> bool:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        return False
    return name not in RESERVED and not name.startswith("__") and "/" not in name


def is_announcement(item: Any) -> bool:
    """Return whether this is a dimension that user code announces: its name, and labels or None."""
    if not isinstance(item, list) or len(item) != 2 or not _is_name(item[0]):
        return False
    labels = item[1]
    if labels is None:
        return True
    is_list = isinstance(labels, list) and len(labels) <= MOST_LABELS and _are_texts(labels)
    return is_list and len(set(labels)) == len(labels)


def _are_texts(labels: Any) -> bool:
    return all(isinstance(label, str) and len(label) <= LONGEST_NAME for label in labels)


def list_labels(labels: Sequence[str]) -> str:
    """List labels for a message: the first ones, if there are many."""
    return ", ".join([*labels[:SHOWN_LABELS], *(["…"] if len(labels) > SHOWN_LABELS else [])])


def _decode_labels(labels: Mapping[str, Any], arrays: Sequence[np.ndarray], size: int) -> Labels:
    if "list" in labels:
        texts = labels["list"]
        if not _are_texts(texts):
            raise ValueError("labels must be numbers, times or short strings")
        values = np.array(texts, dtype=object)
    else:
        values = _get_array(arrays, labels["array"])
        if labels.get("times"):
            values = np.ascontiguousarray(values, dtype=np.int64).view("datetime64[ns]")
    if values.dtype == object and len(set(values.tolist())) < values.size:
        raise ValueError(f"labels must differ from each other: {list_labels(values.tolist())}")
    if values.shape != (size,):
        raise ValueError(f"there are {values.size} labels for {size} values of a dimension")
    if size > MOST_LABELS or (values.dtype.kind in "fM" and bool((values != values).any())):
        raise ValueError("labels must not be NaN or NaT, nor more than a million")
    return values


def _get_array(arrays: Sequence[np.ndarray], number: Any) -> np.ndarray:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(arrays):
        raise ValueError("an array is missing")
    return arrays[number]


def _decode_json(description: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Any:
    value = parse_json(_get_array(arrays, description["array"]).tobytes().decode())
    if is_deeper_than(value):
        raise ValueError(f"it has more than {MOST_DEPTH} lists or objects in each other")
    return value


def _decode_features(description: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> gpd.GeoDataFrame:
    content = _get_array(arrays, description["array"]).tobytes()
    ends = _get_array(arrays, description["ends"]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    if ends.ndim != 1 or (ends < starts).any() or (ends.size and ends[-1] != len(content)):
        raise ValueError("the geometries are damaged")
    parts = [content[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    shapes = shapely.from_wkb(parts, on_invalid="raise")
    columns = _decode_json({"array": description["properties"]}, arrays)
    if not isinstance(columns, dict) or not all(
        _is_name(name) and isinstance(column, list) and len(column) == len(parts)
        for name, column in columns.items()
    ):
        raise ValueError("the properties of the geometries are damaged")
    crs = None if description["crs"] is None else parse_crs(str(description["crs"]))
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)
