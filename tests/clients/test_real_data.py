"""Real Landsat 8 and Sentinel-2 scenes through the running stack, against numpy and GDAL on the files."""

from __future__ import annotations

from functools import reduce
from itertools import groupby
from pathlib import Path

import numpy as np
import openeo
import pytest
import rasterio
import xarray as xr
from openeo.processes import floor, mod

from odc_openeo.indexing.index import index_datasets, index_products
from tests.clients import truth
from tests.indexing.real_data import DATA, FIELD, LANDSAT, products, write_documents

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real satellite data are not beside the repository"
)

FIELD_BOX = (344130.0, 4626620.0 - 570, 344130.0 + 560, 4626620.0)
CLEAR_CLASSES = (4, 5, 6, 7, 11)


@pytest.fixture(scope="module")
def real(stack_environment: dict[str, str], short_folder: Path) -> dict[str, list[truth.Scene]]:
    """The real scenes, added to the index of the running stack."""
    folder = short_folder / "real"
    folder.mkdir()
    documents = write_documents(folder)
    index_products(products(), stack_environment)
    index_datasets([d for group in documents.values() for d in group], stack_environment)
    return {name: truth.scenes_of(group) for name, group in documents.items()}


def test_both_are_collections_at_once(connection: openeo.Connection, real: dict) -> None:
    for name, scenes in real.items():
        described = connection.describe_collection(name)
        start, end = described["extent"]["temporal"]["interval"][0]
        assert start[:10] == f"{scenes[0].time:%Y-%m-%d}"
        assert end[:10] == f"{scenes[-1].time:%Y-%m-%d}"


def test_clear_sky_median_mosaic(connection: openeo.Connection, real: dict, tmp_path: Path) -> None:
    """Three paths and rows overlap; each scene has a grid of its own. Bit 4 of BQA is cloud."""
    cube = connection.load_collection(LANDSAT, bands=["B4", "B5", "BQA"])
    cloudy = cube.band("BQA").apply(lambda x: mod(floor(x / 16), 2))
    mosaic = cube.filter_bands(["B4", "B5"]).mask(cloudy).reduce_dimension(dimension="t", reducer="median")
    mosaic.download(tmp_path / "mosaic.tif", format="GTiff")
    with rasterio.open(tmp_path / "mosaic.tif") as file:
        got, grid = file.read(), file.profile
    dates = _mosaics(real[LANDSAT], grid)
    for values, band in zip(got, ("B4", "B5"), strict=True):
        layers = [np.where((d[band] > 0) & (d["BQA"] // 16 % 2 == 0), d[band], np.nan) for d in dates]
        expected = _nanmedian(np.stack(layers))
        assert np.isfinite(expected).mean() > 0.5
        same = np.isclose(values, expected, rtol=1e-6, equal_nan=True)
        assert same.mean() > 0.99, f"{band}: {same.mean():.4f} of the pixels are equal"


def _mosaics(scenes: list[truth.Scene], grid: dict) -> list[dict[str, np.ndarray]]:
    """The bands of each time; where scenes of one time overlap, the first with data counts."""
    dates = []
    for _, matching_scenes in groupby(scenes, key=lambda s: s.time):
        parts = sorted(matching_scenes, key=lambda s: s.id)
        bands = {}
        for band in ("B4", "B5", "BQA"):
            layers = [_warped(scene, band, grid) for scene in parts]
            bands[band] = reduce(lambda first, other: np.where(first > 0, first, other), layers)
        dates.append(bands)
    return dates


def _warped(scene: truth.Scene, band: str, grid: dict) -> np.ndarray:
    """The pixel of the scene in which the centre of each pixel of the grid lies; all are in one zone."""
    with rasterio.open(scene.bands[band]) as file:
        assert file.crs == grid["crs"]
        values = file.read(1).astype("float64")
        step = ~file.transform @ grid["transform"]
    columns = np.floor(step.c + step.a * (np.arange(grid["width"]) + 0.5)).astype(int)
    rows = np.floor(step.f + step.e * (np.arange(grid["height"]) + 0.5)).astype(int)
    inside = np.ix_((rows >= 0) & (rows < values.shape[0]), (columns >= 0) & (columns < values.shape[1]))
    out = np.zeros((grid["height"], grid["width"]))
    out[inside] = values[np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])]
    return out


def _nanmedian(values: np.ndarray) -> np.ndarray:
    seen = np.isfinite(values).any(axis=0)
    return np.where(seen, np.nanmedian(np.where(seen, values, 0), axis=0), np.nan)


def test_monthly_ndvi_of_a_field(connection: openeo.Connection, real: dict, tmp_path: Path) -> None:
    """Clear pixels by the scene classification, means of months; months without a clear pixel are no-data."""
    cube = connection.load_collection(FIELD, bands=["B04", "B08", "SCL"])
    red, nir, scl = cube.band("B04"), cube.band("B08"), cube.band("SCL")
    clear = (scl == 4) | (scl == 5) | (scl == 6) | (scl == 7) | (scl == 11)
    ndvi = ((nir - red) / (nir + red)).mask(clear != True)  # noqa: E712  (a process, not a comparison)
    monthly = ndvi.aggregate_temporal_period("month", "mean")
    monthly.download(tmp_path / "months.nc", format="netCDF")
    data = xr.load_dataset(tmp_path / "months.nc", engine="netcdf4")
    (name,) = [n for n in data.data_vars if set(data[n].dims) == {"t", "y", "x"}]
    expected = _monthly(real[FIELD])
    assert data["t_label"].values.astype(str).tolist() == list(expected)
    assert np.datetime_as_string(data["t"].values, "M").tolist() == list(expected)
    got = data[name].transpose("t", "y", "x").values
    np.testing.assert_allclose(got, np.stack(list(expected.values())), rtol=1e-5, atol=1e-6)


def _monthly(scenes: list[truth.Scene]) -> dict[str, np.ndarray]:
    by_month: dict[str, list[np.ndarray]] = {}
    for scene in scenes:
        red, nir, classes = (truth.pixels(scene, band, FIELD_BOX) for band in ("B04", "B08", "SCL"))
        ndvi = np.where(np.isin(classes, CLEAR_CLASSES), (nir - red) / (nir + red), np.nan)
        by_month.setdefault(f"{scene.time:%Y-%m}", []).append(ndvi)
    return {month: _nanmean(np.stack(group)) for month, group in sorted(by_month.items())}


def _nanmean(values: np.ndarray) -> np.ndarray:
    count = np.isfinite(values).sum(axis=0)
    total = np.nansum(values, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
