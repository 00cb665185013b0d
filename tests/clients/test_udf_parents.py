"""User-defined functions as the `openeo` client sends them, at once and as batch jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openeo
import pytest
import xarray as xr

from tests.clients.test_udf import read_zeros
from tests.clients.test_values import load, netcdf
from tests.support.sandbox import needs_sandbox
from tests.support.waiting import wait_for

pytestmark = needs_sandbox

COMPONENTS = openeo.UDF("""
import numpy
import xarray
from openeo.metadata import CollectionMetadata

def apply_metadata(metadata: CollectionMetadata, context: dict) -> CollectionMetadata:
    return metadata.rename_labels(dimension="bands", target=["pc1", "pc2"])

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    rows = cube.fillna(0).stack(sample=("t", "y", "x")).transpose("sample", "bands")
    centred = rows.values - rows.values.mean(axis=0)
    _, _, axes = numpy.linalg.svd(centred, full_matrices=False)
    result = rows.copy(data=centred @ axes.T).unstack("sample").transpose("t", "bands", "y", "x")
    return result.drop_vars("bands").astype("float32")
""")
SERIES = openeo.UDF(
    """
import pandas as pd

def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:
    return series.fillna(0).rolling(context["window"], min_periods=1).mean().astype("float32")
""",
    context={"window": 2},
)
OLD_RANGE = openeo.UDF("""
from openeo_udf.api.datacube import DataCube

def apply_hypercube(cube: DataCube, context: dict) -> DataCube:
    array = cube.get_array().fillna(0)
    return DataCube((array.max("t") - array.min("t")).astype("float32"))
""")
LARGER = openeo.UDF("""
from openeo.udf import UdfData, XarrayDataCube

def apply_udf_data(data: UdfData):
    array = data.get_datacube_list()[0].get_array().fillna(0)
    data.set_datacube_list([XarrayDataCube((array * 2).astype("float32"))])
""")
CENTRE = openeo.UDF("""
from openeo.udf import XarrayDataCube

def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:
    array = cube.get_array()
    return XarrayDataCube((array - array.min(["y", "x"])).astype("float32"))
""")

Truth = Callable[[np.ndarray], np.ndarray]


def find_components(values: np.ndarray) -> np.ndarray:
    rows = np.moveaxis(values, 1, -1).reshape(-1, 2).astype("float32")
    rows = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    return np.abs(np.moveaxis((rows @ axes.T).reshape(values.shape[0], *values.shape[2:], 2), -1, 1))


def average_pairs(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])


def build_cubes(connection: openeo.Connection) -> dict[str, tuple[openeo.DataCube, Truth]]:
    """Build the cubes, and what they are of the values of B04 and B08."""
    cube = load(connection, ["B04", "B08"])
    size = [{"dimension": d, "value": 1024, "unit": "px"} for d in ("x", "y")]
    doubled = cube.apply(LARGER)
    return {
        "components": (cube.apply_neighborhood(COMPONENTS, size=size), find_components),
        "series": (cube.apply_dimension(SERIES, dimension="t"), average_pairs),
        "period": (
            cube.aggregate_temporal_period(period="month", reducer=OLD_RANGE),
            lambda values: np.ptp(values, axis=0)[None],
        ),
        "merge": (doubled.merge_cubes(cube, overlap_resolver=LARGER), lambda values: values * 4),
        "reduced": (cube.reduce_dimension(dimension="t", reducer=OLD_RANGE), lambda v: np.ptp(v, axis=0)),
    }


NAMES = ["components", "series", "period", "merge", "reduced"]


@pytest.fixture(scope="module")
def values(connection: openeo.Connection, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The values of both bands, 0 where there are none."""
    plain = netcdf(load(connection, ["B04", "B08"]), tmp_path_factory.mktemp("plain") / "plain.nc")
    return np.stack([read_zeros(plain, band) for band in ("B04", "B08")], axis=1)


@pytest.fixture(scope="module")
def jobs(connection: openeo.Connection) -> Iterator[dict[str, openeo.BatchJob]]:
    """Batch jobs of all cubes, which run side by side."""
    jobs = {
        name: cube.save_result("netCDF").create_job(title=name)
        for name, (cube, _) in build_cubes(connection).items()
    }
    for job in jobs.values():
        job.start()
    yield jobs
    for job in jobs.values():
        job.delete()


def check(result: xr.Dataset, expected: np.ndarray) -> None:
    bands = [name for name in result.data_vars if name not in ("crs", "spatial_ref")]
    given = np.stack([result[name].values for name in bands], axis=-3)
    if bands == ["pc1", "pc2"]:
        given = np.abs(given)
    np.testing.assert_allclose(np.nan_to_num(given), expected, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_at_once(connection: openeo.Connection, values: np.ndarray, name: str, tmp_path: Path) -> None:
    cube, find_truth = build_cubes(connection)[name]
    check(netcdf(cube, tmp_path / "result.nc"), find_truth(values))


@pytest.mark.parametrize("name", NAMES)
def test_as_a_batch_job(
    connection: openeo.Connection,
    jobs: dict[str, openeo.BatchJob],
    values: np.ndarray,
    name: str,
    tmp_path: Path,
) -> None:
    job = jobs[name]
    wait_for(lambda: job.status() in ("finished", "error"))
    assert job.status() == "finished", job.logs(level="error")
    (path,) = (p for p in job.get_results().download_files(tmp_path) if p.suffix == ".nc")
    check(xr.load_dataset(path, engine="netcdf4"), build_cubes(connection)[name][1](values))


def test_pixels_of_polygons(connection: openeo.Connection, tmp_path: Path) -> None:
    west, south, east, north = 11.3456, 46.4913, 11.3506, 46.4946
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    cube = load(connection, ["B04"])
    centred = netcdf(cube.apply_polygon(polygon, process=CENTRE), tmp_path / "centred.nc")["B04"].values
    masked = netcdf(cube.mask_polygon(polygon, replacement=-1), tmp_path / "masked.nc")["B04"].values
    before = netcdf(cube, tmp_path / "before.nc")["B04"].values.astype("float32")
    inside = masked != -1
    assert 0 < inside[0].sum() < inside[0].size
    for values, result, is_inside in zip(before, centred, inside, strict=True):
        pixels = values[is_inside]
        np.testing.assert_allclose(result[is_inside], pixels - pixels.min(), atol=0.5)
        np.testing.assert_allclose(result[~is_inside], values[~is_inside])
