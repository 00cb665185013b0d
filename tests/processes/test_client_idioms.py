"""Graphs as the Python client builds them, on cubes that carry what loads know of their bands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openeo.processes as builders
import pytest
import shapely
import xarray as xr
from openeo.extra.spectral_indices import append_index, append_indices, compute_indices
from openeo.internal.graph_building import PGNode
from openeo.metadata import Band, BandDimension, CubeMetadata, SpatialDimension, TemporalDimension
from openeo.rest.datacube import DataCube

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.graph import evaluate, validate
from tests.processes.rasters import grid, nothing_computes, raster

NAMES = ("B02", "B04", "B08", "SCL")
VALUES = np.random.default_rng(0).integers(1, 4000, (3, 4, 6, 7)).astype("uint16")


def sentinel(**options: Any) -> xr.DataArray:
    """A cube as of a collection of Sentinel-2; with a no-data value for each band if these differ."""
    data = raster(VALUES, grid(6, 7), {"t": 1}, **options).assign_coords(bands=list(NAMES))
    common = np.array(["blue", "red", "nir", ""])
    return data.assign_coords(common_name=("bands", common))


LOADS = [
    sentinel(nodata=0),
    sentinel(),
    sentinel().assign_coords(nodata=("bands", np.array([0, 0, 0, 255], "uint16"))),
]


def build_cube() -> DataCube:
    """The cube of a client that loads a collection, without any server."""
    axes = [SpatialDimension(name=n, extent=[]) for n in ("x", "y")]
    bands = BandDimension(name="bands", bands=[Band(name=n) for n in NAMES])
    metadata = CubeMetadata(dimensions=[*axes, TemporalDimension(name="t", extent=[]), bands])
    return DataCube(PGNode("load_collection", id="S2"), connection=None, metadata=metadata)


def run_on(data: xr.DataArray, build: Callable[[DataCube], DataCube]) -> xr.DataArray:
    """Evaluate what a client builds, with the data in place of the collection."""
    nodes = build(build_cube()).flat_graph()
    (load,) = (id_ for id_, node in nodes.items() if node["process_id"] == "load_collection")
    nodes[load] = {**nodes[load], "process_id": "constant", "arguments": {"x": {"from_parameter": "data"}}}
    process = {"process_graph": nodes}
    assert validate(process, {"data": data}) == []
    with nothing_computes():
        return evaluate(process, parameters={"data": data})


def ndvi() -> np.ndarray:
    red, nir = VALUES[:, 1].astype(float), VALUES[:, 2].astype(float)
    return (nir - red) / (nir + red)


@pytest.mark.parametrize("data", LOADS)
def test_indices_are_appended(data: xr.DataArray) -> None:
    result = run_on(data, lambda cube: append_indices(cube, ["NDVI", "EVI"], platform="SENTINEL2"))
    assert result.bands.values.tolist() == [*NAMES, "NDVI", "EVI"]
    np.testing.assert_array_equal(result.isel(bands=slice(0, 3)).values, VALUES[:, :3])
    np.testing.assert_allclose(result.sel(bands="NDVI").values, ndvi(), rtol=1e-4, atol=1e-6)
    one = run_on(data, lambda cube: append_index(cube, "NDVI", platform="SENTINEL2"))
    assert one.bands.values.tolist() == [*NAMES, "NDVI"]
    only = run_on(data, lambda cube: compute_indices(cube, ["NDVI"], platform="SENTINEL2"))
    assert only.bands.values.tolist() == ["NDVI"]
    np.testing.assert_allclose(only.isel(bands=0).values, ndvi(), rtol=1e-4, atol=1e-6)


def normalize(data: Any) -> Any:
    return (data["B08"] - data["B04"]) / (data["B08"] + data["B04"])


@pytest.mark.parametrize("data", LOADS)
def test_values_are_joined_to_the_bands(data: xr.DataArray) -> None:
    joined = [
        lambda bands: builders.array_append(bands, normalize(bands), "NDVI"),
        lambda bands: builders.array_append(bands, normalize(bands)),
        lambda bands: builders.array_modify(bands, [normalize(bands)], index=len(NAMES), length=1),
    ]
    for process in joined:
        result = run_on(data, lambda cube, p=process: cube.apply_dimension(process=p, dimension="bands"))
        assert result.bands.values.tolist() == list(range(len(NAMES) + 1))
        np.testing.assert_allclose(result.isel(bands=-1).values, ndvi(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(result.isel(bands=slice(0, 3)).values, VALUES[:, :3])
    constant = run_on(
        data,
        lambda cube: cube.apply_dimension(
            process=lambda bands: builders.array_concat(bands, [1]), dimension="bands"
        ),
    )
    assert (constant.isel(bands=-1).values == 1).all()
    assert constant.coords.keys() <= {"t", "bands", "y", "x", "spatial_ref"}


@pytest.mark.parametrize("data", LOADS)
def test_an_index_in_place_of_the_bands(data: xr.DataArray) -> None:
    result = run_on(
        data,
        lambda cube: cube.apply_dimension(process=normalize, dimension="bands").rename_labels(
            "bands", target=["NDVI"]
        ),
    )
    assert result.bands.values.tolist() == ["NDVI"]
    np.testing.assert_allclose(result.isel(bands=0).values, ndvi(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("data", LOADS)
def test_features_over_time_in_place_of_the_bands(data: xr.DataArray) -> None:
    """Quantiles of each band, one band after the other."""
    features = [f"{name}_{part}" for name in NAMES for part in ("p25", "p50", "p75")]
    result = run_on(
        data,
        lambda cube: cube.apply_dimension(
            process=lambda series: builders.quantiles(series, probabilities=[0.25, 0.5, 0.75]),
            dimension="t",
            target_dimension="bands",
        ).rename_labels("bands", target=features),
    )
    assert result.dims == ("bands", "y", "x")
    assert result.bands.values.tolist() == features
    expected = np.quantile(VALUES.astype(float), [0.25, 0.5, 0.75], axis=0)
    expected = expected.swapaxes(0, 1).reshape(-1, *VALUES.shape[2:])
    last = -3 if "nodata" in data.coords else None
    np.testing.assert_allclose(result.values[:last], expected[:last], rtol=1e-6)


@pytest.mark.parametrize("data", LOADS)
def test_masks_from_one_band(data: xr.DataArray) -> None:
    result = run_on(data, lambda cube: cube.mask(cube.filter_bands(["SCL"]).apply(lambda x: x > 2000)))
    marked = np.broadcast_to(VALUES[:, 3:] > 2000, VALUES.shape)
    missing = result.isnull().values if result.dtype.kind == "f" else result.values == 0
    np.testing.assert_array_equal(missing[:, :3], marked[:, :3])


@pytest.mark.parametrize("data", LOADS)
def test_polygons_of_shapely(data: xr.DataArray) -> None:
    polygon = shapely.box(11.3, 46.4, 11.4, 46.6)
    result = run_on(
        data,
        lambda cube: cube.apply_polygon(
            geometries=polygon, process=lambda data: data.apply(lambda x: x.multiply(2))
        ),
    )
    np.testing.assert_array_equal(result.values[:, :3], VALUES[:, :3] * 2.0)


def test_curves_of_the_client() -> None:
    data = sentinel(nodata=0)
    line = lambda x, parameters: parameters[0] + parameters[1] * (x / 86400 / 1000)  # noqa: E731
    fitted = run_on(data, lambda cube: cube.fit_curve(parameters=[1, 1], function=line, dimension="t"))
    days = data.t.values.astype("datetime64[D]").astype(float) / 1000
    slope, start = np.polyfit(days, VALUES[:, 1, 2, 3].astype(float), 1)
    np.testing.assert_allclose(fitted.isel(bands=1, y=2, x=3).values, [start, slope], rtol=1e-5)
    labels = ["2022-08-01", "2022-09-01"]
    predicted = run_on(
        data,
        lambda cube: cube.predict_curve(parameters=[5, 2], function=line, dimension="t", labels=labels),
    )
    later = np.array(labels, "datetime64[D]").astype(float) / 1000
    np.testing.assert_allclose(predicted.isel(bands=0, y=0, x=0).values, 5 + 2 * later)


def test_months_of_the_client() -> None:
    result = run_on(
        sentinel(nodata=0),
        lambda cube: (
            cube.aggregate_temporal_period("week", reducer="median")
            .apply_dimension(process="array_interpolate_linear", dimension="t")
            .filter_temporal("2022-06-01", "2022-06-12")
        ),
    )
    assert result.t.values.tolist() == ["2022-23"]
