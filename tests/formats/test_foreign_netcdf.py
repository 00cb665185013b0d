"""netCDF files that other programs write: axes, spacing, times, values, packing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo.cube import valid
from odc_openeo.errors import FileContentInvalid
from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.read import get_input_format
from tests.formats.cubes import raster

UTM = {"grid_mapping_name": "transverse_mercator"}


def read(path: Path) -> xr.DataArray:
    return get_input_format("netCDF").read([path])


def write(
    path: Path,
    y: Any,
    x: Any,
    *,
    names: tuple[str, str] = ("lat", "lon"),
    more: Mapping[str, Any] | None = None,
    values: Any = None,
    attrs: Mapping[str, Any] | None = None,
) -> Path:
    values = np.arange(len(y) * len(x), dtype="int16").reshape(len(y), len(x)) if values is None else values
    dims = (*(more or {}), *names)
    coords = {**(more or {}), names[0]: y, names[1]: x}
    values = np.broadcast_to(values, (*(len(c[1]) for c in (more or {}).values()), *values.shape))
    xr.Dataset({"v": (dims, values, dict(attrs or {}))}, coords).to_netcdf(path)
    return path


# --- Spacing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lat", "place"),
    [
        ([47, 46.2, 45.1], "the step is -0.8 before 46.2 and -1.1 after it"),
        ([47, 46, 45, 43], "-1 before 45 and -2 after"),
        ([43, 45, 46, 47], "2 before 45 and 1 after"),
        ([40, 41, 40.5], "is not evenly spaced"),
        ([40, 40, 40], "is not evenly spaced"),
        ([87.8638, 85.0965, 82.3129, 79.5256, 76.7369, 73.9475, 71.1578], "-2.7673 before 85.0965"),
    ],
)
@pytest.mark.parametrize("is_latitude", [True, False])
def test_uneven_coordinates_are_refused(
    tmp_path: Path, lat: list[float], place: str, is_latitude: bool
) -> None:
    even = [10.0, 11.0]
    write(tmp_path / "a.nc", *((lat, even) if is_latitude else (even, lat)))
    with pytest.raises(FileContentInvalid, match="not evenly spaced") as caught:
        read(tmp_path / "a.nc")
    assert place in str(caught.value)
    assert ("'lat'" if is_latitude else "'lon'") in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(3, 400),
    step=st.sampled_from([1 / 120, 1 / 12, 0.05, 0.1, 0.25, 1.0, 10.0, 30.0]),
    first=st.integers(-90, 90),
    rounding=st.sampled_from(["float32", "float64", "decimals"]),
    lost=st.integers(1, 398),
    down=st.booleans(),
)
def test_rounded_coordinates_are_even_but_a_missing_row_is_not(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    step: float,
    first: int,
    rounding: str,
    lost: int,
    down: bool,
) -> None:
    exact = first + step * np.arange(rows) * (-1 if down else 1)
    stored = exact.round(4) if rounding == "decimals" else exact.astype(rounding)
    folder = tmp_path_factory.mktemp("even")
    names = ("y", "x")
    crs = {"spatial_ref": "EPSG:32632"}

    def store(name: str, y: np.ndarray) -> Path:
        dataset = xr.Dataset({"v": (names, np.zeros((len(y), 2)))}, {"y": y, "x": [0.0, step]})
        dataset["crs"] = ((), 0, crs)
        dataset["v"].attrs["grid_mapping"] = "crs"
        dataset.to_netcdf(folder / name)
        return folder / name

    y = read(store("even.nc", stored)).y.values
    np.testing.assert_allclose(y, np.sort(exact)[::-1], rtol=0, atol=step * 0.2)
    if rows > 3:
        with pytest.raises(FileContentInvalid, match="not evenly spaced"):
            read(store("lost.nc", np.delete(stored, 1 + lost % (rows - 2))))


def test_rows_and_columns_run_south_and_east_whatever_the_file(tmp_path: Path) -> None:
    values = np.arange(6, dtype="int16").reshape(2, 3)
    write(tmp_path / "a.nc", [45.0, 46.0], [12.0, 11.0, 10.0], values=values)
    cube = read(tmp_path / "a.nc")
    np.testing.assert_array_equal(cube.values[0], values[::-1, ::-1])
    assert (list(cube.y.values), list(cube.x.values)) == ([46, 45], [10, 11, 12])
    assert cube.odc.geobox.transform[:6] == (1, 0, 9.5, 0, -1, 46.5)


# --- A single row or column ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 10), (10, 1), (1, 1)])
@pytest.mark.parametrize("layout", ["variables", "cube"])
def test_own_files_of_one_row_or_column_are_read(tmp_path: Path, shape: tuple[int, int], layout: str) -> None:
    cube = raster("int16", bands=2, shape=shape)
    (asset,) = write_outputs(None, [Output.from_data(cube, "netCDF", {"layout": layout})], tmp_path)
    again = read(asset.path)
    assert again.odc.geobox == cube.odc.geobox
    np.testing.assert_array_equal(again.values, cube.values)


@pytest.mark.parametrize("shape", [(1, 10), (10, 1), (1, 1)])
def test_geotiffs_of_one_row_or_column_are_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    cube = raster("int16", dates=None, bands=2, shape=shape)
    (asset,) = write_outputs(None, [Output.from_data(cube, "GTiff")], tmp_path)
    again = get_input_format("GTiff").read([asset.path])
    assert again.odc.geobox == cube.odc.geobox
    np.testing.assert_array_equal(again.values, cube.values)


@pytest.mark.parametrize("bounds", [[46.5, 47.5], [47.5, 46.5]])
def test_bounds_tell_the_size_of_a_single_row(tmp_path: Path, bounds: list[float]) -> None:
    dataset = xr.Dataset({"v": (("lat", "lon"), [[1, 2]])}, {"lat": [47.0], "lon": [10.0, 11.0]})
    dataset["lat"].attrs["bounds"] = "lat_bnds"
    dataset["lat_bnds"] = (("lat", "nv"), [bounds])
    dataset.to_netcdf(tmp_path / "a.nc")
    cube = read(tmp_path / "a.nc")
    assert abs(cube.odc.geobox.resolution.y) == 1
    assert (float(cube.y[0]), cube.odc.geobox.extent.boundingbox[1::2]) == (47, (46.5, 47.5))


def test_a_geotransform_tells_the_size_of_a_row_taken_out_of_a_larger_file(tmp_path: Path) -> None:
    cube = raster("int16", bands=1, shape=(10, 8))
    (asset,) = write_outputs(None, [Output.from_data(cube, "netCDF")], tmp_path)
    with xr.open_dataset(asset.path, decode_coords="all") as whole:
        whole.isel(y=[7], x=[3]).to_netcdf(tmp_path / "part.nc")
    part = read(tmp_path / "part.nc")
    assert part.odc.geobox == cube.odc.geobox[7:8, 3:4]
    np.testing.assert_array_equal(part.values, cube.values[..., 7:8, 3:4])


@pytest.mark.parametrize(("lat", "lon"), [([47.0], [10.0, 11.0]), ([47.0, 46.0], [10.0])])
def test_a_single_row_of_unknown_size_is_refused(tmp_path: Path, lat: Any, lon: Any) -> None:
    write(tmp_path / "a.nc", lat, lon)
    with pytest.raises(FileContentInvalid, match="nothing tells the size of the pixel"):
        read(tmp_path / "a.nc")


# --- Times ---------------------------------------------------------------------------------------


def write_times(path: Path, numbers: Any, units: str, calendar: str | None = None) -> Path:
    attrs = {"units": units, **({"calendar": calendar} if calendar else {})}
    return write(path, [46.0, 45.0], [10.0, 11.0], more={"time": ("time", numbers, attrs)})


@pytest.mark.parametrize(
    ("numbers", "units", "calendar", "dates"),
    [
        ([0, 1, 14], "months since 2000-01-15", None, ["2000-01-15", "2000-02-15", "2001-03-15"]),
        ([0.0, 1.0], "years since 1999-03-01", "gregorian", ["1999-03-01", "2000-03-01"]),
        ([58, 59], "days since 2000-01-01", "noleap", ["2000-02-28", "2000-03-01"]),
        ([15, 45], "days since 2000-01-01", "360_day", ["2000-01-16", "2000-02-16"]),
        ([0, 36], "hours since 2000-01-01", "proleptic_gregorian", ["2000-01-01", "2000-01-02T12"]),
        ([20240131, 20240201.25], "day as %Y%m%d.%f", None, ["2024-01-31", "2024-02-01T06"]),
    ],
)
def test_times_of_unambiguous_units_and_calendars(
    tmp_path: Path, numbers: Any, units: str, calendar: str | None, dates: list[str]
) -> None:
    cube = read(write_times(tmp_path / "a.nc", numbers, units, calendar))
    assert cube.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(cube.t.values, np.array(dates, "datetime64[ns]"))


@pytest.mark.parametrize(
    ("numbers", "units", "calendar", "reason"),
    [
        ([0.5], "months since 2000-01-01", None, "only whole months since a day up to the 28th"),
        ([1], "months since 2000-01-31", None, "months since 2000-01-31"),
        ([59], "days since 2001-01-01", "360_day", "calendar '360_day', which has the day 2001-02-30"),
        ([59], "days since 2001-01-01", "all_leap", "calendar 'all_leap', which has the day 2001-02-29"),
        ([0], "days since 2001-01-01", "julian", "calendar 'julian'"),
        ([0], "days since 2001-01-01", "martian", "calendar 'martian'"),
        ([0], "fortnights since 2001-01-01", None, "unit 'fortnights since 2001-01-01'"),
        ([0], "days since the flood", None, "unit 'days since the flood'"),
        ([200_000], "days since 2000-01-01", None, "dates from 1678 to 2261"),
        ([200_000], "days since 2000-01-01", "noleap", "dates from 1678 to 2261"),
        ([1e300], "months since 2000-01-01", None, "dates from 1678 to 2261"),
        ([9e5], "months since 2000-01-01", None, "dates from 1678 to 2261"),
        ([np.nan], "days since 2000-01-01", None, "missing times"),
        ([np.inf], "months since 2000-01-01", None, "missing times"),
        ([20241331], "day as %Y%m%d.%f", None, "numbers that are not dates"),
    ],
)
def test_ambiguous_times_are_refused_with_their_unit_or_calendar(
    tmp_path: Path, numbers: Any, units: str, calendar: str | None, reason: str
) -> None:
    with pytest.raises(FileContentInvalid) as caught:
        read(write_times(tmp_path / "a.nc", numbers, units, calendar))
    assert reason in str(caught.value)
    assert "damaged" not in str(caught.value)


@settings(deadline=None, max_examples=30)
@given(
    days=st.lists(st.integers(0, 60_000), min_size=1, max_size=5, unique=True),
    calendar=st.sampled_from(["standard", "noleap", "360_day", "all_leap"]),
)
def test_dates_are_those_of_the_calendar_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], calendar: str
) -> None:
    path = tmp_path_factory.mktemp("times") / "a.nc"
    write_times(path, sorted(days), "days since 1950-01-01", calendar)
    expected = [str(d)[:10] for d in cftime.num2date(sorted(days), "days since 1950-01-01", calendar)]
    if all(map(is_date, expected)):
        assert [str(label)[:10] for label in read(path).t.values] == expected
    else:
        with pytest.raises(FileContentInvalid, match=f"calendar '{calendar}'"):
            read(path)


def is_date(day: str) -> bool:
    try:
        np.datetime64(day)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("units", [None, "1"])
def test_numbers_that_are_no_times_stay_numbers(tmp_path: Path, units: str | None) -> None:
    attrs = {"units": units} if units else {}
    write(tmp_path / "a.nc", [46.0, 45.0], [10.0, 11.0], more={"time": ("time", [3, 7], attrs)})
    cube = read(tmp_path / "a.nc")
    assert cube.dims == ("bands", "time", "y", "x")
    assert list(cube.time.values) == [3, 7]


def test_variables_in_days_are_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.nc", [46.0, 45.0], [10.0, 11.0], attrs={"units": "days since 2000-01-01"})
    cube = read(tmp_path / "a.nc")
    np.testing.assert_array_equal(cube.values, [[[0, 1], [2, 3]]])


# --- Reference systems, dimensions ---------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:You will likely lose important projection information")
def test_grid_mappings_by_parameters_and_kilometres(tmp_path: Path) -> None:
    """Sea ice products have polar stereographic coordinates in kilometres and no WKT."""
    dataset = xr.Dataset(
        {"ice": (("yc", "xc"), np.arange(6.0).reshape(2, 3), {"grid_mapping": "polar"})},
        {
            "yc": ("yc", [100.0, 75.0], {"standard_name": "projection_y_coordinate", "units": "km"}),
            "xc": ("xc", [0.0, 25.0, 50.0], {"standard_name": "projection_x_coordinate", "units": "km"}),
        },
    )
    dataset["polar"] = (
        (),
        0,
        {
            "grid_mapping_name": "polar_stereographic",
            "straight_vertical_longitude_from_pole": -45.0,
            "latitude_of_projection_origin": 90.0,
            "standard_parallel": 70.0,
            "semi_major_axis": 6378273.0,
            "inverse_flattening": 298.279411,
            "false_easting": 0.0,
            "false_northing": 0.0,
        },
    )
    dataset.to_netcdf(tmp_path / "a.nc")
    cube = read(tmp_path / "a.nc")
    assert list(cube.x.values) == [0, 25000, 50000]
    assert cube.odc.geobox.resolution.x == 25000
    assert "+proj=stere" in cube.odc.crs.proj.to_proj4()


@pytest.mark.parametrize("dims", [("lon", "lat"), ("time", "lat", "lon", "band"), ("lon", "time", "lat")])
def test_dimensions_in_any_order(tmp_path: Path, dims: tuple[str, ...]) -> None:
    labels = {
        "lon": ("lon", [10.0, 11.0, 12.0], {}),
        "lat": ("lat", [45.0, 46.0], {}),
        "band": ("band", [1, 2], {}),
        "time": ("time", [0, 1], {"units": "days since 2020-01-01"}),
    }
    shape = [len(labels[d][1]) for d in dims]
    data = xr.DataArray(np.arange(np.prod(shape)).reshape(shape), dims=dims)
    xr.Dataset({"v": data}, {d: labels[d] for d in dims}).to_netcdf(tmp_path / "a.nc")
    cube = read(tmp_path / "a.nc").isel(bands=0)
    expected = data.transpose(*(d for d in ("time", "band") if d in dims), "lat", "lon")[..., ::-1, :]
    np.testing.assert_array_equal(cube.values, expected.values)


def test_curvilinear_grids_are_refused_by_name(tmp_path: Path) -> None:
    lat, lon = np.meshgrid([45.0, 46.0], [10.0, 11.0], indexing="ij")
    positions = {
        "lat": (("y", "x"), lat, {"units": "degrees_north"}),
        "lon": (("y", "x"), lon, {"units": "degrees_east"}),
    }
    xr.Dataset({"v": (("y", "x"), lat)}, positions).to_netcdf(tmp_path / "a.nc")
    renamed = {"lat": (("j", "i"), lat, positions["lat"][2]), "lon": (("j", "i"), lon, positions["lon"][2])}
    xr.Dataset({"v": (("j", "i"), lat), **renamed}).to_netcdf(tmp_path / "b.nc")
    for name in ("a.nc", "b.nc"):
        with pytest.raises(FileContentInvalid, match="curvilinear"):
            read(tmp_path / name)


def test_variables_in_groups_are_named(tmp_path: Path) -> None:
    xr.Dataset({"v": ("n", [1.0])}).to_netcdf(tmp_path / "a.nc")
    dataset = xr.Dataset({"v": (("lat", "lon"), np.ones((2, 2)))}, {"lat": [1.0, 2.0], "lon": [1.0, 2.0]})
    dataset.to_netcdf(tmp_path / "a.nc", group="science", mode="a")
    with pytest.raises(FileContentInvalid, match="groups \\(science\\)"):
        read(tmp_path / "a.nc")


def test_strings_on_the_grid_are_left_out(tmp_path: Path) -> None:
    names = np.array([["a", "b"], ["c", "d"]], dtype=object)
    dataset = xr.Dataset(
        {"label": (("lat", "lon"), names), "v": (("lat", "lon"), np.ones((2, 2)))},
        {"lat": [2.0, 1.0], "lon": [1.0, 2.0]},
    )
    dataset.to_netcdf(tmp_path / "a.nc")
    assert list(read(tmp_path / "a.nc").bands.values) == ["v"]


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(
    ("attrs", "missing"),
    [
        ({"_FillValue": 5}, [5]),
        ({"missing_value": 5}, [5]),
        ({"_FillValue": 5, "missing_value": 6}, [5, 6]),
        ({"valid_range": [2, 7]}, [0, 1, 8, 9]),
        ({"valid_min": 2, "_FillValue": 5}, [0, 1, 5]),
        ({"valid_max": 7}, [8, 9]),
        ({}, []),
    ],
)
def test_all_ways_of_marking_missing_values(
    tmp_path: Path, dtype: str, attrs: Mapping[str, Any], missing: list[int]
) -> None:
    values = np.arange(10, dtype=dtype).reshape(2, 5)
    typed = {key: np.array(value, dtype) for key, value in attrs.items()}
    write(tmp_path / "a.nc", [46.0, 45.0], np.arange(5.0), values=values, attrs=typed)
    cube = read(tmp_path / "a.nc").isel(bands=0)
    assert cube.dtype == dtype
    is_valid = valid(cube).values
    np.testing.assert_array_equal(is_valid, ~np.isin(values, missing))
    np.testing.assert_array_equal(cube.values[is_valid], values[is_valid])


def test_limits_of_unpacked_values_are_not_those_of_raw_ones(tmp_path: Path) -> None:
    attrs = {"scale_factor": 0.01, "add_offset": 280.0, "valid_range": np.array([200.0, 330.0])}
    write(tmp_path / "a.nc", [46.0, 45.0], [10.0, 11.0], attrs=attrs)
    assert valid(read(tmp_path / "a.nc")).values.all()


def test_signed_integers_that_stand_for_unsigned_ones(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format="NETCDF3_CLASSIC") as file:
        for name, labels in (("lat", [46.0, 45.0]), ("lon", [10.0, 11.0])):
            file.createDimension(name, 2)
            file.createVariable(name, "f8", (name,))[:] = labels
        variable = file.createVariable("v", "i1", ("lat", "lon"), fill_value=-1)
        variable.setncattr("_Unsigned", "true")
        variable.set_auto_maskandscale(False)
        variable[:] = np.array([[200, 255], [0, 100]], "u1").view("i1")
    cube = read(tmp_path / "a.nc")
    np.testing.assert_array_equal(cube.values[0], [[200, 255], [0, 100]])
    assert (cube.dtype, cube.attrs["nodata"]) == (np.uint8, 255)


def test_packing_is_kept_beside_raw_values(tmp_path: Path) -> None:
    attrs = {"units": "K", "scale_factor": 0.01, "add_offset": 280.0}
    values = np.array([[50, 0], [1, 2]], "int16")
    write(tmp_path / "a.nc", [46.0, 45.0], [10.0, 11.0], attrs=attrs, values=values)
    cube = read(tmp_path / "a.nc")
    np.testing.assert_array_equal(cube.values[0], values)
    assert [cube[name].values.tolist() for name in ("unit", "scale", "offset")] == [["K"], [0.01], [280.0]]


def test_packed_coordinates_are_unpacked(tmp_path: Path) -> None:
    dataset = xr.Dataset(
        {"v": (("lat", "lon"), np.ones((2, 3)))}, {"lat": [46.0, 45.0], "lon": [10.0, 10.5, 11.0]}
    )
    packed = {"lon": {"dtype": "int16", "scale_factor": 0.5, "add_offset": 4.0, "_FillValue": None}}
    dataset.to_netcdf(tmp_path / "a.nc", encoding=packed)
    assert list(read(tmp_path / "a.nc").x.values) == [10.0, 10.5, 11.0]
