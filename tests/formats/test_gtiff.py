from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.merge
import xarray as xr
from rio_cogeo import cog_validate

from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats import Asset, Target, blocks, get_format, gtiff
from tests.formats.cubes import ORIGIN, raster

FORMAT = get_format("gtiff")


def save(data, folder, **options) -> list[Asset]:
    FORMAT.check(data)
    return FORMAT.write(data, Target(folder), FORMAT.complete_options(options))


def check_cog(path) -> None:
    valid, errors, warnings = cog_validate(path, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])


@pytest.fixture(params=["where it is computed", "streamed"])
def way(request, monkeypatch):
    """Both ways of writing a file."""
    if request.param == "streamed":
        monkeypatch.setattr(gtiff, "LAYER_BYTES", 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("chunks", [None, {"y": 16, "x": 7, "bands": 1, "t": 1}])
def test_one_cog_for_each_date_with_names_place_and_pixels(tmp_path, chunks):
    cube = raster()
    cube[0, 1, 3, 4] = np.nan
    assets = save(cube.chunk(chunks) if chunks else cube, tmp_path)
    assert [a.path.name for a in assets] == ["result_2022-06-01.tif", "result_2022-06-06.tif"]
    assert [a.datetime for a in assets] == ["2022-06-01T10:00:00Z", "2022-06-06T10:00:00Z"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [a.path.name for a in assets]
    for i, asset in enumerate(assets):
        check_cog(asset.path)
        with rasterio.open(asset.path) as file:
            np.testing.assert_array_equal(file.read(), cube[i].values)
            assert file.descriptions == ("B01", "B02", "B03")
            assert file.dtypes == ("float32",) * 3
            assert np.isnan(file.nodata)
            assert file.crs.to_epsg() == 32632
            assert file.transform.to_gdal() == (ORIGIN[0], 10, 0, ORIGIN[1], 0, -10)
            assert "alpha" not in [c.name for c in file.colorinterp]
    with rasterio.open(assets[1].path) as file:
        assert file.tags()["TIFFTAG_DATETIME"] == "2022:06:06 10:00:00"


@pytest.mark.usefixtures("way")
def test_statistics_equal_numpy_however_pieces_come(tmp_path, monkeypatch):
    monkeypatch.setattr(gtiff, "stream_batches", lambda *args: blocks.stream_batches(*args, limit=5000))
    cube = raster(dates=None, bands=2, shape=(70, 50)) * 1000
    cube[0, :20, :9] = np.nan
    asset = save(cube.chunk({"y": 13, "x": 11}), tmp_path)[0]
    with rasterio.open(asset.path) as file:
        np.testing.assert_array_equal(file.read(), cube.values)
        for i in (1, 2):
            values = cube[i - 1].values.astype(float)
            tags = {k: float(v) for k, v in file.tags(i).items() if k.startswith("STATISTICS")}
            assert tags == {
                "STATISTICS_MINIMUM": np.nanmin(values),
                "STATISTICS_MAXIMUM": np.nanmax(values),
                "STATISTICS_MEAN": pytest.approx(np.nanmean(values), rel=1e-12),
                "STATISTICS_STDDEV": pytest.approx(np.nanstd(values), rel=1e-12),
                "STATISTICS_VALID_PERCENT": pytest.approx(100 * np.isfinite(values).mean()),
            }
    assert asset.bands[1]["statistics"]["mean"] == pytest.approx(float(cube[1].mean()))


@pytest.mark.usefixtures("way")
def test_a_band_without_data_has_no_extremes(tmp_path):
    asset = save(raster(dates=None, bands=1) * np.nan, tmp_path)[0]
    with rasterio.open(asset.path) as file:
        assert file.tags(1) == {"STATISTICS_VALID_PERCENT": "0.0"}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float64"])
def test_types_are_kept(tmp_path, dtype):
    cube = raster(dtype, dates=None)
    if dtype != "float64":
        cube.attrs["nodata"] = 3
    with rasterio.open(save(cube, tmp_path)[0].path) as file:
        assert file.dtypes == (dtype,) * 3
        assert file.nodata == 3 or dtype == "float64"
        np.testing.assert_array_equal(file.read(), cube.values)


@pytest.mark.usefixtures("way")
def test_booleans_become_bytes_and_four_bands_have_no_opacity(tmp_path):
    cube = raster(dates=None, bands=4) > 100
    with rasterio.open(save(cube, tmp_path)[0].path) as file:
        assert file.dtypes == ("uint8",) * 4
        assert file.nodata is None
        assert [c.name for c in file.colorinterp][3] == "undefined"
        np.testing.assert_array_equal(file.read(), cube.values)


@pytest.mark.usefixtures("way")
def test_bands_that_differ_in_nodata_get_a_wider_type(tmp_path):
    cube = raster("uint16", dates=None, bands=2).assign_coords(nodata=("bands", [0, 65535]))
    cube[0, 0, :2] = [0, 65535]
    cube[1, 0, :2] = [0, 65535]
    with rasterio.open(save(cube, tmp_path)[0].path) as file:
        low = np.iinfo("int32").min
        assert (file.dtypes[0], file.nodata) == ("int32", low)
        values = file.read()
        assert values[:, 0, :2].tolist() == [[low, 65535], [0, low]]
        np.testing.assert_array_equal(values[:, 1:], cube.values[:, 1:])
    same = cube.assign_coords(nodata=("bands", [7, 7]))
    with rasterio.open(save(same, tmp_path)[0].path) as file:
        assert (file.dtypes[0], file.nodata) == ("uint16", 7)
    with pytest.raises(FormatUnsuitable, match="netCDF"):
        save(cube.astype("int64").assign_coords(nodata=("bands", [0, 1])), tmp_path)


@pytest.mark.usefixtures("way")
def test_order_of_dimensions_and_direction_of_axes_do_not_matter(tmp_path):
    cube = raster(dates=None)
    turned = cube.isel(y=slice(None, None, -1), x=slice(None, None, -1)).transpose("x", "bands", "y")
    with rasterio.open(save(turned, tmp_path)[0].path) as file:
        np.testing.assert_array_equal(file.read(), cube.values)
        assert file.transform.to_gdal() == (ORIGIN[0], 10, 0, ORIGIN[1], 0, -10)


@pytest.mark.usefixtures("way")
def test_without_bands_and_a_single_pixel(tmp_path):
    cube = raster(dates=None, bands=None)[3:4, 5:6]
    with rasterio.open(save(cube, tmp_path)[0].path) as file:
        assert (file.count, file.shape, file.descriptions) == (1, (1, 1), (None,))
        assert file.transform.to_gdal() == (ORIGIN[0] + 50, 10, 0, ORIGIN[1] - 30, 0, -10)
        assert file.read(1)[0, 0] == cube.values[0, 0]


@pytest.mark.usefixtures("way")
def test_large_images_get_overviews_and_options_work(tmp_path):
    cube = raster(dates=None, bands=1, shape=(600, 1100)).chunk({"y": 256, "x": 512})
    with rasterio.open(save(cube, tmp_path)[0].path) as file:
        assert (file.overviews(1), file.block_shapes[0]) == ([2, 4], (512, 512))
        assert file.profile["compress"] == "deflate"
        assert file.tags(ns="IMAGE_STRUCTURE", bidx=0)["PREDICTOR"] == "3"
    check_cog(save(cube, tmp_path)[0].path)
    for compress in ("zstd", "LZW"):
        path = save(cube, tmp_path, COMPRESS=compress, blocksize=256, predictor="no")[0].path
        with rasterio.open(path) as file:
            assert (file.profile["compress"], file.block_shapes[0]) == (compress.lower(), (256, 256))
            np.testing.assert_array_equal(file.read(), cube.values)
    with rasterio.open(save(cube, tmp_path, compress="none", overviews="none")[0].path) as file:
        assert "compress" not in file.profile
        assert file.overviews(1) == []
    path = save(cube, tmp_path, overview_resampling="nearest", level=9)[0].path
    with rasterio.open(path, overview_level=0) as file:
        assert np.isin(file.read(1), cube.values).all()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_digital_numbers_are_hardly_larger_than_at_the_usual_level(tmp_path, dtype):
    cube = raster(dates=None, bands=2, shape=(400, 500))
    noise = np.random.default_rng(2).normal(0, 40, cube.shape)
    cube = cube.copy(data=(3000 + 600 * np.sin(np.arange(500) / 90) + noise).astype(dtype)).chunk()
    sizes = []
    for level in (None, 6):
        path = save(cube, tmp_path, **({} if level is None else {"level": level}))[0].path
        sizes.append(path.stat().st_size)
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), cube.values)
    assert sizes[0] < 1.02 * sizes[1]


@pytest.mark.usefixtures("way")
def test_times_of_a_day_and_further_dimensions_are_in_the_name(tmp_path):
    cube = raster(dates=2, bands=1, shape=(8, 8))
    cube["t"] = np.array(["2022-06-01T10:00:00", "2022-06-01T10:00:10"], "M8[ns]")
    cube = cube.expand_dims({"model": ["a/b", "c"]}, axis=2)
    names = [a.path.name for a in save(cube, tmp_path)]
    assert names[:3] == [
        "result_2022-06-01T100000Z_model-a-b.tif",
        "result_2022-06-01T100000Z_model-c.tif",
        "result_2022-06-01T100010Z_model-a-b.tif",
    ]
    with rasterio.open(tmp_path / names[1]) as file:
        np.testing.assert_array_equal(file.read(), cube.sel(model="c")[0].values)
        assert file.tags()["MODEL"] == "c"


@pytest.mark.usefixtures("way")
def test_more_dates_than_files_may_be_open_even_with_equal_labels(tmp_path):
    cube = raster(dates=150, bands=None, shape=(4, 4)).chunk({"t": 40})
    cube["t"] = np.repeat(cube["t"].values[:75], 2)
    assets = save(cube, tmp_path)
    assert len({a.path for a in assets}) == 150
    for i in (0, 1, 74, 149):
        with rasterio.open(assets[i].path) as file:
            np.testing.assert_array_equal(file.read(1), cube.values[i])


@pytest.mark.usefixtures("way")
def test_cube_without_crs_is_written(tmp_path):
    cube = xr.DataArray(np.arange(12.0).reshape(3, 4), dims=("y", "x"))
    with rasterio.open(save(cube, tmp_path)[0].path) as file:
        assert file.crs is None
        np.testing.assert_array_equal(file.read(1), cube.values)


def test_unsupported_cubes_are_refused(tmp_path):
    cube = raster()
    for data, reason in [
        (cube.mean("x"), "x and y are needed"),
        (cube.isel(x=[0, 1, 5, 6]), "not evenly spaced"),
        (cube.astype(str), "not numbers"),
        (5, "not a raster cube"),
    ]:
        with pytest.raises(FormatUnsuitable, match=reason):
            save(data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_fails_leaves_no_file(tmp_path):
    def broken(block):
        raise OSError("unreadable")

    cube = raster(dates=None).chunk({"y": 10})
    cube.data = cube.data.map_blocks(broken, dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    with pytest.raises(OSError, match="unreadable"):
        save(cube, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_statistics_of_many_small_integers_equal_numpy(tmp_path):
    cube = raster("uint16", dates=None, bands=1, shape=(300, 400)).assign_attrs(nodata=0)
    cube[0] = np.random.default_rng(1).integers(0, 9, (300, 400))
    result = save(cube, tmp_path)[0].bands[0]["statistics"]
    values = cube.values[cube.values != 0]
    assert (result["minimum"], result["maximum"]) == (values.min(), values.max())
    assert result["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert result["stddev"] == pytest.approx(values.std(), rel=1e-12)
    assert result["valid_percent"] == pytest.approx(100 * values.size / cube.size)


def test_tiles_of_large_images(tmp_path):
    """Together the tiles are the whole image: no pixel is missing, moved or there twice."""
    cube = raster(dates=2, bands=2, shape=(600, 300)).odc.assign_crs("EPSG:32632")
    assets = save(cube, tmp_path, split_size=256)
    names = {a.path.name for a in assets}
    assert len(assets) == len(names) == 2 * 3 * 2
    assert "result_2022-06-01_r2_c1.tif" in names
    tiles = sorted(tmp_path.glob("result_2022-06-06_*.tif"))
    whole, transform = rasterio.merge.merge(tiles)
    np.testing.assert_array_equal(whole, cube.isel(t=1).values)
    assert tuple(transform)[:6] == tuple(cube.odc.geobox.transform)[:6]
    assert sum(a.projection["proj:shape"][0] * a.projection["proj:shape"][1] for a in assets) == 2 * 600 * 300
    for path in tiles:
        assert cog_validate(path, quiet=True)[0]
