"""The cubes and arrays that generated graphs start from: tiny, of every kind, made without an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.cube import LabeledArray
from odc_openeo.graph import evaluate

TIMES = ["2022-01-03", "2022-01-13T10:00:00", "2022-06-05"]
RING = [[10.27, 45.14], [10.2702, 45.14], [10.27, 45.1402], [10.27, 45.14]]
WEST, NORTH = 600_000, 5_000_000


def _feature(shape: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": shape, "properties": properties}


POLYGON = {"type": "Polygon", "coordinates": [RING]}
FEATURES = {
    "type": "FeatureCollection",
    "features": [
        _feature(POLYGON, a=1, b="x"),
        _feature({"type": "Point", "coordinates": RING[0]}, a=None, b=[1, 2]),
        _feature({"type": "LineString", "coordinates": RING[:3]}, a=2.5),
    ],
}
NULLS = {"type": "FeatureCollection", "features": [_feature(None, a=1), _feature(POLYGON, a=2)]}
EMPTY = {"type": "FeatureCollection", "features": []}


_REPROJECT = {
    "process_id": "vector_reproject",
    "arguments": {"data": {"from_parameter": "data"}, "projection": 32632},
}


def make_sources() -> dict[str, Any]:
    """Make the values of the outer parameters of generated graphs, by name."""
    rng = np.random.default_rng(1)
    geobox = GeoBox((5, 6), Affine(10, 0, WEST, 0, -10, NORTH), "EPSG:32632")
    floats = _make_raster(rng.normal(size=(3, 2, 5, 6)), geobox)
    floats = floats.where(floats < 1)
    integers = _make_raster(rng.integers(0, 9, (3, 2, 5, 6)).astype("uint16"), geobox)
    integers.attrs["nodata"] = 0
    loaded = integers.assign_coords(
        common_name=("bands", ["red", "nir"]), center_wavelength=("bands", [0.66, 0.84])
    )
    mixed = integers.assign_coords(nodata=("bands", np.array([0, 8], "uint16")))
    mixed.attrs.pop("nodata")
    return {
        "floats": floats.chunk(dict.fromkeys(floats.dims, 2)),
        "integers": loaded.chunk(x=3, y=3),
        "mixed": mixed.chunk(t=1),
        "eager": floats.astype("float32"),
        "image": integers.isel(t=0, bands=0, drop=True).chunk(x=3),
        "booleans": (floats > 0).isel(bands=0, drop=True),
        "vectors": _make_vectors(FEATURES, ["a"]),
        "shapes": _make_vectors(FEATURES, []),
        "nulls": _make_vectors(NULLS, ["a"]),
        "fields": evaluate(
            {"process_graph": {"reproject": {**_REPROJECT, "result": True}}},
            parameters={"data": _make_vectors(FEATURES, ["a"])},
        ),
        "labelled": LabeledArray(["a", "b", "c"], [1, None, 2.5]),
        "dated": LabeledArray([f"{day}T00:00:00Z" for day in ("2022-01-01", "2022-01-02")], [1, 2]),
    }


CUBES = ("floats", "integers", "mixed", "eager", "image", "booleans")
VECTORS = ("fields", "vectors", "shapes", "nulls")
ARRAYS = ("labelled", "dated")


def _make_raster(values: np.ndarray, geobox: GeoBox) -> xr.DataArray:
    coords = xr_coords(geobox, crs_coord_name="spatial_ref", always_yx=True)
    named = {"t": np.array(TIMES, "datetime64[ns]"), "bands": ["B04", "B08"]}
    return xr.DataArray(values, dims=("t", "bands", "y", "x"), coords={**named, **coords})


def _make_vectors(data: dict[str, Any], properties: list[str]) -> Any:
    node = {"process_id": "load_geojson", "arguments": {"data": data, "properties": properties}}
    return evaluate({"process_graph": {"load": {**node, "result": True}}})
