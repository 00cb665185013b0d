"""Unit, scale and offset of bands: with raw values through processes and formats, gone with computed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.cube.packing import Packing, make_packing_coordinates, read_packings
from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.read import get_input_format
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.formats.cubes import raster
from tests.support.graphs import child, value

KELVIN, FRACTION, NOTHING = Packing("K", 0.01, 280.0), Packing(None, 0.0001, -0.1), Packing()
PACKINGS = [KELVIN, FRACTION, NOTHING]
NAMES = ["unit", "scale", "offset"]


def make_cube(packings: list[Packing] = PACKINGS, dates: int | None = 2) -> xr.DataArray:
    cube = raster("int16", dates=dates, bands=len(packings), shape=(8, 6))
    cube.attrs = {"nodata": -999}
    cube[..., 0, 0] = -999
    return cube.assign_coords(make_packing_coordinates(packings))


def run(process_id: str, cube: Any, **arguments: Any) -> Any:
    node = {"process_id": process_id, "arguments": {"data": value("cube"), **arguments}, "result": True}
    process = {"process_graph": {"it": node}, "parameters": [{"name": "cube"}]}
    return evaluate(process, Environment(None), {"cube": cube})


def write(cube: Any, format_: str, folder: Path, **options: Any) -> Any:
    return write_outputs(None, [Output.from_data(cube, format_, options)], folder)[0]


def to_physical(cube: xr.DataArray, index: int) -> np.ndarray:
    packing = PACKINGS[index]
    raw = cube.isel(bands=index).values.astype(float)
    return np.where(raw == -999, np.nan, raw * (packing.scale or 1) + (packing.offset or 0))


# --- Formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_lazy", [True, False])
@pytest.mark.parametrize("format_", ["netCDF", "Zarr"])
def test_xarray_decodes_physical_values(tmp_path: Path, format_: str, is_lazy: bool) -> None:
    cube = make_cube()
    asset = write(cube.chunk(4) if is_lazy else cube, format_, tmp_path)
    opener = xr.open_dataset if format_ == "netCDF" else xr.open_zarr
    with opener(asset.path) as dataset:
        for i, name in enumerate(cube.bands.values):
            np.testing.assert_allclose(dataset[name].values, to_physical(cube, i), rtol=1e-6)
        assert dataset["B01"].attrs["units"] == "K"
        assert "units" not in dataset["B03"].attrs
    with opener(asset.path, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset["B01"].values, cube.isel(bands=0).values)
    assert [b.get("raster:scale") for b in asset.bands] == [0.01, 0.0001, None]
    assert [b.get("unit") for b in asset.bands] == ["K", None, None]


def test_geotiffs_have_scales_offsets_and_units(tmp_path: Path) -> None:
    cube = make_cube(dates=None)
    asset = write(cube, "GTiff", tmp_path)
    with rasterio.open(asset.path) as file:
        assert file.scales == (0.01, 0.0001, 1.0)
        assert file.offsets == (280.0, -0.1, 0.0)
        assert [unit or None for unit in file.units] == ["K", None, None]
        np.testing.assert_array_equal(file.read(), cube.values)
    assert [b.get("raster:offset") for b in asset.bands] == [280.0, -0.1, None]
    again = get_input_format("GTiff").read([asset.path])
    assert read_packings(again, "bands") == PACKINGS


def test_geotiffs_without_packing_have_none(tmp_path: Path) -> None:
    asset = write(make_cube([NOTHING], dates=None), "GTiff", tmp_path)
    with rasterio.open(asset.path) as file:
        assert (file.scales, file.offsets, [unit or None for unit in file.units]) == ((1.0,), (0.0,), [None])
    assert not set(NAMES) & set(get_input_format("GTiff").read([asset.path]).coords)


@pytest.mark.parametrize("layout", ["variables", "cube"])
@pytest.mark.parametrize("packings", [PACKINGS, [KELVIN, KELVIN, KELVIN], [NOTHING, NOTHING, NOTHING]])
def test_own_netcdf_is_read_back_with_its_packing(
    tmp_path: Path, layout: str, packings: list[Packing]
) -> None:
    cube = make_cube(packings)
    again = get_input_format("netCDF").read([write(cube, "netCDF", tmp_path, layout=layout).path])
    assert read_packings(again, "bands") == packings
    np.testing.assert_array_equal(again.values, cube.values)
    assert [name for name in NAMES if name in again.coords] == [n for n in NAMES if n in cube.coords]


def test_files_with_different_packing_are_one_cube(tmp_path: Path) -> None:
    for name, packing in (("a", KELVIN), ("b", NOTHING)):
        cube = make_cube([packing], dates=None).assign_coords(bands=[name])
        write(cube, "GTiff", tmp_path).path.rename(tmp_path / f"{name}.tif")
    cube = get_input_format("GTiff").read([tmp_path / "a.tif", tmp_path / "b.tif"])
    assert read_packings(cube, "bands") == [KELVIN, NOTHING]


def test_values_of_geometries_keep_their_packing(tmp_path: Path) -> None:
    shape = shapely.geometry.mapping(shapely.box(600010, 5099930, 600050, 5099990))
    geometry = {**shape, "crs": {"type": "name", "properties": {"name": "EPSG:32632"}}}
    cube = make_cube()
    mean = run("aggregate_spatial", cube, geometries=geometry, reducer=child("mean", data=value("data")))
    assert read_packings(mean, "bands") == PACKINGS
    with xr.open_dataset(write(mean, "netCDF", tmp_path).path) as dataset:
        raw = mean.sel(bands="B01").values
        np.testing.assert_allclose(dataset["B01"].values, raw * 0.01 + 280)
    rows = pd.read_csv(write(mean, "CSV", tmp_path).path)
    np.testing.assert_allclose(rows["B01"], mean.sel(bands="B01").values.ravel())
    counted = run("aggregate_spatial", cube, geometries=geometry, reducer=child("count", data=value("data")))
    assert not set(NAMES) & set(counted.coords)


# --- Processes -----------------------------------------------------------------------------------

KEEPING: dict[str, tuple[str, dict[str, Any]]] = {
    "convert_data_type": ("convert_data_type", {"data_type": "int32"}),
    "mask_scl_dilation": ("mask_scl_dilation", {"scl_band_name": "B01"}),
    "filter_temporal": ("filter_temporal", {"extent": ["2022-06-01", "2022-06-03"]}),
    "mean": ("reduce_dimension", {"dimension": "t", "reducer": child("mean", data=value("data"))}),
    "median": ("reduce_dimension", {"dimension": "t", "reducer": child("median", data=value("data"))}),
    "first": ("reduce_dimension", {"dimension": "t", "reducer": child("first", data=value("data"))}),
    "element": (
        "reduce_dimension",
        {"dimension": "t", "reducer": child("array_element", data=value("data"), index=0)},
    ),
    "interpolate": (
        "apply_dimension",
        {"dimension": "t", "process": child("array_interpolate_linear", data=value("data"))},
    ),
    "sort": ("apply_dimension", {"dimension": "t", "process": child("sort", data=value("data"))}),
    "months": ("aggregate_temporal_period", {"period": "month", "reducer": child("max", data=value("data"))}),
    "quantiles": (
        "apply_dimension",
        {
            "dimension": "t",
            "target_dimension": "q",
            "process": child("quantiles", data=value("data"), probabilities=[0.5]),
        },
    ),
    "neighbourhood": (
        "apply_neighborhood",
        {
            "process": child("filter_bands", data=value("data"), bands=["B01", "B02", "B03"]),
            "size": [{"dimension": d, "value": 3, "unit": "px"} for d in ("x", "y")],
        },
    ),
    "resample": ("resample_spatial", {"resolution": 20, "method": "bilinear"}),
    "rename": ("rename_dimension", {"source": "t", "target": "time"}),
    "identity": ("apply", {"process": child("constant", x=value("x"))}),
    "clip": ("apply", {"process": child("clip", x=value("x"), min=0, max=100)}),
}
LOSING: dict[str, tuple[str, dict[str, Any]]] = {
    "multiply": ("apply", {"process": child("multiply", x=value("x"), y=2)}),
    "compare": ("apply", {"process": child("gt", x=value("x"), y=2)}),
    "constant": ("apply", {"process": child("constant", x=5)}),
    "round": ("apply", {"process": child("round", x=value("x"), p=-1)}),
    "range": ("apply", {"process": child("linear_scale_range", x=value("x"), inputMin=0, inputMax=10)}),
    "sum": ("reduce_dimension", {"dimension": "t", "reducer": child("sum", data=value("data"))}),
    "sd": ("reduce_dimension", {"dimension": "t", "reducer": child("sd", data=value("data"))}),
    "variance": ("reduce_dimension", {"dimension": "t", "reducer": child("variance", data=value("data"))}),
    "count": ("reduce_dimension", {"dimension": "t", "reducer": child("count", data=value("data"))}),
    "bands": ("reduce_dimension", {"dimension": "bands", "reducer": child("mean", data=value("data"))}),
    "kernel": ("apply_kernel", {"kernel": [[1, 1, 1]] * 3}),
    "order": ("apply_dimension", {"dimension": "t", "process": child("order", data=value("data"))}),
    "append": (
        "apply_dimension",
        {"dimension": "bands", "process": child("array_append", data=value("data"), value=1)},
    ),
    "neighbourhood": (
        "apply_neighborhood",
        {
            "process": child("apply_kernel", data=value("data"), kernel=[[2]]),
            "size": [{"dimension": d, "value": 3, "unit": "px"} for d in ("x", "y")],
        },
    ),
    "flatten": ("flatten_dimensions", {"dimensions": ["t", "bands"], "target_dimension": "tb"}),
    "concat": (
        "apply_dimension",
        {"dimension": "t", "process": child("array_append", data=value("data"), value=1)},
    ),
    "slope": ("slope", {}),
    "ndvi": ("ndvi", {"nir": "B01", "red": "B02"}),
}


@pytest.mark.parametrize("step", KEEPING.values(), ids=KEEPING)
def test_raw_values_keep_their_packing(step: tuple[str, dict[str, Any]]) -> None:
    for cube in (make_cube(), make_cube().chunk(4)):
        assert read_packings(run(step[0], cube, **step[1]), "bands") == PACKINGS


@pytest.mark.parametrize("step", LOSING.values(), ids=LOSING)
def test_computed_values_have_none(step: tuple[str, dict[str, Any]]) -> None:
    result = run(step[0], make_cube().chunk(4), **step[1])
    assert not set(NAMES) & set(result.coords)


def test_selected_bands_keep_theirs() -> None:
    result = run("filter_bands", make_cube(), bands=["B02"])
    assert read_packings(result, "bands") == [FRACTION]


def test_a_computed_band_beside_others_has_none() -> None:
    result = run("ndvi", make_cube(), nir="B01", red="B02", target_band="index")
    assert read_packings(result, "bands") == [*PACKINGS, NOTHING]


def test_masks_and_choices_keep_the_packing_of_their_values() -> None:
    cube = make_cube()
    mask = (cube > 100).drop_vars(NAMES)
    mask.attrs = {}
    node = {"process_id": "mask", "arguments": {"data": value("cube"), "mask": value("mask")}, "result": True}
    process = {"process_graph": {"it": node}, "parameters": [{"name": "cube"}, {"name": "mask"}]}
    masked = evaluate(process, Environment(None), {"cube": cube, "mask": mask})
    assert read_packings(masked, "bands") == PACKINGS
    nodes = {
        "large": {"process_id": "gt", "arguments": {"x": value("x"), "y": 100}},
        "if": {
            "process_id": "if",
            "arguments": {"value": {"from_node": "large"}, "accept": value("x")},
            "result": True,
        },
    }
    assert read_packings(run("apply", cube, process={"process_graph": nodes}), "bands") == PACKINGS


def merge(one: xr.DataArray, other: xr.DataArray, resolver: Any = None) -> list[Packing]:
    arguments = {"cube1": value("one"), "cube2": value("other")}
    arguments |= {"overlap_resolver": resolver} if resolver else {}
    node = {"process_id": "merge_cubes", "arguments": arguments, "result": True}
    process = {"process_graph": {"it": node}, "parameters": [{"name": "one"}, {"name": "other"}]}
    return read_packings(evaluate(process, Environment(None), {"one": one, "other": other}), "bands")


def test_merged_cubes_have_what_both_agree_on() -> None:
    one, other = make_cube([KELVIN]), make_cube([FRACTION])
    later = make_cube([KELVIN]).assign_coords(t=one.t + np.timedelta64(100, "D"))
    assert merge(one, other.assign_coords(bands=["X"])) == [KELVIN, FRACTION]
    assert merge(one, later) == [KELVIN]
    assert merge(one, later.assign_coords(make_packing_coordinates([FRACTION]))) == [NOTHING]
    pair = child("max", data=[value("x"), value("y")])
    assert merge(one, one, child("subtract", x=value("x"), y=value("y"))) == [NOTHING]
    assert merge(one, one, child("clip", x=value("x"), min=0, max=10)) == [KELVIN]
    assert merge(one, other, pair) == [NOTHING]
