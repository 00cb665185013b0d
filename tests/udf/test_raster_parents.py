"""Functions get what each parent process of a raster cube hands out, eagerly and chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo.cube import list_packing_coordinates
from odc_openeo.errors import OpenEOError, ProcessParameterInvalid, UdfFailed, UdfResultInvalid
from odc_openeo.graph import evaluate
from tests.processes.rasters import grid, nothing_computes, raster
from tests.support.graphs import value
from tests.udf.conftest import Run, udf, udf_arguments

VALUES = np.random.default_rng(0).random((5, 3, 40, 50)).astype("float32")
CHUNKS = [None, {"t": 1, "y": 16, "x": 25}]
CUBE = value("cube")

DATA_ARRAY = """
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    return eval(context["returns"])
"""
WRAPPED = """
from openeo.udf import XarrayDataCube

def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:
    cube = cube.get_array()
    return XarrayDataCube(eval(context["returns"]))
"""
OLD = """
from openeo_udf.api.datacube import DataCube

def apply_hypercube(cube: DataCube, context: dict) -> DataCube:
    cube = cube.array
    return DataCube(eval(context["returns"]))
"""
GENERIC = """
from openeo.udf import UdfData, XarrayDataCube

def apply_udf_data(data: UdfData):
    cube, context = data.get_datacube_list()[0].get_array(), data.user_context
    data.set_datacube_list([XarrayDataCube(eval(context["returns"]))])
"""
STYLES = [DATA_ARRAY, WRAPPED, OLD, GENERIC]
"""Functions that return what their context says: for each one an interpreter has to be started."""


def child(expression: str, data: str = "data", style: str = DATA_ARRAY, **more: Any) -> Any:
    """Build a child process with a function that returns the value of an expression."""
    return udf(style, data, context={"returns": expression, **more})


def make_cube(chunks: Any = None, values: np.ndarray = VALUES, **more: Any) -> xr.DataArray:
    return raster(values, grid(*values.shape[-2:]), chunks, **more)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("style", STYLES)
def test_apply_in_every_style(run: Run, style: str, chunks: Any) -> None:
    data = make_cube(chunks)
    with nothing_computes():
        process = child("cube * 2 + context['add']", "x", style, add=1)
        result = run(data, "apply", data=CUBE, process=process)
    np.testing.assert_array_equal(result.values, VALUES * 2 + 1)
    # Units, scales and offsets belong to the values that the function has replaced.
    kept = data.drop_vars(list_packing_coordinates(data))
    xr.testing.assert_identical(result.coords.to_dataset(), kept.coords.to_dataset())
    assert result.odc.geobox == data.odc.geobox
    assert result.dtype == np.float32
    assert result.attrs == data.attrs


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("style", STYLES)
def test_reduction_of_time(run: Run, style: str, chunks: Any) -> None:
    with nothing_computes():
        process = child("cube.max('t') - cube.min('t')", style=style)
        result = run(make_cube(chunks), "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    assert result.dims == ("bands", "y", "x")
    np.testing.assert_array_equal(result.values, np.ptp(VALUES, axis=0))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_reduction_of_bands_by_label(run: Run, chunks: Any) -> None:
    process = child("(cube.sel(bands='B03') - cube.sel(bands='B01'))")
    result = run(make_cube(chunks), "reduce_dimension", data=CUBE, reducer=process, dimension="bands")
    assert result.dims == ("t", "y", "x")
    np.testing.assert_array_equal(result.values, VALUES[:, 2] - VALUES[:, 0])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_reducers_may_keep_one_label(run: Run, chunks: Any) -> None:
    process = child("cube.mean('t', keepdims=True)")
    result = run(make_cube(chunks), "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    assert result.dims == ("bands", "y", "x")
    np.testing.assert_allclose(result.values, VALUES.mean(0), rtol=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("style", STYLES)
def test_apply_dimension_keeps_labels(run: Run, style: str, chunks: Any) -> None:
    data = make_cube(chunks)
    with nothing_computes():
        process = child("cube.cumsum('t')", style=style)
        result = run(data, "apply_dimension", data=CUBE, process=process, dimension="t")
    assert result.dims == data.dims
    assert result.indexes["t"].equals(data.indexes["t"])
    np.testing.assert_allclose(result.values, VALUES.cumsum(0), rtol=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_apply_dimension_takes_new_labels(run: Run, chunks: Any) -> None:
    process = child("cube.isel(bands=[0, 1]).assign_coords(bands=['low', 'high'])")
    with nothing_computes():
        result = run(make_cube(chunks), "apply_dimension", data=CUBE, process=process, dimension="bands")
    assert result.coords["bands"].values.tolist() == ["low", "high"]
    np.testing.assert_array_equal(result.values, VALUES[:, :2])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_metadata_decides_labels(run: Run, chunks: Any) -> None:
    code = DATA_ARRAY + (
        "\nfrom openeo.metadata import CollectionMetadata\n\n"
        "def apply_metadata(metadata: CollectionMetadata, context: dict) -> CollectionMetadata:\n"
        "    assert metadata.band_names == ['B01', 'B02', 'B03']\n"
        "    return metadata.rename_labels(dimension='bands', target=['pc1', 'pc2'])\n"
    )
    for process_id, more in (("apply_dimension", {"dimension": "bands"}), ("apply", {})):
        data = "x" if process_id == "apply" else "data"
        process = udf(code, data, context={"returns": "cube.isel(bands=slice(0, 2)).drop_vars('bands')"})
        with nothing_computes():
            result = run(make_cube(chunks), process_id, data=CUBE, process=process, **more)
        assert result.coords["bands"].values.tolist() == ["pc1", "pc2"]
        np.testing.assert_array_equal(result.values, VALUES[:, :2])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_values_move_from_times_to_bands(run: Run, chunks: Any) -> None:
    process = child(
        "xarray.concat([cube.min('t'), cube.max('t')], 'bands').assign_coords(bands=list('abcdef'))"
    )
    arguments = {"data": CUBE, "process": process, "dimension": "t", "target_dimension": "bands"}
    with nothing_computes():
        result = run(make_cube(chunks), "apply_dimension", **arguments)
    assert result.dims == ("bands", "y", "x")
    assert result.coords["bands"].values.tolist() == list("abcdef")
    np.testing.assert_array_equal(result.values, np.concatenate([VALUES.min(0), VALUES.max(0)]))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_neighborhoods_have_their_overlap(run: Run, chunks: Any) -> None:
    code = """
import numpy as np
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    assert cube.dims == ("t", "bands", "y", "x")
    assert cube.shape[2:] in [(24, 24), (24, 10), (16, 24), (16, 10)]
    return xarray.zeros_like(cube) + cube.fillna(0).sum(["y", "x"])
"""
    size = [{"dimension": d, "value": 16, "unit": "px"} for d in ("x", "y")]
    overlap = [{"dimension": d, "value": 4, "unit": "px"} for d in ("x", "y")]
    with nothing_computes():
        result = run(
            make_cube(chunks), "apply_neighborhood", data=CUBE, process=udf(code), size=size, overlap=overlap
        )
    assert result.shape == VALUES.shape
    padded = np.pad(VALUES, ((0, 0), (0, 0), (4, 4), (4, 4)))
    for y in range(0, 40, 16):
        for x in range(0, 50, 16):
            block = padded[:, :, y : y + min(16, 40 - y) + 8, x : x + min(16, 50 - x) + 8]
            expected = block.sum((2, 3), keepdims=True)
            part = result.values[:, :, y : y + 16, x : x + 16]
            np.testing.assert_allclose(part, np.broadcast_to(expected, part.shape), rtol=1e-5)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_neighborhoods_may_make_other_bands(run: Run, chunks: Any) -> None:
    process = child("(cube.isel(t=0) > 0.5).max('bands', keepdims=True).assign_coords(bands=['class'])")
    size = [{"dimension": d, "value": 16, "unit": "px"} for d in ("x", "y")]
    data = make_cube(chunks)
    with nothing_computes():
        result = run(data, "apply_neighborhood", data=CUBE, process=process, size=size)
    assert result.dims == ("bands", "y", "x")
    assert result.coords["bands"].values.tolist() == ["class"]
    assert result.odc.geobox == data.odc.geobox
    np.testing.assert_array_equal(result.values[0], (VALUES[0] > 0.5).max(0))


def test_a_single_label_neighborhood_is_a_single_call(run: Run) -> None:
    data = make_cube({"t": 1}, VALUES[:, :1, :3, :3])
    size = [{"dimension": d, "value": 1, "unit": "px"} for d in ("x", "y")]
    process = child("cube / cube.max()")
    result = run(data, "apply_neighborhood", data=CUBE, process=process, size=size)
    expected = VALUES[:, :1, :3, :3] / VALUES[:, :1, :3, :3].max((0, 1), keepdims=True)
    np.testing.assert_allclose(result.values, expected)


POLYGON = {
    "type": "Polygon",
    "coordinates": [[[680050, 5151950], [680250, 5151950], [680250, 5151850], [680050, 5151950]]],
    "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
}


def load_geojson(data: Any) -> Any:
    return evaluate(
        {"process_graph": {"it": {"process_id": "load_geojson", "arguments": {"data": data}, "result": True}}}
    )


@pytest.mark.parametrize("chunks", CHUNKS)
def test_polygons(run: Run, chunks: Any) -> None:
    process = child("cube - cube.mean(['y', 'x'])")
    data = make_cube(chunks)
    result = run(data, "apply_polygon", data=CUBE, geometries=load_geojson(POLYGON), process=process)
    inside = run(
        data, "apply_polygon", data=CUBE, geometries=load_geojson(POLYGON), process=child("cube * 0 - 1")
    )
    covered = inside.values == -1
    assert 30 < covered[0, 0].sum() < 120
    pixels = VALUES[:, :, covered[0, 0]]
    np.testing.assert_array_equal(result.values[~covered], VALUES[~covered])
    expected = pixels - pixels.mean(-1, keepdims=True)
    np.testing.assert_allclose(result.values[:, :, covered[0, 0]], expected, atol=1e-6)


def test_the_earlier_name_of_polygons(run: Run) -> None:
    process, data = child("cube - cube.mean(['y', 'x'])"), make_cube(CHUNKS[1])
    new = run(data, "apply_polygon", data=CUBE, geometries=load_geojson(POLYGON), process=process)
    old = run(data, "chunk_polygon", data=CUBE, chunks=POLYGON, process=process)
    xr.testing.assert_identical(new.compute(), old.compute())


@pytest.mark.parametrize("chunks", CHUNKS)
def test_pixels_of_geometries(run: Run, chunks: Any) -> None:
    process = child("cube.max('pixels') - cube.min('pixels')")
    data = make_cube(chunks)
    two = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": {**POLYGON, "crs": None}} for _ in range(2)
        ],
        "crs": POLYGON["crs"],
    }
    result = run(data, "aggregate_spatial", data=CUBE, geometries=load_geojson(two), reducer=process)
    inside = run(
        data, "apply_polygon", data=CUBE, geometries=load_geojson(POLYGON), process=child("cube * 0 - 1")
    )
    covered = inside.values[0, 0] == -1
    expected = np.ptp(VALUES[:, :, covered], axis=-1)
    assert result.dims == ("geometry", "t", "bands")
    np.testing.assert_allclose(result.values, np.stack([expected, expected]), rtol=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_all_pixels(run: Run, chunks: Any) -> None:
    process = child("cube.sum('pixels')")
    result = run(make_cube(chunks), "reduce_spatial", data=CUBE, reducer=process)
    np.testing.assert_allclose(result.values, VALUES.sum((2, 3)), rtol=1e-5)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_periods(run: Run, chunks: Any) -> None:
    process = child("cube.isel(t=-1) * cube.sizes['t']")
    arguments = {"intervals": [["2022-06-01", "2022-06-12"], ["2022-06-12", "2022-07-01"]]}
    result = run(
        make_cube(chunks), "aggregate_temporal", data=CUBE, reducer=process, labels=["a", "b"], **arguments
    )
    np.testing.assert_allclose(result.values, np.stack([VALUES[2] * 3, VALUES[4] * 2]))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_whole_cubes(run: Run, chunks: Any) -> None:
    data = make_cube(chunks)
    expression = "cube.isel(t=0).coarsen(y=2, x=2).mean() + 0 * len(cube)"
    result = run(data, "run_udf", **udf_arguments(DATA_ARRAY, CUBE, context={"returns": expression}))
    assert result.dims == ("bands", "y", "x")
    np.testing.assert_allclose(result.values, VALUES[0].reshape(3, 20, 2, 25, 2).mean((2, 4)), rtol=1e-6)
    assert result.odc.geobox.crs == data.odc.geobox.crs
    assert result.odc.geobox.resolution.x == 20


def test_series_have_their_times(run: Run) -> None:
    code = """
import pandas as pd

def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:
    return series.rolling("10D").mean() * context["factor"]
"""
    data = make_cube({"y": 8}, VALUES[:, :, :10, :10])
    process = udf(code, context={"factor": 2})
    result = run(data, "apply_dimension", data=CUBE, process=process, dimension="t")
    frame = data.isel(bands=1, y=3, x=4).to_pandas()
    np.testing.assert_allclose(result.values[:, 1, 3, 4], frame.rolling("10D").mean() * 2, rtol=1e-6)


def test_integers_arrive_as_floats(run: Run) -> None:
    values = np.arange(24, dtype="int16").reshape(2, 1, 3, 4)
    data = make_cube({"t": 1}, values, nodata=5)
    result = run(data, "apply", data=CUBE, process=child("cube.fillna(-1)", "x"))
    np.testing.assert_array_equal(result.values, np.where(values == 5, -1, values))
    assert "nodata" not in result.attrs


def test_structured_data_are_json(run: Run) -> None:
    code = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    cube = data.get_datacube_list()[0].get_array()
    data.set_structured_data_list([StructuredData({"mean": float(cube.mean()), "epsg": data.proj["EPSG"]})])
"""
    result = run(make_cube({"t": 1}), "run_udf", **udf_arguments(code, CUBE))
    assert result == {"mean": pytest.approx(VALUES.mean(), rel=1e-5), "epsg": 32632}


def test_json_values(run: Run) -> None:
    code = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    (given,) = data.get_structured_data_list()
    data.set_structured_data_list([StructuredData([2 * v for v in given.data])])
"""
    assert run(None, "run_udf", **udf_arguments(code, [1, 2, 3])) == [2, 4, 6]


def test_large_chunks_are_split(run: Run) -> None:
    values = np.ones((4, 3, 600, 700), "float32")
    data = make_cube({"t": 1}, values)
    process = child("cube.sum('t')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("odc_openeo.udf.lazy_calls.CHUNK_BYTES", 4 * 2**20)
        result = run(data, "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    assert result.data.numblocks[1] * result.data.numblocks[2] >= 5
    assert (result.values == 4).all()


@pytest.mark.parametrize("name", ["spatial_ref", "__array__", "nodata"])
def test_reserved_names_of_dimensions(run: Run, name: str) -> None:
    arguments = udf_arguments(DATA_ARRAY, CUBE, context={"returns": f"cube.rename(t='{name}')"})
    with pytest.raises(UdfResultInvalid, match="not valid"):
        run(make_cube({"t": 1}), "run_udf", **arguments)


# --- Errors --------------------------------------------------------------------------------------


def compute_error(result: Any) -> OpenEOError:
    with pytest.raises(OpenEOError) as caught:
        result.compute(scheduler="synchronous")
    return caught.value


def test_a_result_that_differs_from_chunk_to_chunk(run: Run) -> None:
    process = child("cube if cube.sizes['x'] == 25 and cube.x[0] < 680100 else cube.isel(bands=[0])", "x")
    result = run(make_cube(CHUNKS[1]), "apply", data=CUBE, process=process)
    error = compute_error(result)
    assert isinstance(error, UdfResultInvalid)
    assert error.node == "it.udf"
    assert (
        "for a chunk (t: 1, bands: 3, y: 8, x: 25) it must be (t: 1, bands: 3, y: 8, x: 25)" in error.message
    )
    assert "bands: 1" in error.message
    assert "float32" in error.message


def test_a_function_that_fails_on_one_chunk(run: Run) -> None:
    process = child("cube if float(cube.x[0]) < 680100 else cube.no_such_name", "x")
    error = compute_error(run(make_cube(CHUNKS[1]), "apply", data=CUBE, process=process))
    assert isinstance(error, UdfFailed)
    assert error.node == "it.udf"
    assert "no_such_name" in error.message


def test_a_function_that_fails_on_made_up_values(run: Run) -> None:
    process = child("cube * 2 if float(cube.max()) > 1 else 1 / 0")
    data = make_cube(CHUNKS[1], VALUES + 1)
    with nothing_computes():
        result = run(data, "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    assert isinstance(compute_error(result), UdfResultInvalid)
    process = child("cube.sum('t') if float(cube.max()) > 1 else 1 / 0")
    result = run(data, "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    np.testing.assert_allclose(result.values, (VALUES + 1).sum(0), rtol=1e-6)


def test_dimensions_that_the_parent_does_not_allow(run: Run) -> None:
    data = make_cube(CHUNKS[1])
    with pytest.raises(UdfResultInvalid, match="as long as the chunk"):
        run(data, "apply", data=CUBE, process=child("cube.isel(x=slice(0, 3))", "x"))
    process = child("cube.isel(t=0, bands=0, drop=True)")
    with pytest.raises(ProcessParameterInvalid, match="without the dimensions bands"):
        run(data, "reduce_dimension", data=CUBE, reducer=process, dimension="t")
    with pytest.raises(ProcessParameterInvalid, match="returns an array"):
        run(data, "reduce_dimension", data=CUBE, reducer=child("cube"), dimension="t")


def test_order_of_dimensions_and_labels_does_not_matter(run: Run) -> None:
    process = child("cube.sortby('y').isel(bands=[2, 0, 1]).transpose('x', 'y', 'bands', 't')", "x")
    result = run(make_cube(CHUNKS[1]), "apply", data=CUBE, process=process)
    result = result.sel(bands=["B01", "B02", "B03"])
    np.testing.assert_array_equal(result.values, VALUES)
