"""Run a user-defined function: decode what it gets, call it as the openEO client does, encode its result.

This file runs in an interpreter without this package: it imports only the standard library, numpy, pandas,
xarray and the ``openeo`` client. Nothing in it trusts or restricts user code; the sandbox around it does.

The header of a call has ``call`` (``run`` or ``metadata``), ``context``, ``proj`` and ``inputs``; that of a
reply has ``outputs``. Inputs and outputs are objects with a ``kind``: ``cube``, ``features`` or ``json``.
Arrays are referred to by their number.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

MOST_ENTRIES = 1000
"""Log entries of one call; the others are only counted."""
LONGEST_MESSAGE = 10_000
MOST_ITEMS = 100
SILENT_LOGGERS = ("openeo.udf.run_code", "openeo.udf._compat")
"""Loggers of the client that tell users nothing about their function."""

Header = dict[str, Any]
Arrays = list[np.ndarray]


def prepare() -> None:
    """Import what functions are called with, so that the first call does not wait for it."""
    install_old_names()


def dispatch(code: str, header: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> tuple[Header, Arrays]:
    """Carry out a call of user code.

    Args:
        code: the source of the user-defined function.
        header: describes the inputs.
        arrays: the arrays that the header refers to.

    Returns:
        The header of the reply and its arrays.

    Raises:
        Exception: whatever user code raises, and errors of the client if there is no function to call.
    """
    install_old_names()
    if header["call"] == "metadata":
        return {"dimensions": find_announced_labels(code, header)}, []
    return encode_result(run_code(code, header, arrays))


def run_code(code: str, header: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Any:
    """Run the function on the inputs; return the ``UdfData`` with its results."""
    from openeo.udf import UdfData, XarrayDataCube  # noqa: PLC0415
    from openeo.udf.run_code import run_udf_code  # noqa: PLC0415

    inputs = header["inputs"]
    data = UdfData(
        proj=header.get("proj"),
        datacube_list=[XarrayDataCube(decode_cube(i, arrays)) for i in inputs if i["kind"] == "cube"],
        feature_collection_list=[decode_features(i, arrays) for i in inputs if i["kind"] == "features"],
        structured_data_list=[make_structured_data(i["value"]) for i in inputs if i["kind"] == "json"],
        user_context=header.get("context"),
    )
    return run_udf_code(code, data)


def make_structured_data(value: Any) -> Any:
    """Wrap a JSON value for user code."""
    from openeo.udf import StructuredData  # noqa: PLC0415

    return StructuredData(value)


# --- Names of earlier versions -------------------------------------------------------------------


def install_old_names() -> None:
    """Make ``openeo_udf``, the predecessor of ``openeo.udf``, importable; have series passed as such."""
    if "openeo_udf" in sys.modules:
        return
    import openeo.udf  # noqa: PLC0415
    from openeo.udf import (  # noqa: PLC0415
        feature_collection,
        run_code,
        structured_data,
        udf_data,
        udf_signatures,
    )

    run_code._apply_timeseries_xarray = apply_to_series
    api = types.ModuleType("openeo_udf.api")
    base = types.ModuleType("openeo_udf.api.base")
    for module in (udf_data, feature_collection, structured_data, udf_signatures, run_code):
        name = module.__name__.rpartition(".")[2]
        setattr(api, name, module)
        sys.modules[f"openeo_udf.api.{name}"] = module
    for name in ("UdfData", "FeatureCollection", "StructuredData"):
        setattr(base, name, getattr(openeo.udf, name))
    cubes = {"datacube": "DataCube", "hypercube": "HyperCube", "spatial_extent": "SpatialExtent"}
    for module_name, class_name in cubes.items():
        module = types.ModuleType(f"openeo_udf.api.{module_name}")
        for target in (module, base):
            setattr(target, class_name, openeo.udf.XarrayDataCube)
        setattr(api, module_name, module)
        sys.modules[module.__name__] = module
    package = types.ModuleType("openeo_udf")
    package.api, api.base = api, base  # type: ignore[attr-defined]
    sys.modules |= {"openeo_udf": package, "openeo_udf.api": api, "openeo_udf.api.base": base}


def apply_to_series(array: Any, callback: Callable[[Any], Any]) -> Any:
    """Apply a function to the series of each pixel along ``t``.

    The client passes plain arrays, though the signature promises series with the times as index.
    """
    import pandas as pd  # noqa: PLC0415

    dimension = next((d for d in ("t", "time") if d in array.dims), None)
    if dimension is None:
        raise ValueError(f"apply_timeseries needs a dimension 't'. There are only {', '.join(array.dims)}.")
    moved = array.transpose(..., dimension)
    index = array.indexes.get(dimension)
    values = moved.values.reshape(-1, moved.shape[-1])
    rows = [np.asarray(callback(pd.Series(row, index=index))) for row in values]
    wrong = next((r.shape for r in rows if r.shape != (moved.shape[-1],)), None)
    if wrong is not None:
        raise ValueError(
            f"apply_timeseries must return {moved.shape[-1]} values, not an array of shape {wrong}."
        )
    result = np.array(rows).reshape(moved.shape) if rows else moved.values
    return moved.copy(data=result).transpose(*array.dims)


# --- Metadata ------------------------------------------------------------------------------------


def find_announced_labels(code: str, header: Mapping[str, Any]) -> Any:
    """Call ``apply_metadata`` of user code: labels of the dimensions afterwards; None without the function.

    Dimensions other than bands have no labels (None).
    """
    from openeo.udf.run_code import load_module_from_string  # noqa: PLC0415

    function = load_module_from_string(code).get("apply_metadata")
    if not callable(function):
        return None
    before = make_metadata(header["inputs"][0])
    after = function(before, header.get("context") or {})
    if after is None:
        raise ValueError("apply_metadata returned None. Return the metadata.")
    return [[d.name, list(d.band_names) if d.type == "bands" else None] for d in iterate_dimensions(after)]


def iterate_dimensions(metadata: Any) -> Any:
    """Iterate over the dimensions of the metadata that user code returned."""
    dimensions = getattr(metadata, "_dimensions", None)
    if dimensions is None:
        raise ValueError(
            f"apply_metadata returned {type(metadata).__name__}. Return the metadata it was given."
        )
    return dimensions


def make_metadata(description: Mapping[str, Any]) -> Any:
    """Make the client's metadata of a cube from its description."""
    from openeo import metadata  # noqa: PLC0415

    dimensions: list[Any] = []
    for name, type_ in zip(description["dims"], description["types"], strict=True):
        labels = (description["coords"].get(name) or {}).get("list")
        if type_ == "bands":
            bands = [metadata.Band(name=str(label)) for label in labels or ()]
            dimensions.append(metadata.BandDimension(name=name, bands=bands))
        elif type_ == "temporal":
            dimensions.append(metadata.TemporalDimension(name=name, extent=description["extents"].get(name)))
        elif type_ == "spatial":
            extent = description["extents"].get(name)
            dimensions.append(metadata.SpatialDimension(name=name, extent=extent))
        else:
            dimensions.append(metadata.Dimension(name=name, type=type_))
    return metadata.CollectionMetadata({}, dimensions=dimensions)


# --- Cubes, features and JSON --------------------------------------------------------------------


def decode_cube(description: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Any:
    """Make the DataArray of a description."""
    import xarray as xr  # noqa: PLC0415

    coords = {name: decode_labels(labels, arrays) for name, labels in description["coords"].items()}
    return xr.DataArray(
        arrays[description["array"]],
        dims=description["dims"],
        coords={name: (name, values) for name, values in coords.items()},
        attrs=dict(description.get("attrs") or {}),
    )


def decode_labels(labels: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Any:
    """Make the labels of a dimension: times are sent as nanoseconds since 1970."""
    if "list" in labels:
        return labels["list"]
    values = np.array(arrays[labels["array"]])
    return values.view("datetime64[ns]") if labels.get("times") else values


def encode_result(data: Any) -> tuple[Header, Arrays]:
    """Describe what user code left in a ``UdfData``."""
    arrays: Arrays = []
    cubes = [encode_cube(c.get_array(), arrays) for c in data.get_datacube_list() or ()]
    features = [encode_features(c.data, arrays) for c in data.get_feature_collection_list() or ()]
    values = data.get_structured_data_list() or ()
    documents = [{"kind": "json", "array": append_json(v.data, arrays)} for v in values]
    return {"outputs": [*cubes, *features, *documents]}, arrays


def encode_cube(array: Any, arrays: Arrays) -> dict[str, Any]:
    """Describe a DataArray; its values and labels are appended to ``arrays``."""
    values = np.asarray(array.values)
    if values.dtype == object:
        values = values.astype(float)
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise TypeError(f"the values of the result are of type {values.dtype}. Return numbers or booleans.")
    arrays.append(values)
    number = len(arrays) - 1
    coords = {str(d): encode_labels(array.coords[d].values, arrays) for d in array.dims if d in array.coords}
    return {"kind": "cube", "array": number, "dims": [str(d) for d in array.dims], "coords": coords}


def encode_labels(labels: np.ndarray, arrays: Arrays) -> dict[str, Any]:
    """Describe the labels of a dimension."""
    if labels.dtype.kind == "M":
        arrays.append(np.ascontiguousarray(labels.astype("datetime64[ns]").view("int64")))
        return {"array": len(arrays) - 1, "times": True}
    if labels.dtype.kind in "iuf" and labels.dtype.itemsize <= 8:
        arrays.append(np.ascontiguousarray(labels))
        return {"array": len(arrays) - 1}
    return {"list": [str(label) for label in labels.tolist()]}


def append_json(value: Any, arrays: Arrays) -> int:
    """Append JSON as UTF-8; return the number of its array."""
    text = json.dumps(value, default=as_json, allow_nan=True)
    arrays.append(np.frombuffer(text.encode(), dtype=np.uint8))
    return len(arrays) - 1


def as_json(value: Any) -> Any:
    """Convert values of numpy and pandas to JSON."""
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in "biuf" else str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)


def decode_features(description: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Any:
    """Make the client's feature collection; geometries are sent as WKB, one after the other."""
    import geopandas as gpd  # noqa: PLC0415
    import shapely  # noqa: PLC0415
    from openeo.udf import FeatureCollection  # noqa: PLC0415

    content, ends = arrays[description["array"]].tobytes(), arrays[description["ends"]].tolist()
    parts = [content[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    columns = json.loads(arrays[description["properties"]].tobytes())
    frame = gpd.GeoDataFrame(columns, geometry=list(shapely.from_wkb(parts)), crs=description["crs"])
    return FeatureCollection(id="geometries", data=frame)


def encode_features(frame: Any, arrays: Arrays) -> dict[str, Any]:
    """Describe a frame of geometries and their properties."""
    parts = [bytes(part) for part in frame.geometry.to_wkb()]
    arrays.append(np.frombuffer(b"".join(parts), dtype=np.uint8))
    arrays.append(np.cumsum([len(part) for part in parts], dtype=np.int64))
    columns = {
        str(name): [None if is_missing(v) else v for v in frame[name].tolist()]
        for name in frame.columns.drop(frame.geometry.name)
    }
    crs = None if frame.crs is None else frame.crs.to_wkt()
    number = len(arrays)
    return {
        "kind": "features",
        "array": number - 2,
        "ends": number - 1,
        "properties": append_json(columns, arrays),
        "crs": crs,
    }


def is_missing(value: Any) -> bool:
    """Whether a property is no value: NaN and NaT are not equal to themselves."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NaTType"


# --- Logs ----------------------------------------------------------------------------------------


class LogCollector(logging.Handler):
    """Collects what user code logs, prints and warns of while it runs, as JSON objects in ``entries``."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.entries: list[dict[str, Any]] = []
        self.dropped = 0

    def __enter__(self) -> LogCollector:
        root = logging.getLogger()
        self._before = (root.level, sys.stdout, sys.stderr, warnings.showwarning)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        root.addHandler(self)
        root.setLevel(logging.INFO)
        sys.stdout, sys.stderr = LineWriter(self, "info"), LineWriter(self, "info")
        warnings.showwarning = self._show_warning
        warnings.simplefilter("default", UserWarning)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, LineWriter):
                stream.finish_line()
        self._warnings.__exit__(*sys.exc_info())
        level, sys.stdout, sys.stderr, warnings.showwarning = self._before
        root.removeHandler(self)
        root.setLevel(level)
        if self.dropped:
            message = f"{self.dropped} more log entries of this call are left out."
            self.entries.append({"level": "warning", "message": message})

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record of user code or of a library that it uses."""
        if record.name in SILENT_LOGGERS:
            return
        code, data = getattr(record, "code", None), getattr(record, "data", None)
        more = {} if code is None else {"code": str(code)}
        if data is not None:
            more["data"] = summarize_value(data)
        levels = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))
        level = next((name for least, name in levels if record.levelno >= least), "debug")
        self.add(level, record.getMessage(), **more)

    def add(self, level: str, message: str, **more: Any) -> None:
        """Add an entry, unless there are too many."""
        if len(self.entries) >= MOST_ENTRIES:
            self.dropped += 1
            return
        self.entries.append({"level": level, "message": message[:LONGEST_MESSAGE], **more})

    def _show_warning(self, message: Any, category: Any, *_: Any, **__: Any) -> None:
        self.add("warning", f"{getattr(category, '__name__', category)}: {message}")


class LineWriter(io.TextIOBase):
    """A text stream that adds each line to the log."""

    def __init__(self, collector: LogCollector, level: str) -> None:
        self.collector, self.level, self.rest = collector, level, ""

    def writable(self) -> bool:
        """Return True: text can be written."""
        return True

    def write(self, text: str) -> int:
        """Add the lines that are complete."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.collector.add(self.level, line)
        if len(self.rest) > LONGEST_MESSAGE:
            self.finish_line()
        return len(text)

    def finish_line(self) -> None:
        """Add the line that has no end yet."""
        if self.rest.strip():
            self.collector.add(self.level, self.rest)
        self.rest = ""


def summarize_value(value: Any, depth: int = 0) -> Any:
    """Convert a value of user code to JSON for the log, shortened if it is long."""
    if value is None or isinstance(value, bool | int | str):
        return value if not isinstance(value, str) else value[:LONGEST_MESSAGE]
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, np.generic):
        return summarize_value(value.item(), depth) if value.dtype.kind in "biuf" else str(value)
    if hasattr(value, "get_array"):
        value = value.get_array()
    if hasattr(value, "dims") and hasattr(value, "dtype"):
        return {"dims": list(map(str, value.dims)), "shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, np.ndarray):
        if value.size > MOST_ITEMS:
            return {"shape": list(value.shape), "dtype": str(value.dtype)}
        return summarize_value(value.tolist(), depth)
    if depth > 5:
        return repr(value)[:MOST_ITEMS]
    if isinstance(value, Mapping):
        return {str(k): summarize_value(v, depth + 1) for k, v in list(value.items())[:MOST_ITEMS]}
    if isinstance(value, list | tuple | set):
        return [summarize_value(v, depth + 1) for v in list(value)[:MOST_ITEMS]]
    return repr(value)[:LONGEST_MESSAGE]
