"""Programs save what the service saves: files of both are read by the same libraries and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import xvec  # noqa: F401  (registers the accessor)
from PIL import Image

from odc_openeo.formats import write_outputs
from odc_openeo.registry.environment import Environment
from odc_openeo.spatial import vector_cubes
from tests.explain.cases import ZONES, make_cube, make_process, make_vectors
from tests.explain.programs import compare_program


def save(folder: Path, data: Any, format_: str, **options: Any) -> tuple[list[Path], list[Path]]:
    """The files of a program and those of the service, sorted by name."""
    graph, parameters = make_process("save_result", {"data": data, "format": format_, "options": options})
    env = Environment()
    places = folder / "program", folder / "service"
    for place in places:
        place.mkdir()
    comparison = compare_program(graph, parameters, env, folder=places[0])
    assert comparison.explanation.incomplete == []
    write_outputs(comparison.explanation.value, env.outputs, places[1])
    by_program, by_service = (sorted(place.iterdir()) for place in places)
    assert [p.suffix for p in by_program] == [p.suffix for p in by_service]
    return by_program, by_service


def make_series() -> xr.DataArray:
    """A vector cube with times and bands, and a gap."""
    cube = make_vectors(("a", "b"), 3).rename(properties="bands")
    series = cube.expand_dims(t=make_cube(2).t).copy()
    series[1, 2, 0] = np.nan
    return series.transpose("geometry", "bands", "t")


@pytest.mark.parametrize("format_", ["netCDF", "GTiff", "Zarr", "JSON"])
def test_rasters(tmp_path: Path, format_: str) -> None:
    cube = make_cube(1).isel(t=0, drop=True)
    (path,), (expected,) = save(tmp_path, cube, format_)
    if format_ == "GTiff":
        with rasterio.open(path) as a, rasterio.open(expected) as b:
            assert (a.crs, a.transform, a.descriptions) == (b.crs, b.transform, a.descriptions)
            np.testing.assert_array_equal(a.read(), b.read())
    elif format_ == "JSON":
        values = xr.DataArray.from_dict(json.loads(path.read_text()))
        np.testing.assert_allclose(values.transpose("bands", "y", "x").astype(float), cube.values)
    else:
        with xr.open_dataset(path) as dataset:
            (name,) = [n for n, v in dataset.data_vars.items() if v.ndim == 3]
            np.testing.assert_array_equal(dataset[name].transpose("bands", "y", "x"), cube.values)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize("bands", [("a",), ("r", "g", "b"), ("r", "g", "b", "alpha")])
def test_pictures(tmp_path: Path, format_: str, bands: tuple[str, ...]) -> None:
    if format_ == "JPEG" and len(bands) == 4:
        pytest.skip("JPEG has no opacity")
    for path, expected in zip(*save(tmp_path, make_cube(2, bands) * 3 - 10, format_), strict=True):
        with Image.open(path) as a, Image.open(expected) as b:
            assert a.mode == b.mode
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_quality_of_pictures(tmp_path: Path) -> None:
    (path,), (expected,) = save(tmp_path, make_cube(1, ("a",)), "JPEG", quality=20)
    with Image.open(path) as a, Image.open(expected) as b:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("kind", ["series", "zones", "raster"])
@pytest.mark.parametrize("format_", ["CSV", "Parquet", "GeoJSON"])
def test_tables(tmp_path: Path, format_: str, kind: str) -> None:
    data = {
        "series": make_series,
        "zones": lambda: vector_cubes.as_vector_cube(ZONES, "save_result", "data"),
        "raster": lambda: make_cube(2).isel(x=slice(3), y=slice(2)),
    }[kind]()
    if kind == "raster" and format_ == "GeoJSON":
        pytest.skip("GeoJSON needs geometries")
    (path,), (expected,) = save(tmp_path, data, format_)
    tables = [read_table(file) for file in (path, expected)]
    pd.testing.assert_frame_equal(*tables, check_dtype=False, check_exact=False, rtol=1e-6)
    if hasattr(tables[1], "geometry"):
        assert tables[0].crs == tables[1].crs
        assert tables[0].geom_equals_exact(tables[1], 1e-6).all()


def read_table(path: Path) -> Any:
    if path.suffix == ".csv":
        table = pd.read_csv(path)
    elif path.suffix == ".geojson":
        table = gpd.read_file(path)
    else:
        try:
            table = gpd.read_parquet(path)
        except ValueError:
            table = pd.read_parquet(path)
    if "date" in table:
        table["date"] = pd.to_datetime(table["date"], utc=True).astype("datetime64[ns, UTC]")
    return table


def test_separators(tmp_path: Path) -> None:
    (path,), (expected,) = save(tmp_path, make_series(), "CSV", separator=";")
    pd.testing.assert_frame_equal(pd.read_csv(path, sep=";"), pd.read_csv(expected, sep=";"))


@pytest.mark.parametrize("format_", ["netCDF", "Zarr", "JSON"])
def test_vector_cubes(tmp_path: Path, format_: str) -> None:
    data = make_series()
    (path,), (expected,) = save(tmp_path, data, format_)
    if format_ == "JSON":
        assert json.loads(path.read_text()) == json.loads(expected.read_text())
        return
    with xr.open_dataset(path) as opened:
        decoded = opened.load().xvec.decode_cf()
    np.testing.assert_array_equal(decoded["data"].transpose(*data.dims), data)
    assert all(a.equals_exact(b) for a, b in zip(decoded.geometry.values, data.geometry.values, strict=True))
