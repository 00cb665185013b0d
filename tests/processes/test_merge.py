"""Merging of cubes: every combination of equal, overlapping and separate labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr
import xvec  # noqa: F401  (registers the .xvec accessor)

from odc_openeo import cube, errors
from odc_openeo.processes.dimensions import add_dimension, rename_dimension
from odc_openeo.processes.merge import merge_cubes
from tests.processes.rasters import grid, nothing_computes, raster

VALUES = np.arange(1, 2 * 3 * 8 * 10 + 1, dtype="uint16").reshape(2, 3, 8, 10)
CHUNKS = {"t": 1, "y": 4}


def cube_of(values: np.ndarray = VALUES, **options: Any) -> xr.DataArray:
    geobox = options.pop("geobox", grid(8, 10))
    chunks = CHUNKS if values.ndim == 4 else {"y": 4}
    return raster(values, geobox, chunks=chunks, nodata=options.pop("nodata", 0))


def add(x: Any, y: Any, context: Any = None) -> Any:
    return cube.decode(x) + cube.decode(y)


def merged(*cubes: xr.DataArray, resolver: Any = None, context: Any = None) -> xr.DataArray:
    with nothing_computes():
        return merge_cubes(*cubes, overlap_resolver=resolver, context=context)


def test_separate_bands_are_joined() -> None:
    other = cube_of(VALUES + 1000).assign_coords(bands=["C1", "C2", "B00"])
    result = merged(cube_of(), other)
    assert (result.dtype, result.attrs["nodata"], result.dims) == ("uint16", 0, ("t", "bands", "y", "x"))
    assert list(result.bands.values) == ["B01", "B02", "B03", "C1", "C2", "B00"]
    np.testing.assert_array_equal(result.values, np.concatenate([VALUES, VALUES + 1000], axis=1))
    assert result.odc.geobox == grid(8, 10)


def test_bands_of_other_types_keep_their_own_no_data_value() -> None:
    classes = cube_of((VALUES % 12).astype("uint8"), nodata=11).assign_coords(bands=["C1", "C2", "C3"])
    result = merged(cube_of(), classes)
    assert result.dtype == "uint16"
    assert list(result.nodata.values) == [0, 0, 0, 11, 11, 11]
    np.testing.assert_array_equal(cube.valid(result).values[:, 3:], VALUES % 12 != 11)
    again = merged(result, cube_of().assign_coords(bands=["D1", "D2", "D3"]))
    assert list(again.nodata.values) == [0, 0, 0, 11, 11, 11, 0, 0, 0]
    floats = merged(cube_of(), cube_of(VALUES / 2).assign_coords(bands=["C1", "C2", "C3"]))
    assert floats.dtype.kind == "f"
    assert "nodata" not in floats.attrs


@pytest.mark.parametrize("swapped", [False, True])
def test_bands_stay_integers_also_at_the_dates_of_the_other_cube(swapped: bool) -> None:
    """Whatever is missing there has the no-data value of its band."""
    later = np.array(["2022-06-05", "2022-08-01"], "datetime64[ns]")
    classes = cube_of((VALUES % 12).astype("uint8"), nodata=11)
    classes = classes.assign_coords(bands=["C1", "C2", "C3"], t=later).isel(x=slice(2, None))
    cubes = [cube_of(nodata=65535), classes]
    result = merged(*(cubes[::-1] if swapped else cubes))
    assert (result.dtype, result.sizes["t"]) == ("uint16", 4)
    ours, theirs = (result.sel(bands=c.bands, t=c.t) for c in cubes)
    np.testing.assert_array_equal(ours.values, VALUES)
    np.testing.assert_array_equal(theirs.values[..., 2:], VALUES[..., 2:] % 12)
    assert (theirs.values[..., :2] == 11).all()
    assert int(cube.valid(result).sum()) == VALUES.size + int((VALUES[..., 2:] % 12 != 11).sum())
    assert result.sel(bands="B01", t=later).values.min() == 65535


def test_band_metadata_is_kept() -> None:
    one = cube_of().assign_coords(common_name=("bands", ["red", "nir", ""]))
    result = merged(one, cube_of().assign_coords(bands=["C1", "C2", "C3"]).drop_vars("common_name"))
    assert list(result.common_name.values) == ["red", "nir", "", "", "", ""]


def test_equal_labels_need_a_resolver() -> None:
    with pytest.raises(errors.OverlapResolverMissing):
        merge_cubes(cube_of(), cube_of())
    result = merged(cube_of(), cube_of(VALUES * 2), resolver=add)
    np.testing.assert_array_equal(result.values, VALUES * 3.0)
    assert result.odc.geobox == grid(8, 10)
    np.testing.assert_array_equal(
        merged(cube_of(), cube_of(VALUES + 9), resolver=lambda x, y, context: y).values, VALUES + 9
    )
    np.testing.assert_array_equal(
        merged(cube_of(), cube_of(), resolver=lambda x, y, context: context, context=5).values,
        np.full(VALUES.shape, 5),
    )


def test_the_order_of_labels_does_not_matter() -> None:
    other = cube_of(VALUES * 2).isel(bands=[2, 0, 1], t=[1, 0])
    np.testing.assert_array_equal(merged(cube_of(), other, resolver=add).values, VALUES * 3.0)


def test_partly_overlapping_bands() -> None:
    other = cube_of(VALUES * 2).assign_coords(bands=["B02", "B04", "B01"])
    with pytest.raises(errors.OverlapResolverMissing):
        merge_cubes(cube_of(), other)
    result = merged(cube_of(), other, resolver=add)
    assert list(result.bands.values) == ["B01", "B02", "B03", "B04"]
    np.testing.assert_array_equal(result.sel(bands="B01").values, VALUES[:, 0] + VALUES[:, 2] * 2.0)
    np.testing.assert_array_equal(result.sel(bands="B02").values, VALUES[:, 1] + VALUES[:, 0] * 2.0)
    np.testing.assert_array_equal(result.sel(bands="B03").values, VALUES[:, 2])
    np.testing.assert_array_equal(result.sel(bands="B04").values, VALUES[:, 1] * 2)


def test_partial_overlap_in_several_dimensions() -> None:
    times = np.array(["2022-06-06", "2022-06-03"], dtype="datetime64[ns]")
    other = cube_of(VALUES * 2).assign_coords(bands=["B02", "B03", "B04"], t=times)
    result = merged(cube_of(), other, resolver=add)
    assert [str(t)[:10] for t in result.t.values] == ["2022-06-01", "2022-06-03", "2022-06-06"]
    assert list(result.bands.values) == ["B01", "B02", "B03", "B04"]
    assert result.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(result.values[0, :3], VALUES[0])
    np.testing.assert_array_equal(result.values[1, 1:], VALUES[1] * 2)
    np.testing.assert_array_equal(result.values[2, 0], VALUES[1, 0])
    np.testing.assert_array_equal(result.values[2, 1:3], VALUES[1, 1:] + VALUES[0, :2] * 2.0)
    np.testing.assert_array_equal(result.values[2, 3], VALUES[0, 2] * 2)
    assert np.isnan(result.values[0, 3]).all()
    assert np.isnan(result.values[1, 0]).all()


def test_separate_in_two_dimensions_needs_no_resolver() -> None:
    times = np.array(["2022-05-01", "2022-07-03"], dtype="datetime64[ns]")
    result = merged(cube_of(), cube_of().assign_coords(bands=["C1", "C2", "C3"], t=times))
    assert (result.shape, result.dtype) == ((4, 6, 8, 10), "uint16")
    np.testing.assert_array_equal(result.values[[1, 2], :3], VALUES)
    np.testing.assert_array_equal(result.values[[0, 3], 3:], VALUES)
    assert not result.values[[0, 3], :3].any()


def test_cube_with_fewer_dimensions_is_broadcast() -> None:
    height = np.arange(80, dtype="float32").reshape(8, 10)
    result = merged(cube_of(), cube_of(height), resolver=add)
    assert result.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(result.values, VALUES + height)
    other_way = merged(cube_of(height), cube_of(), resolver=add)
    assert other_way.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(other_way.values, VALUES + height)
    with pytest.raises(errors.OverlapResolverMissing):
        merge_cubes(cube_of(), cube_of(height))


def test_a_band_without_time_is_repeated() -> None:
    height = np.arange(80, dtype="float32").reshape(8, 10)
    result = merged(cube_of(), cube_of(height).expand_dims(bands=["height"]))
    assert result.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(result.sel(bands="height").values, np.stack([height, height]))
    np.testing.assert_array_equal(result.values[:, :3], VALUES)


def test_values_kept_apart_by_a_new_dimension() -> None:
    cubes = [add_dimension(cube_of(VALUES + i), "run", f"r{i}") for i in range(2)]
    result = merged(*cubes)
    assert result.dims == ("run", "t", "bands", "y", "x")
    np.testing.assert_array_equal(result.values, np.stack([VALUES, VALUES + 1]))


def test_tiles_of_one_grid_make_a_mosaic() -> None:
    whole = grid(8, 30)
    left = cube_of(geobox=whole[:, :10])
    right = cube_of(VALUES + 1000, geobox=whole[:, 20:])
    result = merged(right, left)
    assert result.odc.geobox == whole
    assert result.dtype == "uint16"
    np.testing.assert_array_equal(result.values[..., :10], VALUES)
    np.testing.assert_array_equal(result.values[..., 20:], VALUES + 1000)
    assert not result.values[..., 10:20].any()
    corner = merged(left, cube_of(VALUES * 2, geobox=whole.pad(100)[104:112, 105:115]), resolver=add)
    assert corner.shape == (2, 3, 12, 15)
    np.testing.assert_array_equal(
        corner.values[..., 4:8, 5:10], VALUES[..., 4:, 5:] + VALUES[..., :4, :5] * 2.0
    )
    np.testing.assert_array_equal(corner.values[..., :4, :10], VALUES[..., :4, :])
    assert corner.odc.geobox.boundingbox.bbox == pytest.approx((680000, 5151880, 680150, 5152000))


def test_rounding_errors_of_labels_do_not_matter() -> None:
    blurred = cube_of(VALUES * 2)
    blurred = blurred.assign_coords(x=blurred.x + 1e-7, y=blurred.y - 1e-7)
    result = merged(cube_of(), blurred, resolver=add)
    np.testing.assert_array_equal(result.values, VALUES * 3.0)


def test_another_resolution_is_resampled_to_the_first_grid() -> None:
    coarse = cube_of(VALUES[..., :4, :5], geobox=grid(4, 5, size=20)).assign_coords(bands=["C1", "C2", "C3"])
    result = merged(cube_of(), coarse)
    assert result.odc.geobox == grid(8, 10)
    np.testing.assert_array_equal(
        result.values[:, 3:], VALUES[..., :4, :5].repeat(2, axis=-1).repeat(2, axis=-2)
    )


def test_vector_cubes_are_merged() -> None:
    squares = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
    coords = {"geometry": squares, "bands": ["a", "b"]}
    vector = xr.DataArray(np.arange(6.0).reshape(3, 2), dims=("geometry", "bands"), coords=coords)
    vector = vector.xvec.set_geom_indexes("geometry", crs=4326)
    result = merge_cubes(
        vector.isel(geometry=[0, 1]), vector.isel(geometry=[1, 2]), lambda x, y, context: x + y
    )
    assert result.values.tolist() == [[0, 1], [4, 6], [4, 5]]
    assert result.xindexes["geometry"].crs == 4326
    points = vector.assign_coords(geometry=shapely.points([[0, 0], [1, 1], [2, 2]]))
    with pytest.raises(errors.IncompatibleGeometryTypes):
        merge_cubes(vector, points.xvec.set_geom_indexes("geometry", crs=4326))
    with pytest.raises(errors.IncompatibleDataCubes, match="raster"):
        merge_cubes(vector, cube_of())


def test_cubes_that_can_not_be_merged() -> None:
    no_crs = cube_of().drop_vars(["spatial_ref", "x", "y"]).drop_attrs()
    with pytest.raises(errors.IncompatibleDataCubes, match="resample_cube_spatial"):
        merge_cubes(cube_of(), no_crs.assign_coords(x=range(10), y=range(8)))
    with pytest.raises(errors.IncompatibleDataCubes, match="type"):
        merge_cubes(cube_of(), cube_of().assign_coords(t=["a", "b"]))
    with pytest.raises(errors.IncompatibleDataCubes, match="type"):
        merge_cubes(
            cube_of(), rename_dimension(add_dimension(cube_of().isel(t=0, drop=True), "z", 1), "z", "t")
        )
    with pytest.raises(errors.ProcessParameterInvalid, match="array"):
        merge_cubes(cube_of(), cube_of(), lambda x, y, context: [x, y])
