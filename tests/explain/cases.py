"""Calls of the processes that have no official test vectors, on small cubes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import shapely
import xarray as xr
import xvec  # noqa: F401  (registers the accessor)
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo.cube import COMMON_NAME, WAVELENGTH
from tests.support.graphs import child, value

GRID: Final = GeoBox.from_bbox((600000, 5199880, 600120, 5200000), "EPSG:32632", resolution=10)
COARSE: Final = GeoBox.from_bbox((600000, 5199880, 600120, 5200000), "EPSG:32632", resolution=40)
DATA: Final = value("data")
BANDS: Final = ("B04", "B08", "SCL")


def make_cube(
    times: int = 4, bands: tuple[str, ...] = BANDS, grid: GeoBox = GRID, step: str = "12D", seed: int = 1
) -> xr.DataArray:
    """A cube of floats with some gaps."""
    shape = (times, len(bands), *grid.shape.yx)
    values = np.random.default_rng(seed).uniform(1, 100, shape).round(2).astype("float32")
    values[:, :, :2, :3] = np.nan
    labels = pd.date_range("2021-11-20T10:00", periods=times, freq=step).values.astype("datetime64[ns]")
    coords = {"t": labels, "bands": list(bands), **xr_coords(grid, dims=("y", "x"))}
    data = xr.DataArray(values, dims=("t", "bands", "y", "x"), coords=coords)
    if bands == BANDS:
        data = data.assign_coords({COMMON_NAME: ("bands", ["red", "nir", ""])})
        data = data.assign_coords({WAVELENGTH: ("bands", [0.66, 0.84, np.nan])})
    return data


def label_months(data: xr.DataArray) -> xr.DataArray:
    """A cube of the same values whose times are the labels of consecutive months."""
    labels = pd.period_range("2021-11", periods=data.sizes["t"], freq="M").strftime("%Y-%m")
    return data.assign_coords(t=labels.to_numpy().astype(str))


def make_integers() -> xr.DataArray:
    """A cube of integers with a no-data value."""
    values = np.random.default_rng(3).integers(0, 12, (2, 1, *GRID.shape.yx)).astype("uint8")
    coords = {"t": make_cube(2).t, "bands": ["SCL"], **xr_coords(GRID, dims=("y", "x"))}
    return xr.DataArray(values, dims=("t", "bands", "y", "x"), coords=coords, attrs={"nodata": 0})


def make_heights() -> xr.DataArray:
    return make_cube(1, ("height",)).isel(t=0, drop=True)


def make_feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(geometry)}


def collect(*features: Mapping[str, Any], crs: str | None = "EPSG:32632") -> dict[str, Any]:
    declared = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    return {"type": "FeatureCollection", "features": list(features), **declared}


TRIANGLE: Final = shapely.Polygon([(600013, 5199890), (600071, 5199893), (600033, 5199977)])
SQUARE: Final = shapely.box(600061, 5199951, 600103, 5199992)
ZONES: Final = collect(make_feature(TRIANGLE, target=1.5), make_feature(SQUARE, target=4.0))
DEGREES: Final = collect(make_feature(shapely.box(10.3155, 46.9415, 10.3159, 46.9419)), crs=None)
MIXED: Final = collect(
    make_feature(shapely.Point(600055, 5199915)),
    make_feature(shapely.LineString([(600003, 5199903), (600088, 5199985)])),
    make_feature(SQUARE),
)
STATES: Final = collect(*(make_feature(shapely.box(i, i, i + 1, i + 2), a=i, b=2.5 * i) for i in range(4)))


def make_vectors(properties: tuple[str, ...] = ("a", "b", "c"), count: int = 12) -> xr.DataArray:
    """A vector cube with some properties."""
    random = np.random.default_rng(4)
    shapes = shapely.points(random.uniform(600000, 600120, count), random.uniform(5199880, 5200000, count))
    values = random.uniform(0, 10, (count, len(properties)))
    coords = {"geometry": shapes, "properties": list(properties)}
    data = xr.DataArray(values, dims=("geometry", "properties"), coords=coords)
    return data.xvec.set_geom_indexes("geometry", crs="EPSG:32632")


def make_graph(**nodes: Any) -> dict[str, Any]:
    """A child process of several nodes, the last one being its result."""
    *_, last = nodes
    graph = {name: {"process_id": id_, "arguments": arguments} for name, (id_, arguments) in nodes.items()}
    graph[last]["result"] = True
    return {"process_graph": graph}


def refer(node: str) -> dict[str, str]:
    return {"from_node": node}


LINE: Final = make_graph(
    slope=("array_element", {"data": value("parameters"), "index": 1}),
    rise=("multiply", {"x": refer("slope"), "y": value("x")}),
    offset=("array_element", {"data": value("parameters"), "index": 0}),
    sum=("add", {"x": refer("offset"), "y": refer("rise")}),
)
SPREAD: Final = make_graph(
    low=("min", {"data": DATA}),
    high=("max", {"data": DATA}),
    range=("subtract", {"x": refer("high"), "y": refer("low")}),
)
CLOUD_BANDS: Final = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")

CASES: Final[dict[str, list[dict[str, Any]]]] = {
    "add_dimension": [{"data": make_cube(), "name": "source", "label": "a", "type": "other"}],
    "apply_kernel": [{"data": make_cube(), "kernel": [[0, 1, 0], [1, 2, 1], [0, 1, 0]], "factor": 0.25}],
    "array_create_labeled": [{"data": [1, 2], "labels": ["a", "b"]}],
    "create_data_cube": [{}],
    "drop_dimension": [{"data": make_cube(1), "name": "t"}],
    "nan": [{}],
    "rename_dimension": [{"data": make_cube(), "source": "bands", "target": "b"}],
    "rename_labels": [{"data": make_cube(), "dimension": "bands", "target": ["red"], "source": [BANDS[0]]}],
    "reduce_spatial": [
        {"data": make_cube(), "reducer": child("median", data=DATA)},
        {"data": make_cube(), "reducer": SPREAD},
    ],
    "climatological_normal": [
        {"data": make_cube(60, step="15D"), "period": period, "climatology_period": [2022, 2023]}
        for period in ("month", "climatology-period", "day", "season", "tropical-season")
    ]
    + [
        {"data": label_months(make_cube(30)), "period": period, "climatology_period": [2022, 2023]}
        for period in ("month", "season", "climatology-period")
    ],
    "anomaly": [
        {
            "data": make_cube(3),
            "normals": make_cube(1).assign_coords(t=["all"]),
            "period": "climatology-period",
        },
        {
            "data": label_months(make_cube(4)),
            "normals": make_cube(12, seed=2).assign_coords(t=[f"{month:02d}" for month in range(1, 13)]),
            "period": "month",
        },
    ],
    "cloud_detection": [{"data": make_cube(2, CLOUD_BANDS) / 150, "method": "s2cloudless"}],
    "convert_data_type": [
        {"data": make_cube() * 3, "data_type": "uint8"},
        {"data": make_integers(), "data_type": "float64"},
        {"data": make_cube() - 50, "data_type": "int16"},
    ],
    "trim_cube": [
        {"data": make_cube().where(make_cube().x > 600030).where(make_cube().t > make_cube().t[0])}
    ],
    "flatten_dimensions": [
        {"data": make_cube(), "dimensions": ["t", "bands"], "target_dimension": "both"},
        {
            "data": make_cube(2),
            "dimensions": ["bands", "t"],
            "target_dimension": "both",
            "label_separator": "/",
        },
    ],
    "unflatten_dimension": [
        {
            "data": make_cube(1, ("a~1", "a~2", "b~1", "b~2")),
            "dimension": "bands",
            "target_dimensions": ["letter", "number"],
        }
    ],
    "filter_bands": [
        {"data": make_cube(), "bands": ["nir", "B04"]},
        {"data": make_cube(), "wavelengths": [[0.8, 0.9]]},
    ],
    "filter_labels": [
        {
            "data": make_cube(),
            "dimension": "bands",
            "condition": child("text_begins", data=value("value"), pattern="B"),
        },
        {
            "data": make_cube(),
            "dimension": "t",
            "condition": child("date_between", x=value("value"), min="2021-12-01", max="2021-12-20"),
        },
    ],
    "filter_vector": [
        {"data": make_vectors(), "geometries": ZONES},
        {"data": make_vectors(), "geometries": ZONES, "relation": "disjoint"},
    ],
    "apply_polygon": [
        {"data": make_cube(), "geometries": ZONES, "process": child("multiply", x=DATA, y=2)},
        {"data": make_cube(), "geometries": DEGREES, "process": child("add", x=DATA, y=2), "mask_value": 7},
    ],
    "chunk_polygon": [{"data": make_cube(), "chunks": ZONES, "process": child("subtract", x=DATA, y=2)}],
    "ndvi": [{"data": make_cube()}, {"data": make_cube(), "target_band": "index"}],
    "aggregate_spatial_window": [
        {"data": make_cube(), "size": [3, 4], "reducer": child("mean", data=DATA)},
        {"data": make_cube(), "size": [5, 7], "reducer": SPREAD, "align": "lower-right"},
        {"data": make_cube(), "size": [5, 7], "reducer": child("sum", data=DATA), "boundary": "trim"},
    ],
    "predict_random_forest": [],
    "mask": [
        {"data": make_cube(), "mask": make_cube(seed=2) > 50},
        {"data": make_cube(), "mask": make_heights() > 50, "replacement": -1},
        {"data": make_cube(), "mask": make_cube(1, ("m",), COARSE).isel(t=0, bands=0, drop=True) > 60},
    ],
    "apply_neighborhood": [
        {
            "data": make_cube(),
            "process": child("multiply", x=DATA, y=3),
            "size": [{"dimension": d, "value": 5, "unit": "px"} for d in ("x", "y")],
            "overlap": [{"dimension": d, "value": 2, "unit": "px"} for d in ("x", "y")],
        },
        {
            "data": make_cube(),
            "process": child("cumsum", data=DATA),
            "size": [{"dimension": d, "value": 1, "unit": "px"} for d in ("x", "y", "bands")],
        },
    ],
    "load_geojson": [{"data": STATES}, {"data": STATES, "properties": ["b", "a"]}, {"data": ZONES}],
    "vector_buffer": [{"geometries": ZONES, "distance": 5}, {"geometries": make_vectors(), "distance": 2.5}],
    "vector_reproject": [{"data": make_vectors(), "projection": 4326}, {"data": ZONES, "projection": 3857}],
    "vector_to_random_points": [
        {"data": ZONES, "geometry_count": 3, "seed": 5},
        {"data": MIXED, "total_count": 7, "seed": 5, "group": False},
    ],
    "vector_to_regular_points": [
        {"data": MIXED, "distance": 8},
        {"data": ZONES, "distance": 10, "group": False},
    ],
    "vector_to_raster": [{"data": make_vectors(), "target": make_cube()}],
    "raster_to_vector": [{"data": (make_heights() // 40)}],
    "predict_curve": [
        {
            "parameters": make_cube(1, ("1", "2"))
            .isel(t=0, drop=True)
            .rename(bands="parameters")
            .drop_vars("parameters"),
            "function": LINE,
            "dimension": "t",
            "labels": ["2022-01-01", "2022-03-01"],
        }
    ],
    "fit_curve": [
        {"data": make_cube(6, grid=COARSE), "function": LINE, "parameters": [1, 1], "dimension": "t"}
    ],
    "resample_spatial": [
        {"data": make_cube(), "resolution": 30},
        {"data": make_cube(), "resolution": 15, "method": "bilinear"},
        {"data": make_cube(), "resolution": 40, "method": "average"},
        {"data": make_cube(), "projection": 3035, "resolution": 20},
    ],
    "resample_cube_spatial": [
        {"data": make_cube(), "target": make_cube(grid=COARSE), "method": method}
        for method in ("near", "max")
    ],
    "to_scl_dilation_mask": [
        {"data": make_integers(), "kernel1_size": 5, "kernel2_size": 7},
        {"data": make_integers(), "kernel1_size": 0, "kernel2_size": 3, "erosion_kernel_size": 0},
    ],
    "mask_scl_dilation": [{"data": make_integers(), "kernel1_size": 3, "kernel2_size": 5}],
    "resample_cube_temporal": [
        {"data": make_cube(), "target": make_cube(3, step="15D")},
        {"data": make_cube(), "target": make_cube(3, step="15D"), "valid_within": 7},
        {"data": label_months(make_cube()), "target": make_cube(3, step="25D")},
        {"data": make_cube(), "target": label_months(make_cube(3)), "valid_within": 20},
    ],
    "slope": [{"data": make_heights()}],
    "aspect": [{"data": make_heights()}],
    "aggregate_spatial": [
        {"data": make_cube(), "geometries": ZONES, "reducer": child("mean", data=DATA)},
        {"data": make_cube(), "geometries": MIXED, "reducer": SPREAD},
        {
            "data": make_cube(),
            "geometries": DEGREES,
            "reducer": child("sd", data=DATA),
            "target_dimension": "what",
        },
    ],
    "filter_spatial": [
        {"data": make_cube(), "geometries": ZONES},
        {"data": make_cube(), "geometries": DEGREES},
    ],
    "mask_polygon": [
        {"data": make_cube(), "mask": ZONES, "inside": True},
        {"data": make_cube(), "mask": DEGREES, "replacement": 3},
    ],
    "apply": [
        {"data": make_cube(), "process": child("linear_scale_range", x=value("x"), inputMin=0, inputMax=100)}
    ],
    "apply_dimension": [
        {"data": make_cube(), "dimension": "t", "process": child("sort", data=DATA)},
        {
            "data": make_cube(),
            "dimension": "t",
            "process": child("quantiles", data=DATA, probabilities=[0.1, 0.9]),
            "target_dimension": "q",
        },
        {
            "data": make_cube(),
            "dimension": "t",
            "process": child("quantiles", data=DATA, probabilities=4),
            "target_dimension": "bands",
        },
        {"data": make_cube(), "dimension": "bands", "process": child("mean", data=DATA)},
    ],
    "reduce_dimension": [
        {"data": make_cube(), "dimension": "t", "reducer": SPREAD},
        {
            "data": make_cube(),
            "dimension": "t",
            "reducer": child("count", data=DATA, condition=child("gt", x=value("x"), y=50)),
        },
        {"data": make_cube(), "dimension": "bands", "reducer": child("last", data=DATA)},
    ],
    "merge_cubes": [
        {
            "cube1": make_cube(),
            "cube2": make_cube(2, ("new",), seed=2)
            .assign_coords(t=make_cube(4).t[:2])
            .reindex(t=make_cube().t),
        },
        {
            "cube1": make_cube(),
            "cube2": make_cube(6, seed=2),
            "overlap_resolver": child("max", data=[value("x"), value("y")]),
        },
        {
            "cube1": make_cube(),
            "cube2": make_heights().isel(bands=0, drop=True),
            "overlap_resolver": child("subtract", x=value("x"), y=value("y")),
        },
        {
            "cube1": make_cube(),
            "cube2": make_cube(grid=COARSE),
            "overlap_resolver": child("mean", data=[value("x"), value("y")]),
        },
    ],
    "aggregate_temporal_period": [
        {"data": make_cube(7, step="17D"), "period": period, "reducer": child(reducer, data=DATA)}
        for period, reducer in [
            ("day", "max"),
            ("week", "mean"),
            ("dekad", "count"),
            ("month", "median"),
            ("season", "sum"),
            ("tropical-season", "first"),
            ("year", "sd"),
            ("decade", "min"),
            ("decade-ad", "product"),
            ("hour", "last"),
        ]
    ]
    + [
        {"data": label_months(make_cube(14)), "period": period, "reducer": child(reducer, data=DATA)}
        for period, reducer in [("season", "mean"), ("year", "max"), ("tropical-season", "sum")]
    ],
    "aggregate_temporal": [
        {
            "data": make_cube(),
            "intervals": [
                ["2021-11-01", "2021-12-05"],
                ["2021-12-05", "2022-01-30"],
                ["2024-01-01", "2025-01-01"],
            ],
            "reducer": child("mean", data=DATA),
        },
        {
            "data": label_months(make_cube()),
            "intervals": [["2021-11-01", "2021-12-05"], ["2021-12-05", "2022-01-30"]],
            "reducer": child("max", data=DATA),
        },
    ],
    "filter_bbox": [
        {
            "data": make_cube(),
            "extent": {"west": 600022, "east": 600077, "south": 5199893, "north": 5199951, "crs": 32632},
        }
    ],
    "filter_temporal": [{"data": make_cube(), "extent": ["2021-12-02", None]}],
    "dimension_labels": [{"data": make_cube(), "dimension": "t"}],
    "if": [{"value": make_cube() > 30, "accept": make_cube(seed=2), "reject": None}],
}
"""Arguments by process; cubes among them become parameters of the graph."""


def make_process(process_id: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A process of one node, and the parameters that hold its cubes."""
    cubes = {name: v for name, v in arguments.items() if isinstance(v, xr.DataArray | xr.Dataset)}
    plain = {name: v for name, v in arguments.items() if name not in cubes}
    node = {"process_id": process_id, "arguments": {**plain, **{n: value(n) for n in cubes}}, "result": True}
    return {"process_graph": {"it": node}}, cubes
