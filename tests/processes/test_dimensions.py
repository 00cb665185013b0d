"""Processes on dimensions and labels."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from odc_openeo import cube, errors
from odc_openeo.processes.dimensions import (
    add_dimension,
    create_data_cube,
    dimension_labels,
    drop_dimension,
    flatten_dimensions,
    rename_dimension,
    rename_labels,
    trim_cube,
    unflatten_dimension,
)
from tests.processes.rasters import grid, nothing_computes, raster

SHAPE = (2, 3, 4, 5)


@pytest.fixture
def values() -> np.ndarray:
    return np.arange(120, dtype="uint16").reshape(SHAPE)


@pytest.fixture
def data(values: np.ndarray) -> xr.DataArray:
    return raster(values, grid(4, 5), chunks={"t": 1, "y": 2}, nodata=0)


def test_a_cube_is_built_from_an_empty_one() -> None:
    empty = create_data_cube()
    assert empty.dims == ()
    built = add_dimension(add_dimension(empty, "bands", "B1", "bands"), "when", "2022-06-01", "temporal")
    assert built.dims == ("when", "bands")
    assert np.isnan(built.values).all()
    assert cube.dimension_type(built, "when") == "temporal"


@pytest.mark.parametrize(
    ("type_", "label", "shown"),
    [
        ("temporal", "2022-06-01T02:00:00+02:00", "2022-06-01T00:00:00Z"),
        ("temporal", "2022", "2022"),
        ("bands", "B1", "B1"),
        ("other", 1.5, 1.5),
        ("spatial", 3, 3),
    ],
)
def test_an_added_dimension_has_type_and_label(
    data: xr.DataArray, values: np.ndarray, type_: str, label: object, shown: object
) -> None:
    with nothing_computes():
        added = add_dimension(data, "new", label, type_)
    assert added.dims == ("new", "t", "bands", "y", "x")
    assert cube.dimension_type(added, "new") == type_
    assert dimension_labels(added, "new") == [shown]
    assert (added.dtype, added.attrs["nodata"], added.odc.geobox) == ("uint16", 0, data.odc.geobox)
    np.testing.assert_array_equal(drop_dimension(added, "new").values, values)


def test_a_dimension_that_exists_is_not_added(data: xr.DataArray) -> None:
    with pytest.raises(errors.DimensionExists):
        add_dimension(data, "t", 1)
    full = add_dimension(data, "z", 1, "spatial")
    with pytest.raises(errors.DimensionExists):
        add_dimension(full, "depth", 1, "spatial")


def test_only_a_single_label_can_be_dropped(data: xr.DataArray) -> None:
    with pytest.raises(errors.DimensionLabelCountMismatch):
        drop_dimension(data, "t")
    with pytest.raises(errors.DimensionNotAvailable):
        drop_dimension(data, "time")


def test_the_no_data_value_of_a_dropped_band_stays(data: xr.DataArray) -> None:
    per_band = cube.with_nodata(data, xr.DataArray([0, 1, 60], dims="bands"))
    dropped = drop_dimension(per_band.isel(bands=[2]), "bands")
    assert cube.nodata(dropped) == 60
    assert "nodata" not in dropped.coords


def test_a_renamed_dimension_keeps_type_and_labels(data: xr.DataArray) -> None:
    for source, target, type_ in [("t", "bands2", "temporal"), ("bands", "t2", "bands")]:
        renamed = rename_dimension(data, source, target)
        assert cube.dimension_type(renamed, target) == type_
        assert dimension_labels(renamed, target) == dimension_labels(data, source)
    swapped = rename_dimension(rename_dimension(data, "bands", "b"), "t", "bands")
    assert cube.dimension_type(swapped, "bands") == "temporal"
    assert cube.TYPE not in data.bands.attrs
    with pytest.raises(errors.DimensionExists):
        rename_dimension(data, "t", "x")
    with pytest.raises(errors.DimensionNotAvailable):
        rename_dimension(data, "foo", "bar")


def test_labels_are_renamed_in_place(data: xr.DataArray, values: np.ndarray) -> None:
    with nothing_computes():
        renamed = rename_labels(data, "bands", ["near infrared", "r"], ["B03", "B01"])
    assert dimension_labels(renamed, "bands") == ["r", "B02", "near infrared"]
    np.testing.assert_array_equal(renamed.values, values)
    times = rename_labels(data, "t", ["2023-01-01"], ["2022-06-01"])
    assert dimension_labels(times, "t") == ["2023-01-01T00:00:00Z", "2022-06-06T00:00:00Z"]
    words = rename_labels(data, "t", ["first"], ["2022-06-01T00:00:00Z"])
    assert dimension_labels(words, "t") == ["first", "2022-06-06T00:00:00Z"]
    assert cube.dimension_type(words, "t") == "temporal"


def test_enumerated_labels_are_renamed_without_source(data: xr.DataArray) -> None:
    counted = data.assign_coords(bands=[0, 1, 2])
    assert dimension_labels(rename_labels(counted, "bands", ["a", "b", 7]), "bands") == ["a", "b", 7]
    with pytest.raises(errors.LabelMismatch):
        rename_labels(counted, "bands", ["a"])


@pytest.mark.parametrize(
    ("target", "source", "error"),
    [
        (["a"], [], errors.LabelsNotEnumerated),
        (["a"], ["B01", "B02"], errors.LabelMismatch),
        (["a"], ["B09"], errors.LabelNotAvailable),
        (["B02"], ["B01"], errors.LabelExists),
    ],
)
def test_labels_of_the_wrong_number_are_refused(
    data: xr.DataArray, target: list, source: list, error: type
) -> None:
    with pytest.raises(error):
        rename_labels(data, "bands", target, source)


def test_flattened_dimensions_unflatten_again(data: xr.DataArray, values: np.ndarray) -> None:
    with nothing_computes():
        flat = flatten_dimensions(data, ["bands", "t"], "both")
        back = unflatten_dimension(flat, "both", ["b", "when"])
    assert flat.dims == ("both", "y", "x")
    assert dimension_labels(flat, "both")[:2] == ["B01~2022-06-01T00:00:00Z", "B01~2022-06-06T00:00:00Z"]
    np.testing.assert_array_equal(flat.values, values.swapaxes(0, 1).reshape(6, 4, 5))
    assert back.dims == ("b", "when", "y", "x")
    assert cube.dimension_type(back, "b") == "other"
    np.testing.assert_array_equal(back.values, values.swapaxes(0, 1))
    assert (back.dtype, back.attrs["nodata"], back.odc.geobox) == ("uint16", 0, data.odc.geobox)


def test_unflattening_sorts_labels_that_are_mixed_up() -> None:
    mixed = xr.DataArray([4, 1, 3, 2], dims="X", coords={"X": ["2021~B2", "2020~B1", "2021~B1", "2020~B2"]})
    result = unflatten_dimension(mixed, "X", ["A", "B"])
    assert dict(zip(result.A.values, result.sel(B="B2").values, strict=True)) == {"2021": 4, "2020": 2}


def test_flattening_errors(data: xr.DataArray) -> None:
    with pytest.raises(errors.DimensionNotAvailable):
        flatten_dimensions(data, ["bands", "nope"], "X")
    with pytest.raises(errors.TargetDimensionExists):
        flatten_dimensions(data, ["bands", "t"], "x")
    with pytest.raises(errors.ProcessParameterInvalid, match="parts"):
        unflatten_dimension(data, "bands", ["a", "b"])
    holes = data.assign_coords(bands=["1~1", "1~2", "2~1"])
    with pytest.raises(errors.ProcessParameterInvalid, match="combinations"):
        unflatten_dimension(holes, "bands", ["a", "b"])


@pytest.mark.parametrize("chunks", [None, {"t": 1}])
def test_trimming_removes_labels_without_data(chunks: dict | None) -> None:
    values = np.zeros((3, 3, 6, 5), dtype="uint8")
    values[1, 0, 2:4, 1:3] = 7
    values[1, 2, 2, 1] = 7
    trimmed = trim_cube(raster(values, grid(6, 5), chunks, nodata=0))
    assert trimmed.shape == (1, 2, 2, 2)
    assert list(trimmed.bands.values) == ["B01", "B03"]
    assert trimmed.odc.geobox == grid(6, 5)[2:4, 1:3]
    np.testing.assert_array_equal(trimmed.values[0], values[1, [0, 2], 2:4, 1:3])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("spectral", "bands"),
        ("band", "bands"),
        ("Bands", "bands"),
        ("time", "t"),
        ("lat", "y"),
        ("longitude", "x"),
        ("tempo", None),
    ],
)
def test_names_of_dimensions_of_other_services(name: str, meant: str | None) -> None:
    data = raster(np.zeros((1, 1, 2, 2)), grid(2, 2))
    with pytest.raises(errors.DimensionNotAvailable) as raised:
        drop_dimension(data, name)
    message = raised.value.message
    assert f"no dimension '{name}'. It has: t, bands, y, x." in message
    assert message.endswith(f"Use '{meant}' instead of '{name}'." if meant else "t, bands, y, x.")


def test_renamed_dimensions_are_suggested_as_well() -> None:
    data = rename_dimension(raster(np.zeros((1, 1, 2, 2)), grid(2, 2)), "bands", "spectral")
    with pytest.raises(errors.DimensionNotAvailable, match="Use 'spectral' instead of 'bands'"):
        drop_dimension(data, "bands")
