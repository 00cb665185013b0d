from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pyproj
import pytest
import rasterio.warp
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from odc_openeo import cube
from odc_openeo.errors import ProcessGraphComplexity, ProcessParameterInvalid
from odc_openeo.processes.resampling import resample_cube_spatial, resample_spatial
from odc_openeo.spatial.new_grid import make_grid
from odc_openeo.spatial.warp import METHODS
from tests.processes.rasters import grid, nothing_computes, raster

GDAL = {"near": "nearest", "cubicspline": "cubic_spline"}


def gdal(
    values: np.ndarray, source: GeoBox, target: GeoBox, method: str, nodata: Any, **more: Any
) -> np.ndarray:
    """One warp of the whole plane by GDAL."""
    out = np.full(target.shape.yx, nodata, dtype=values.dtype)
    rasterio.warp.reproject(
        values,
        out,
        src_transform=source.transform,
        src_crs=str(source.crs),
        dst_transform=target.transform,
        dst_crs=str(target.crs),
        src_nodata=nodata,
        dst_nodata=nodata,
        resampling=Resampling[GDAL.get(method, method)],
        **more,
    )
    return out


def noise(shape: tuple[int, ...], dtype: str = "float64") -> np.ndarray:
    values = np.random.default_rng(7).uniform(0, 1000, shape)
    values[..., 20:24, 30:37] = np.nan
    return values.astype(dtype) if dtype.startswith("f") else np.nan_to_num(values, nan=-1).astype(dtype)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("size", [5.0, 20.3, 25.0, 40.0])
def test_equals_gdal_in_the_same_reference_system(method: str, size: float) -> None:
    source = grid(120, 160)
    values = noise((120, 160))
    target = make_grid(source, [size, size], source.crs)
    with nothing_computes():
        result = resample_spatial(raster(values, source, {"y": 50, "x": 70}), size, method=method)
    assert isinstance(result.data, da.Array)
    assert result.odc.geobox == target
    expected = gdal(values, source, target, method, np.nan)
    np.testing.assert_allclose(result.values, expected, rtol=1e-6, atol=1e-6)
    assert (
        np.isnan(expected).any()
        or method in {"average", "bilinear", "sum", "rms", "max", "min", "mode"}
        or size > 5
    )


@pytest.mark.parametrize("method", ["near", "average", "mode", "max", "bilinear", "cubic"])
def test_equals_gdal_across_zones(method: str) -> None:
    source = grid(300, 400, left=690000)
    target = GeoBox.from_bbox((229800, 5152200, 232800, 5154700), "EPSG:32633", resolution=10)
    values = noise((300, 400))
    lazy = raster(values, source, {"y": 128, "x": 128})
    like = raster(np.zeros(target.shape.yx), target, {})
    result = resample_cube_spatial(lazy, like, method)
    expected = gdal(values, source, target, method, np.nan, XSCALE=1, YSCALE=1)
    assert np.isfinite(expected).mean() > 0.3
    if method == "near":
        assert (np.isclose(result.values, expected, equal_nan=True)).mean() > 0.999
    else:
        far = np.abs(result.values - expected) > 100
        assert far.mean() < 0.001
    eager = resample_cube_spatial(raster(values, source), like, method)
    same = np.isclose(result.values, eager.values, rtol=0, atol=0.2, equal_nan=True)
    assert same.mean() > 0.9995


def test_chunks_of_the_target_are_about_as_large_as_those_of_the_source() -> None:
    data = raster(noise((1030, 2050)), grid(1030, 2050), {"y": 512, "x": 1024})
    result = resample_spatial(data, 20, projection=3035, method="bilinear")
    assert [min(sizes) > 0.8 * max(sizes) for sizes in result.chunks] == [True, True]
    assert max(result.chunks[0]) <= 1.3 * 512 / 2
    assert max(result.chunks[1]) <= 1.3 * 1024 / 2


def test_coordinates_across_zones_are_exact() -> None:
    source = grid(300, 400, left=690000)
    target = GeoBox.from_bbox((229800, 5152200, 232800, 5154700), "EPSG:32633", resolution=10)
    easting, _ = source.transform @ (np.arange(400) + 0.5, np.zeros(400))
    ramp = raster(np.tile(easting, (300, 1)), source, {"y": 100, "x": 100})
    result = resample_cube_spatial(ramp, raster(np.zeros(target.shape.yx), target), "bilinear")
    columns, rows = np.meshgrid(np.arange(target.shape.x) + 0.5, np.arange(target.shape.y) + 0.5)
    x, y = target.transform @ (columns, rows)
    back = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True)
    expected, northing = back.transform(x, y)
    inside = (expected > 690005) & (expected < 693995) & (northing > 5149005) & (northing < 5151995)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(result.values[inside], expected[inside], atol=0.01)


def test_selected_pixels_stay_integers_with_their_nodata() -> None:
    source = grid(40, 50)
    data = raster(noise((2, 3, 40, 50), "int16"), source, {"y": 16, "x": 16, "t": 1}, nodata=-1)
    result = resample_spatial(data, 25, method="max")
    assert result.dtype == np.int16
    assert result.attrs["nodata"] == -1
    assert result.dims == data.dims
    target = result.odc.geobox
    np.testing.assert_array_equal(result.values[1, 2], gdal(data.values[1, 2], source, target, "max", -1))
    mean = resample_spatial(data, 25, method="average")
    assert mean.dtype == np.float32
    decoded = cube.decode(data).values[0, 1]
    np.testing.assert_allclose(mean.values[0, 1], gdal(decoded, source, target, "average", np.nan), rtol=1e-6)


def test_each_band_has_its_own_nodata() -> None:
    source, target = grid(40, 50), grid(60, 60, left=679900.0)
    data = raster(noise((1, 2, 40, 50), "int16"), source, {})
    data = cube.with_nodata(data, xr.DataArray([-1, -9], dims="bands", coords={"bands": data.bands}))
    result = resample_cube_spatial(data, raster(np.zeros((60, 60)), target))
    assert result.values[0, 0, -1, 0] == -1
    assert result.values[0, 1, -1, 0] == -9
    np.testing.assert_array_equal(result.values[0, :, :40, 10:60], data.values[0])
    assert cube.nodata(result).values.tolist() == [-1, -9]


def test_integers_without_nodata_become_floats_only_beyond_the_source() -> None:
    source = grid(40, 40)
    data = raster(np.ones((40, 40), "uint8"), source, {})
    assert resample_spatial(data, 20).dtype == np.uint8
    wider = resample_cube_spatial(data, raster(np.zeros((50, 50)), grid(50, 50)))
    assert wider.dtype == np.float32
    assert np.isnan(wider.values[45, 45])
    flags = raster(np.ones((40, 40), bool), source, {})
    assert resample_spatial(flags, 20).dtype == bool
    assert resample_spatial(flags, 20, method="average").dtype == np.float32


def test_same_grid_is_returned_untouched() -> None:
    data = raster(noise((40, 50)), grid(40, 50), {})
    assert resample_spatial(data, 10) is data
    assert resample_cube_spatial(data, data) is data


@pytest.mark.parametrize(
    ("align", "left", "top"),
    [
        ("upper-left", 680000, 5152000),
        ("lower-left", 680000, 5152000 + 20),
        ("upper-right", 680000 - 10, 5152000),
        ("lower-right", 680000 - 10, 5152000 + 20),
    ],
)
def test_alignment_sets_the_corner_of_the_grid(align: str, left: float, top: float) -> None:
    data = raster(noise((40, 50)), grid(40, 50), {})
    box = resample_spatial(data, 30, align=align).odc.geobox
    assert (box.boundingbox.left, box.boundingbox.top) == (left, top)
    assert box.shape.yx == (14, 17)


def test_projection_grids_equal_those_of_gdal() -> None:
    source = grid(400, 400)
    result = resample_spatial(raster(noise((400, 400)), source, {}), projection=4326)
    box = result.odc.geobox
    transform, width, height = rasterio.warp.calculate_default_transform(
        str(source.crs), "EPSG:4326", 400, 400, *source.boundingbox.bbox
    )
    assert box.shape.yx == pytest.approx((height, width), abs=1)
    assert box.transform.almost_equals(transform, 1e-7)
    assert result.dims == ("y", "x")
    other = resample_spatial(raster(noise((400, 400)), source, {}), projection=32633).odc.geobox
    assert abs(other.resolution.x) == 10
    both = resample_spatial(raster(noise((400, 400)), source, {}), [0.001, 0.002], 4326).odc.geobox
    assert both.resolution.xy == pytest.approx((0.001, -0.002))


def test_ascending_rows_stay_ascending() -> None:
    data = raster(noise((40, 50)), grid(40, 50), {})
    upside_down = data.isel(y=slice(None, None, -1))
    result = resample_spatial(upside_down, 20, method="average")
    assert result.y.values[1] > result.y.values[0]
    expected = resample_spatial(data, 20, method="average")
    np.testing.assert_allclose(result.values[::-1], expected.values)


def test_invalid_resampling_is_refused() -> None:
    data = raster(noise((40, 50)), grid(40, 50), {})
    with pytest.raises(ProcessParameterInvalid, match="resolution or a projection"):
        resample_spatial(data)
    with pytest.raises(ProcessParameterInvalid, match="not a known reference system"):
        resample_spatial(data, projection=9999)
    with pytest.raises(ProcessParameterInvalid, match="regular dimensions"):
        resample_spatial(data.isel(x=0), 20)
    with pytest.raises(ProcessGraphComplexity, match="coarser"):
        resample_spatial(data, 0.0001)
