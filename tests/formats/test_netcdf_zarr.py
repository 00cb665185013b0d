from __future__ import annotations

from functools import partial

import cf_xarray  # noqa: F401
import netCDF4
import numpy as np
import pyproj
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import xvec  # noqa: F401

from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats import Target, blocks, get_format, netcdf, zarr
from tests.formats.cubes import ORIGIN, raster, vector


def save(data, folder, name="netCDF", **options):
    format_ = get_format(name)
    format_.check(data)
    return format_.write(data, Target(folder), format_.complete_options(options))[0]


def read(asset) -> xr.Dataset:
    if asset.path.suffix == ".zarr":
        return xr.open_zarr(asset.path, consolidated=True, decode_coords="all").load()
    return xr.load_dataset(asset.path, decode_coords="all")


@pytest.fixture(params=["netCDF", "Zarr"])
def name(request) -> str:
    return request.param


@pytest.fixture
def small_batches(monkeypatch) -> None:
    for module in (netcdf, zarr):
        monkeypatch.setattr(module, "stream_batches", lambda *args: blocks.stream_batches(*args, limit=2000))


@pytest.mark.parametrize("chunks", [None, {"y": 16, "x": 7, "bands": 1, "t": 1}])
def test_a_variable_for_each_band(tmp_path, name, chunks, small_batches):
    cube = raster()
    cube[0, 1, 3, 4] = np.nan
    asset = save(cube.chunk(chunks) if chunks else cube, tmp_path, name)
    read_cube = read(asset)
    assert list(read_cube.data_vars) == ["B01", "B02", "B03"]
    assert read_cube["B02"].dims == ("t", "y", "x")
    back = read_cube.to_dataarray("bands").transpose("t", "bands", "y", "x")
    np.testing.assert_array_equal(back.values, cube.values)
    for dimension in ("t", "x", "y"):
        np.testing.assert_array_equal(read_cube[dimension], cube[dimension])
    assert read_cube.rio.crs.to_epsg() == 32632
    assert read_cube.odc.geobox == cube.odc.geobox
    assert read_cube.attrs["Conventions"].startswith("CF-1.")
    assert (asset.start_datetime, asset.end_datetime) == ("2022-06-01T10:00:00Z", "2022-06-06T10:00:00Z")
    assert [b["name"] for b in asset.bands] == ["B01", "B02", "B03"]


@pytest.mark.parametrize("lazy", [False, True])
def test_one_variable_with_all_dimensions(tmp_path, name, lazy):
    cube = raster("uint16", bands=1)
    cube.attrs["nodata"] = 0
    read_cube = read(save(cube.chunk({"y": 9}) if lazy else cube, tmp_path, name, layout="cube"))
    assert list(read_cube.data_vars) == ["data"]
    assert read_cube["data"].dims == ("t", "bands", "y", "x")
    assert read_cube["bands"].values.tolist() == ["B01"]
    np.testing.assert_array_equal(read_cube["data"].fillna(0).values, cube.values)


def test_a_single_band_and_date_lose_no_dimension(tmp_path, name):
    cube = read(save(raster(dates=1, bands=1), tmp_path, name))
    assert cube["B01"].dims == ("t", "y", "x")
    assert cube.sizes["t"] == 1


@pytest.mark.parametrize("cube", [raster(bands=None), vector(bands=None)], ids=["raster", "vector"])
def test_a_cube_without_bands_is_one_variable(tmp_path, name, cube):
    assert list(read(save(cube, tmp_path, name)).data_vars) == ["var"]


def test_each_band_has_its_own_nodata(tmp_path, name):
    cube = raster("uint16", bands=2).assign_coords(nodata=("bands", [0, 65535])).chunk({"x": 10})
    path = save(cube, tmp_path, name).path
    opened = {"engine": "zarr"} if name == "Zarr" else {}
    raw = xr.open_dataset(path, mask_and_scale=False, **opened).load()
    assert raw["B01"].dtype == "uint16"
    assert [raw[b].attrs["_FillValue"] for b in ("B01", "B02")] == [0, 65535]
    np.testing.assert_array_equal(raw["B02"], cube[:, 1].values)
    with pytest.raises(FormatUnsuitable, match="layout 'variables'"):
        save(cube, tmp_path, name, layout="cube")


def test_data_types_survive(tmp_path, name):
    for dtype in ("int8", "uint8", "int64", "float64", "bool"):
        cube = raster(dtype, dates=None, bands=1)
        folder = tmp_path / dtype
        folder.mkdir()
        read_cube = read(save(cube, folder, name))
        assert read_cube["B01"].dtype == dtype
        np.testing.assert_array_equal(read_cube["B01"], cube[0])


def test_gdal_reads_place_and_names(tmp_path):
    cube = raster(dates=1, bands=2)
    path = save(cube, tmp_path).path
    with rasterio.open(f"netcdf:{path}:B02") as file:
        assert file.crs.to_epsg() == 32632
        assert file.transform.to_gdal() == (ORIGIN[0], 10, 0, ORIGIN[1], 0, -10)
        np.testing.assert_array_equal(file.read(1), cube.values[0, 1])


def test_compression_and_chunks(tmp_path):
    cube = raster(dates=2, bands=1, shape=(1500, 20)).chunk({"y": 1500})
    with netCDF4.Dataset(save(cube, tmp_path, level=4).path) as file:
        assert file["B01"].filters()["zlib"] is True
        assert file["B01"].filters()["complevel"] == 4
        assert file["B01"].chunking() == [1, 750, 20]
    with netCDF4.Dataset(save(cube, tmp_path, compression="NONE").path) as file:
        assert file["B01"].filters()["zlib"] is False
        np.testing.assert_array_equal(file["B01"][:], cube.values[:, 0])


def test_names_that_are_no_variable_names(tmp_path, name):
    cube = raster(dates=None, bands=4)
    cube["bands"] = ["x", "a/b", "a b", "spatial_ref"]
    read_cube = read(save(cube, tmp_path, name))
    names = ["x_1", "a_b", "a_b_1", "spatial_ref_1"]
    assert set(read_cube.data_vars) == set(names)
    assert [read_cube[n].attrs["long_name"] for n in names] == cube["bands"].values.tolist()
    np.testing.assert_array_equal(read_cube["a_b_1"], cube[2])


def test_text_labels_reduced_cubes_and_other_crs(tmp_path, name):
    cube = raster(crs="EPSG:3035").assign_coords(t=["June", "July"])
    read_cube = read(save(cube, tmp_path, name))
    assert read_cube["t"].values.tolist() == ["June", "July"]
    assert read_cube.odc.crs.to_epsg() == 3035
    folder = tmp_path / "reduced"
    folder.mkdir()
    series = cube.mean(("x", "y"))
    read_cube = read(save(series.chunk(), folder, name))
    np.testing.assert_array_equal(read_cube["B03"], series[:, 2])


@pytest.mark.filterwarnings("ignore:Unable to decode time axis into full")
@pytest.mark.parametrize(
    ("period", "labels", "starts", "end"),
    [
        ("month", ["2022-06", "2022-07"], ["2022-06-01", "2022-07-01"], "2022-08-01"),
        ("season", ["2018-djf", "2018-mam"], ["2017-12-01", "2018-03-01"], "2018-06-01"),
        ("week", ["2020-53", "2021-01"], ["2020-12-28", "2021-01-04"], "2021-01-11"),
        ("hour", ["2022-06-01-23", "2022-06-02-00"], ["2022-06-01T23", "2022-06-02"], "2022-06-02T01"),
        ("decade", ["2250", "2260"], ["2250-01-01", "2260-01-01"], "2270-01-01"),
    ],
)
@pytest.mark.parametrize("layout", ["variables", "cube"])
def test_calendar_periods_are_times_with_bounds(tmp_path, name, layout, period, labels, starts, end):
    cube = raster().assign_coords(t=("t", labels, {"openeo_period": period}))
    asset = save(cube.chunk(), tmp_path, name, layout=layout)
    read_cube = read(asset)
    starts = np.array(starts, "datetime64[s]")
    np.testing.assert_array_equal(read_cube["t"].values, starts)
    bounds = read_cube["t_bnds"].values
    np.testing.assert_array_equal(bounds[:, 0], starts)
    np.testing.assert_array_equal(bounds[:, 1], np.array([starts[1], end], "datetime64[s]"))
    assert read_cube["t_label"].values.tolist() == labels
    assert read_cube.cf.bounds["time"] == ["t_bnds"]
    assert read_cube.cf["time"].name == "t"
    assert read_cube.sel(t=slice(starts[1], None)).sizes["t"] == 1
    assert asset.start_datetime == f"{starts[0]}Z"


def test_vector_cubes_of_calendar_periods(tmp_path, name):
    cube = vector().isel(t=[0, 1]).assign_coords(t=("t", ["2019", "2020"], {"openeo_period": "year"}))
    read_cube = read(save(cube, tmp_path, name))
    assert read_cube["t"].dtype.kind == "M"
    assert read_cube["t_label"].values.tolist() == ["2019", "2020"]
    np.testing.assert_array_equal(read_cube["B02"].transpose("geometry", "t"), cube[..., 1])


def test_bands_named_as_the_bounds_of_times(tmp_path, name):
    labels = ("t", ["2022-06", "2022-07"], {"openeo_period": "month"})
    cube = raster().assign_coords(t=labels, bands=["t_bnds", "t_label", "B03"])
    read_cube = read(save(cube, tmp_path, name))
    assert set(read_cube.data_vars) == {"t_bnds_1", "t_label_1", "B03"}


def test_fractions_of_seconds(tmp_path, name):
    cube = raster(dates=2)
    cube["t"] = np.array(["2022-06-01T10:00:00.123456", "2022-06-02"], "M8[ns]")
    np.testing.assert_array_equal(read(save(cube, tmp_path, name))["t"], cube["t"])


@pytest.mark.parametrize("crs", [4326, 32632])
def test_vector_cubes_are_written(tmp_path, name, crs):
    cube = vector(crs=crs)
    read_cube = read(save(cube, tmp_path, name)).xvec.decode_cf()
    np.testing.assert_array_equal(read_cube["B02"].transpose("geometry", "t"), cube[..., 1])
    assert [g.bounds for g in read_cube["geometry"].values] == [g.bounds for g in cube["geometry"].values]
    assert read_cube["field"].values.tolist() == ["a", "b", "c"]
    assert pyproj.CRS(read_cube.xindexes["geometry"].crs) == pyproj.CRS(crs)


def test_vector_cubes_without_a_crs_are_written(tmp_path, name):
    read_cube = read(save(vector(crs=None), tmp_path, name))
    assert "spatial_ref" not in read_cube.variables
    assert [g.bounds for g in read_cube.xvec.decode_cf()["geometry"].values] == [
        g.bounds for g in vector()["geometry"].values
    ]


def test_unsupported_cubes_are_refused(tmp_path, name):
    for data, reason in [([1, 2], "not a data cube"), (raster().astype(str), "real numbers")]:
        with pytest.raises(FormatUnsuitable, match=reason):
            save(data, tmp_path, name)


@pytest.mark.parametrize("layout", ["variables", "cube"])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_rules_of_cf(tmp_path, name, layout, crs):
    """What a checker of the CF conventions 1.11 looks at, as far as it applies to rasters."""
    cube = raster("int16", crs=crs).odc.assign_crs(crs)
    cube.attrs["nodata"] = np.int16(7)
    path = save(cube, tmp_path, name, layout=layout).path
    opened = partial(xr.open_zarr, path) if name == "Zarr" else partial(xr.open_dataset, path)
    with opened(decode_cf=False) as raw:
        assert raw.attrs["Conventions"] == "CF-1.11"
        assert raw.attrs["title"]
        assert raw.attrs["history"]
        for entry in raw.data_vars.values():
            if entry.name != "spatial_ref":
                assert entry.attrs["long_name"]
                assert entry.attrs["grid_mapping"] == "spatial_ref"
                assert np.asarray(entry.attrs["_FillValue"]).astype(entry.dtype) == 7
                order = [d for d in entry.dims if d in "tyx"]
                assert order == ["t", "y", "x"]
        assert raw["t"].attrs["units"].startswith("seconds since 1970-01-01")
        assert raw["t"].attrs["calendar"] == "standard"
        mapping = raw["spatial_ref"].attrs
        assert pyproj.CRS.from_cf(mapping) == pyproj.CRS(crs)
        for axis in "yx":
            assert "_FillValue" not in raw[axis].attrs
            assert (np.diff(raw[axis].values) != 0).all()
    with opened(decode_coords="all") as dataset:
        assert dataset.cf.axes.keys() >= {"X", "Y", "T"}
        assert dataset.cf["T"].name == "t"
        kind = "longitude" if crs == "EPSG:4326" else "projection_x_coordinate"
        assert dataset.cf.standard_names[kind] == ["x"]
        assert dataset["x"].attrs["units"] == ("degrees_east" if crs == "EPSG:4326" else "m")
        assert dataset.cf.grid_mapping_names
