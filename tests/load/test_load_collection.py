"""load_collection: every value against the files themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from odc.geo.geom import Geometry, box

import odc_openeo.processes  # noqa: F401  (registers the processes that the conditions use)
from odc_openeo import cube, errors
from odc_openeo.catalog import Catalog, Query
from odc_openeo.config import Config
from odc_openeo.graph import evaluate
from odc_openeo.load.build import load as load_scenes
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.load.request import ChooseGrid, LoadRequest
from odc_openeo.processes.filters import filter_bbox
from odc_openeo.processes.load_collection import load_collection
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.spatial.boxes import Box
from odc_openeo.spatial.new_grid import make_grid
from odc_openeo.spatial.warp import warp
from tests.catalog.scenes import FINE, Grid, Index, pixels, product, scene, write

BOX = {"west": 600100, "south": 5199600, "east": 600200, "north": 5199700, "crs": 32632}
JUNE = ["2022-06-01", "2022-07-01"]


def _no_compute(*_: Any, **__: Any) -> None:
    raise AssertionError("computed while the graph is evaluated")


def load(
    catalog: Catalog, box: Any = BOX, time: Any = JUNE, limits: RunLimits | None = None, **more: Any
) -> xr.DataArray:
    """Evaluate a graph of one load_collection; whatever computes fails."""
    arguments = {"id": "tiny_s2", "spatial_extent": box, "temporal_extent": time, **more}
    node = {"process_id": "load_collection", "arguments": arguments, "result": True}
    with dask.config.set(scheduler=_no_compute):
        return evaluate({"process_graph": {"load": node}}, Environment(catalog, limits=limits or RunLimits()))


def request_area(area: Geometry, choose_grid: ChooseGrid | None = None) -> LoadRequest:
    return LoadRequest(query=Query(area), choose_grid=choose_grid)


def child(process_id: str, **arguments: Any) -> dict[str, Any]:
    """A condition on the property's value."""
    arguments = {"x": {"from_parameter": "value"}, **arguments}
    return {"process_graph": {"c": {"process_id": process_id, "arguments": arguments, "result": True}}}


def read(path: Path, band: str, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    with rasterio.open(path / f"{band}.tif") as file:
        return file.read(1)[rows, columns]


@pytest.fixture
def two(index: Index, tmp_path: Path) -> Path:
    """Two scenes of one place, four days apart."""
    index.add(
        scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z", eo__cloud_cover=10.5, eo__platform="s2a"),
        scene(tmp_path / "b", 2, "2022-06-05T10:00:00Z", eo__cloud_cover=80, eo__platform="s2b"),
    )
    return tmp_path


# --- Pixels --------------------------------------------------------------------------------------


def test_aligned_box_gives_exact_pixels(catalog: Catalog, two: Path):
    data = load(catalog, bands=["B08", "B04"])
    assert data.dims == ("t", "bands", "y", "x")
    assert data.shape == (2, 2, 10, 10)
    assert data.dtype == np.uint16
    assert data.attrs["nodata"] == 0
    assert data.bands.values.tolist() == ["B08", "B04"]
    assert data.coords["common_name"].values.tolist() == ["nir", "red"]
    assert data.t.dtype == np.dtype("datetime64[ns]")
    assert cube.labels(data, "t") == ["2022-06-01T10:00:00Z", "2022-06-05T10:00:00Z"]
    assert data.odc.crs == "EPSG:32632"
    assert data.odc.geobox.boundingbox.bbox == (600100, 5199600, 600200, 5199700)
    rows, columns = slice(30, 40), slice(10, 20)
    for t, folder in enumerate("ab"):
        for b, band in enumerate(("B08", "B04")):
            np.testing.assert_array_equal(data[t, b].values, read(two / folder, band, rows, columns))


def test_collection_loads_without_extent(catalog: Catalog, two: Path):
    data = load(catalog, box=None, time=None, bands=["B04"])
    assert data.shape == (2, 1, *FINE.shape)
    np.testing.assert_array_equal(data[0, 0].values, read(two / "a", "B04"))


def test_box_takes_pixels_by_their_centre(catalog: Catalog, two: Path):
    def columns(west: float, east: float) -> list[float]:
        return load(catalog, {**BOX, "west": west, "east": east}, bands=["B04"]).x.values.tolist()

    assert columns(600104, 600126) == [600105, 600115, 600125]
    assert columns(600106, 600124) == [600115]
    assert columns(600105, 600115) == [600105, 600115]
    with pytest.raises(errors.NoDataAvailable, match="centre"):
        columns(600106, 600114)


def test_box_is_cut_to_the_data(catalog: Catalog, two: Path):
    data = load(catalog, {**BOX, "west": 500000, "north": 5300000}, bands=["B04"])
    assert data.odc.geobox.boundingbox.bbox == (600000, 5199600, 600200, 5200000)


def test_box_in_degrees(catalog: Catalog, two: Path):
    from pyproj import Transformer

    degrees = Transformer.from_crs(32632, 4326, always_xy=True).transform_bounds(
        600102, 5199603, 600198, 5199697, densify_pts=51
    )
    data = load(catalog, dict(zip(("west", "south", "east", "north"), degrees, strict=True)), bands=["B04"])
    back = Transformer.from_crs(4326, 32632, always_xy=True).transform_bounds(*degrees, densify_pts=51)
    expected = read(two / "a", "B04")
    x, y = 600005 + 10 * np.arange(80), 5199995 - 10 * np.arange(60)
    inside = np.ix_((y >= back[1]) & (y <= back[3]), (x >= back[0]) & (x <= back[2]))
    np.testing.assert_array_equal(data[0, 0].values, expected[inside])


def test_wkt_and_world_boxes(catalog: Catalog, two: Path):
    from odc.geo import CRS

    wkt = CRS(32632).to_wkt()
    assert load(catalog, {**BOX, "crs": wkt}, bands=["B04"]).shape == (2, 1, 10, 10)
    world = {"west": -180, "south": -90, "east": 180, "north": 90}
    assert load(catalog, world, bands=["B04"]).shape == (2, 1, *FINE.shape)


@pytest.mark.parametrize(
    "extent",
    [
        {"west": 10.3152, "south": 46.9405, "east": 10.3189, "north": 46.9431},
        {"west": 10.3152, "south": 46.9405, "east": 16, "north": 46.9431},
        {"west": 10.3152, "south": 46.9405, "east": 10.3189, "north": 60},
        {"west": 4344900, "south": 2647400, "east": 4345100, "north": 2700000, "crs": 3035},
        {"west": 10.3152, "south": 0, "east": 180, "north": 46.9431},
    ],
)
def test_extent_equals_filter_by_the_same_extent(catalog: Catalog, two: Path, extent: dict[str, Any]):
    """Also if it reaches far beyond the data."""
    expected = filter_bbox(load(catalog, None), extent)
    assert 0 < expected.sizes["y"] <= 60
    xr.testing.assert_equal(load(catalog, extent).compute(), expected.compute())


def test_coarse_band_with_fine_ones(catalog: Catalog, two: Path):
    data = load(catalog, bands=["B04", "B11"])
    assert data.shape == (2, 2, 10, 10)
    coarse = read(two / "a", "B11", slice(15, 20), slice(5, 10))
    np.testing.assert_array_equal(data[0, 1].values, coarse.repeat(2, 0).repeat(2, 1))
    assert "B11 from 20" in data.attrs["source"]
    alone = load(catalog, bands=["B11"])
    np.testing.assert_array_equal(alone[0, 0].values, coarse)


def test_different_nodata_and_types_of_bands(catalog: Catalog, two: Path):
    data = load(catalog, bands=["B11", "SCL"])
    assert data.dtype == np.uint16
    assert data.coords["nodata"].values.tolist() == [0, 255]
    whole = load(catalog, box=None, bands=["B11", "SCL"])
    scl = read(two / "a", "SCL")
    np.testing.assert_array_equal(whole[0, 1].values, scl)
    np.testing.assert_array_equal(cube.valid(whole)[0, 1].values, scl != 255)
    alone = load(catalog, bands=["SCL"])
    assert (alone.dtype, alone.attrs["nodata"]) == (np.uint8, 255)


def test_all_bands_by_default(catalog: Catalog, two: Path):
    assert load(catalog).bands.values.tolist() == ["B04", "B08", "B11", "SCL"]


def test_bands_by_alias_and_common_name(catalog: Catalog, two: Path):
    assert load(catalog, bands=["infrared", "red", "swir16", "B08"]).bands.values.tolist() == [
        "B08",
        "B04",
        "B11",
    ]
    with pytest.raises(errors.ProcessParameterInvalid, match=r"no band 'B99'. The bands are: B04 \(red\)"):
        load(catalog, bands=["B99"])


def test_floats_have_nan_whatever_the_files_have(catalog: Catalog, index: Index, tmp_path: Path):
    bands = [
        {"name": "height", "dtype": "float32", "nodata": -9999, "units": "m"},
        {"name": "cover", "dtype": "uint8", "nodata": 255, "units": "1"},
        {"name": "count", "dtype": "uint16", "nodata": 0, "units": "1"},
    ]
    index.add_product(product("mixed", measurements=bands))
    values = {
        "height": pixels(FINE, 1, "float32", -9999),
        "cover": pixels(FINE, 2, "uint8", 255),
        "count": pixels(FINE, 3, "uint16", 0),
    }
    files = {name: (FINE, array) for name, array in values.items()}
    index.add(write(tmp_path / "m", files, name="mixed", nodata=None))
    data = load(catalog, None, None, id="mixed")
    assert data.dtype == np.float32
    assert cube.NODATA not in data.attrs
    for b, missing in enumerate((-9999, 255, 0)):
        raw = list(values.values())[b].astype("float32")
        np.testing.assert_array_equal(data[0, b].values, np.where(raw == missing, np.nan, raw))


def test_integers_without_nodata(catalog: Catalog, index: Index, tmp_path: Path):
    for name, left in (("a", 600000), ("b", 600400)):
        index.add(scene(tmp_path / name, 1, f"2022-06-0{1 if name == 'a' else 2}T10:00:00Z", left))
    scenes = catalog.search_scenes("tiny_s2", Query())
    bands = [replace(catalog.get_product("tiny_s2").bands[0], nodata=None)]
    here = read(tmp_path / "a", "B04")
    whole = load_scenes(scenes, bands)
    assert whole.dtype == np.float32
    assert np.isnan(whole[0, 0, :, 80:].values).all()
    np.testing.assert_array_equal(whole[0, 0, :, :80].values, here)
    both = load_scenes(scenes, bands, request_area(box(600400, 5199400, 600800, 5200000, "EPSG:32632")))
    assert both.dtype == np.uint16
    assert not cube.has_nodata(both)
    np.testing.assert_array_equal(both[0, 0].values, here[:, 40:])


@pytest.mark.parametrize("missing", [0, None])
@pytest.mark.parametrize("right", [600100, 600130, 600140, 600160])
@pytest.mark.parametrize("align", ["upper-left", "lower-right"])
def test_coarser_grid_has_no_pixels_outside_the_area(
    catalog: Catalog, index: Index, tmp_path: Path, missing: int | None, right: float, align: str
):
    """The last coarse pixel may have its centre there, or on the very edge, where files go on."""
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    scenes = catalog.search_scenes("tiny_s2", Query())
    bands = [replace(catalog.get_product("tiny_s2").bands[0], nodata=missing)]
    area = box(600000, 5199600, right, 5199800, "EPSG:32632")
    fine = load_scenes(scenes, bands, request_area(area))
    target = make_grid(fine.odc.geobox, (40, 40), fine.odc.crs, align)
    expected = warp(fine, fine.odc.geobox, target, "near")
    matching_scenes = load_scenes(scenes, bands, request_area(area, lambda native: target))
    assert matching_scenes.dtype == expected.dtype
    np.testing.assert_array_equal(matching_scenes.values, expected.values)


# --- Scenes --------------------------------------------------------------------------------------


def test_scenes_of_one_time_are_one_step(catalog: Catalog, index: Index, tmp_path: Path):
    index.add(
        scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z", 600000),
        scene(tmp_path / "b", 2, "2022-06-01T10:00:00Z", 600400),
        scene(tmp_path / "c", 3, "2022-06-01T10:00:20Z", 600400),
    )
    data = load(catalog, None, bands=["B04"])
    assert data.shape == (2, 1, 60, 120)
    a, b = (np.zeros((60, 120), "uint16") for _ in range(2))
    a[:, :80], b[:, 40:] = read(tmp_path / "a", "B04"), read(tmp_path / "b", "B04")
    ids = [str(scene(tmp_path / n, s, "2022-06-01T10:00:00Z")["id"]) for n, s in (("a", 1), ("b", 2))]
    first, second = (a, b) if ids[0] < ids[1] else (b, a)
    # Both scenes were written anew at one place, but the loaded pixels are read from them only now.
    scene(tmp_path / "b", 2, "2022-06-01T10:00:00Z", 600400)
    np.testing.assert_array_equal(data[0, 0].values, np.where(first != 0, first, second))


def test_solar_day_where_the_operator_asks_for_it(
    index: Index, odc_config: Config, tmp_path: Path, two: Path
):
    index.add(scene(tmp_path / "c", 3, "2022-06-01T10:00:20Z"))
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text("tiny_s2: {groupby: solar_day}")
    catalog = Catalog(odc_config.model_copy(update={"collection_overrides": overrides}))
    data = load(catalog, bands=["B04"])
    assert cube.labels(data, "t") == ["2022-06-01T10:00:00Z", "2022-06-05T10:00:00Z"]
    a, c = read(two / "a", "B04"), read(two / "c", "B04")
    np.testing.assert_array_equal(data[0, 0].values, np.where(a != 0, a, c)[30:40, 10:20])
    catalog.close()


def test_zone_with_most_of_the_area(catalog: Catalog, index: Index, tmp_path: Path):
    west = Grid(799000, 5200000, 10, (100, 200), 32632)
    east = Grid(350000, 5200000, 10, (100, 100), 32633)
    values = {"west": pixels(west, 1), "east": pixels(east, 2)}
    for grid, name in ((west, "west"), (east, "east")):
        bands = dict.fromkeys(("B04", "B08", "B11", "SCL"), (grid, values[name]))
        index.add(write(tmp_path / name, bands, time="2022-06-01T10:00:00Z", nodata=0))
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    left, bottom, right, top = to_degrees.transform_bounds(799500, 5199000, 800500, 5200000)
    degrees = {"west": left, "south": bottom, "east": right, "north": top}
    assert load(catalog, degrees, bands=["B04"]).odc.crs == "EPSG:32632"
    whole = load(catalog, None, bands=["B04"])
    assert whole.odc.crs == "EPSG:32632"
    assert "EPSG:32633" in whole.attrs["source"]
    native = whole.sel(x=slice(799000, 801000), y=slice(5200000, 5199000))[0, 0].values
    valid = values["west"] != 0
    np.testing.assert_array_equal(native[valid], values["west"][valid])


def test_time_is_half_open(catalog: Catalog, two: Path):
    def dates(start: str | None, end: str | None) -> list[str]:
        return [label[:10] for label in cube.labels(load(catalog, time=[start, end], bands=["B04"]), "t")]

    assert dates("2022-06-01T10:00:00Z", "2022-06-05T10:00:00Z") == ["2022-06-01"]
    assert dates("2022-06-01T10:00:00.001Z", None) == ["2022-06-05"]
    assert dates(None, "2022-06-05T10:00:00.001Z") == ["2022-06-01", "2022-06-05"]
    assert dates("2022-06-05T12:00:00+02:00", None) == ["2022-06-05"]


def test_property_conditions_select_scenes(catalog: Catalog, two: Path):
    def dates(**conditions: Any) -> list[str]:
        named = {key.replace("__", ":"): value for key, value in conditions.items()}
        return [label[8:10] for label in cube.labels(load(catalog, bands=["B04"], properties=named), "t")]

    assert dates(eo__cloud_cover=child("lte", y=10.5)) == ["01"]
    assert dates(eo__cloud_cover=child("lt", y=81)) == ["01", "05"]
    assert dates(eo__cloud_cover=child("between", min=50, max=80)) == ["05"]
    assert dates(cloud_cover=child("gt", y=50)) == ["05"]
    assert dates(platform=child("eq", y="s2b")) == ["05"]
    assert dates(platform=child("eq", y="S2B", case_sensitive=False)) == ["05"]
    assert dates(eo__platform=child("neq", y="s2b"), eo__cloud_cover=child("gte", y=10)) == ["01"]
    with pytest.raises(errors.NoDataAvailable, match="conditions"):
        dates(platform=child("eq", y="s2c"))
    with pytest.raises(errors.PropertiesUnsupported, match="no metadata property 'colour'"):
        dates(colour=child("eq", y="s2c"))


def test_geojson_extent_masks_pixels_outside(catalog: Catalog, two: Path):
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True).transform
    # No edge runs through the centre of a pixel, where both answers are right.
    corners = [(600112, 5199612), (600189, 5199612), (600112, 5199689), (600112, 5199612)]
    polygon = {"type": "Polygon", "coordinates": [[to_degrees(*c) for c in corners]]}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    expected = read(two / "a", "B04")
    x, y = np.meshgrid(600005 + 10 * np.arange(80), 5199995 - 10 * np.arange(60))
    inside = (x >= 600112) & (y >= 5199612) & ((x - 600112) + (y - 5199612) <= 77)
    masked = np.where(inside, expected, 0)[31:39, 11:19]
    for geojson in (polygon, feature, {"type": "FeatureCollection", "features": [feature]}):
        data = load(catalog, geojson, bands=["B04"])
        assert data.dtype == np.uint16
        bounds = data.odc.geobox.boundingbox
        assert (bounds.left, bounds.top) == (600110, 5199690)
        ours = data[0, 0].values
        np.testing.assert_array_equal(ours, masked[: ours.shape[0], : ours.shape[1]])
        assert inside.sum() == (ours != 0).sum()


# --- Only what is needed -------------------------------------------------------------------------


def test_unneeded_data_is_not_loaded(catalog: Catalog, two: Path):
    whole = load(catalog, None, None)

    def part(**demand: Any) -> xr.DataArray:
        env = Environment(catalog, demand=Demand(**demand))
        return load_collection("tiny_s2", None, None, env=env)

    bands = part(bands=("infrared", "SCL"))
    xr.testing.assert_identical(bands.compute(), whole.isel(bands=[1, 3]).compute())
    coarse = part(bands=("SCL",))
    xr.testing.assert_identical(coarse.compute(), whole.isel(bands=[3]).compute())
    dates = part(interval=("2022-06-03", None))
    xr.testing.assert_identical(dates.compute(), whole.isel(t=[1]).compute())
    cropped = part(boxes=(Box(600100, 5199600, 600200, 5199700, 32632),), margin=2)
    assert cropped.sizes["x"] < 20
    assert set(whole.sel(x=slice(600080, 600220)).x.values) <= set(cropped.x.values)
    np.testing.assert_array_equal(cropped.values, whole.sel(x=cropped.x, y=cropped.y).values)
    for interval in (("1999-01-01", "2000-01-01"), ("x", None)):
        assert part(interval=interval).sizes == whole.sizes
    assert part(bands=("B99",)).sizes == whole.sizes
    assert part(boxes=(Box(0, 0, 1, 1),)).sizes == whole.sizes


# --- Bad input -----------------------------------------------------------------------------------

BAD: list[tuple[Mapping[str, Any], type[errors.OpenEOError], str]] = [
    ({"id": "nowhere"}, errors.CollectionNotFound, "nowhere"),
    ({"box": {**BOX, "west": 600300}}, errors.ProcessParameterInvalid, "swapped"),
    ({"box": {**BOX, "west": 600200}}, errors.ProcessParameterInvalid, "no area"),
    ({"box": {**BOX, "west": float("nan")}}, errors.ProcessParameterInvalid, "finite"),
    (
        {"box": {k: v for k, v in BOX.items() if k != "north"}},
        errors.ProcessParameterInvalid,
        "'north' is miss",
    ),
    (
        {"box": {k: v for k, v in BOX.items() if k != "west"}},
        errors.ProcessParameterInvalid,
        "'west' is missing",
    ),
    ({"box": {**BOX, "east": "600200"}}, errors.ProcessParameterInvalid, "'east' must be a number"),
    ({"box": {**BOX, "east": True}}, errors.ProcessParameterInvalid, "'east' must be a number"),
    ({"box": {**BOX, "crs": 4326}}, errors.ProcessParameterInvalid, "not on Earth"),
    ({"box": {**BOX, "crs": 999999}}, errors.ProcessParameterInvalid, "unknown"),
    ({"box": {**BOX, "west": 700000, "east": 700100}}, errors.NoDataAvailable, "data from 2022-06-01"),
    ({"box": {"type": "Polygon", "coordinates": []}}, errors.ProcessParameterInvalid, "empty"),
    ({"box": {"type": "Circle"}}, errors.ProcessParameterInvalid, "Circle"),
    ({"time": ["2022-07-01", "2022-06-01"]}, errors.TemporalExtentEmpty, "later"),
    ({"time": ["2022-06-31", None]}, errors.ProcessParameterInvalid, "2022-06-31"),
    ({"time": ["yesterday", None]}, errors.ProcessParameterInvalid, "yesterday"),
    ({"time": ["1999-01-01", "1999-02-01"]}, errors.NoDataAvailable, "1999|has no dataset"),
]


def test_invalid_arguments_are_refused(catalog: Catalog, two: Path):
    for arguments, error, message in BAD:
        with pytest.raises(error, match=message) as raised:
            load(catalog, **arguments)
        assert raised.value.node == "load"


def test_too_much_is_refused_before_anything_is_read(catalog: Catalog, two: Path):
    with pytest.raises(errors.ProcessGraphComplexity, match="80 x 60 pixels, 4 bands and 2 dates"):
        load(catalog, None, None, limits=RunLimits(load_bytes=1000))
    with pytest.raises(errors.ProcessGraphComplexity, match="2 datasets of collection 'tiny_s2'"):
        load(catalog, None, None, limits=RunLimits(load_scenes=1))


def test_missing_and_damaged_files_name_the_dataset(catalog: Catalog, two: Path):
    data = load(catalog, bands=["B04"])
    (two / "a" / "B04.tif").unlink()
    with pytest.raises(errors.StorageFailure, match="Band B04 of dataset") as raised:
        data[0].compute(scheduler="threads")
    assert str(two) not in str(raised.value)
    assert explain_read_failure(raised.value) is raised.value
    (two / "b" / "B04.tif").write_bytes(b"II*\x00 not a TIFF")
    with pytest.raises(errors.StorageFailure, match="Band B04 of dataset"):
        data[1].compute(scheduler="threads")
    wrapped = RuntimeError("a task failed")
    wrapped.__cause__ = raised.value
    assert explain_read_failure(wrapped) is raised.value
    assert explain_read_failure(RuntimeError("something else")) is None


def test_errors_survive_the_way_from_another_process(catalog: Catalog, two: Path):
    data = load(catalog, bands=["B04"])
    (two / "a" / "B04.tif").unlink()
    with pytest.raises(errors.StorageFailure, match="Band B04 of dataset"):
        data[0].compute(scheduler="processes", num_workers=1)


def test_signature_is_that_of_the_specification():
    from odc_openeo.registry.process import PROCESSES

    parameters = PROCESSES["load_collection"].parameters
    names = ["id", "spatial_extent", "temporal_extent", "bands", "properties"]
    assert list(parameters) == [*names, "native_grid"]
    assert [p.optional for p in parameters.values()] == [False, False, False, True, True, True]
    assert parameters["native_grid"].default is False
    assert load_collection.__name__ == "load_collection"


def test_collection_without_datasets_says_so(catalog: Catalog, index: Index) -> None:
    with pytest.raises(errors.NoDataAvailable) as raised:
        load(catalog)
    assert raised.value.message.endswith("collection 'tiny_s2' has no datasets yet.")
