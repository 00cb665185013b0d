"""Options of formats as graphs of other back-ends give them."""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from odc_openeo.errors import FormatUnsuitable, NoDataAvailable, OpenEOError, ProcessParameterInvalid
from odc_openeo.formats import FORMATS, Output, explain_archive, make_download, write_outputs
from odc_openeo.formats.file_names import choose_stems, make_safe_name
from odc_openeo.formats.thumbnail import write_thumbnail
from odc_openeo.processes import export, filters  # noqa: F401  (registers the processes)
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES
from odc_openeo.spatial.geometry_masks import clip_to_geometries
from odc_openeo.spatial.rasterize import get_grid
from odc_openeo.spatial.warp import warp
from tests.formats.cubes import ORIGIN, raster, vector


def save(data: Any, folder: Path, name: str = "GTiff", **options: Any) -> list[Path]:
    return [asset.path for asset in write_outputs(None, [Output.from_data(data, name, options)], folder)]


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def placed(*args: Any, **kwargs: Any) -> xr.DataArray:
    return raster(*args, **kwargs).odc.assign_crs(kwargs.get("crs", "EPSG:32632"))


# --- Names and values of options -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "options", "expected"),
    [
        ("GTiff", {"ZLEVEL": "6", "COMPRESSION": "deflate"}, {"level": 6, "compress": "DEFLATE"}),
        ("GTiff", {"tile_size": 256, "overviews": "OFF"}, {"blocksize": 256, "overviews": "NONE"}),
        ("GTiff", {"overviews": "all", "overview_method": "near"}, {"overview_resampling": "NEAREST"}),
        ("GTiff", {"level": 6.0, "compress": None, "colormap": None}, {"level": 6, "compress": "DEFLATE"}),
        ("GTiff", {"separate_asset_per_band": "true"}, {"separate_asset_per_band": True}),
        ("GTiff", {"level": 4, "zlevel": 4}, {"level": 4}),
        ("netCDF", {"compress": "DEFLATE", "complevel": 3}, {"compression": "zlib", "level": 3}),
        ("PNG", {"DataType": "byte"}, {"datatype": "uint8"}),
    ],
)
def test_names_and_values_of_other_back_ends_are_taken(format_, options, expected):
    complete = FORMATS[format_].complete_options(options)
    assert {name: complete[name] for name in expected} == expected


@pytest.mark.parametrize("format_", FORMATS)
def test_null_of_an_option_is_its_default(format_):
    chosen = FORMATS[format_]
    assert chosen.complete_options(dict.fromkeys(chosen.options)) == chosen.complete_options({})


@pytest.mark.parametrize(
    ("format_", "options", "reason"),
    [
        ("GTiff", {"level": 3, "ZLEVEL": 4}, "'level' and 'ZLEVEL' are the same option"),
        ("GTiff", {"scale": 2}, "no option 'scale'. It has: compress,"),
        ("CSV", {"colormap": {}}, "no option 'colormap'. It has: separator, filename_prefix"),
        ("GTiff", {"bands_metadata": {"B01": {"a\nb": 1}}}, "option 'bands_metadata'"),
        ("GTiff", {"bands_metadata": {"B09": {}}}, "no band 'B09'. The bands are: B01, B02, B03"),
        ("GTiff", {"bands_metadata": {"B01": {"scale": "x"}}}, "scale of band 'B01' must be a number"),
        ("GTiff", {"filename_prefix": "../.."}, "no letter or digit"),
        ("GTiff", {"filename_prefix": 7}, "option 'filename_prefix'"),
        ("GTiff", {"tile_grid": "utm-1km"}, "must be one of 'wgs84-1degree', 'utm-10km'"),
        ("GTiff", {"colormap": {"1": "red"}}, "files with one band"),
        ("GTiff", {"sample_by_feature": True, "tile_grid": "utm-20km"}, "can't be combined"),
        ("GTiff", {"sample_by_feature": True}, "filter_spatial"),
        ("netCDF", {"sample_by_feature": "yes"}, "must be true or false"),
    ],
)
def test_what_is_wrong_with_an_option_is_said(format_, options, reason):
    with pytest.raises(ProcessParameterInvalid, match=re.escape(reason)):
        Output.from_data(placed(), format_, options)


def test_hints_of_other_back_ends_are_warnings():
    output = Output.from_data(raster(), "GTiff", {"stitch": True, "TILED": True, "filename_prefix": "a/b"})
    assert [w.split(":")[0] for w in output.warnings] == [
        "option 'stitch' of format GTiff has no effect here",
        "option 'TILED' of format GTiff has no effect here",
        "option 'filename_prefix'",
    ]
    assert Output.from_data(raster(), "GTiff", {"zlevel": 3}).warnings == []


def test_warnings_go_to_the_log_of_the_user(caplog):
    env = Environment(log=logging.getLogger("odc_openeo.run.test"))
    arguments = {"data": raster(), "format": "GTiff", "options": {"stitch": True}}
    with caplog.at_level(logging.WARNING, "odc_openeo.run"):
        PROCESSES["save_result"].call(arguments, env)
    (record,) = caplog.records
    assert record.getMessage().startswith("save_result: option 'stitch' of format GTiff has no effect")


def test_messages_stay_short():
    with pytest.raises(ProcessParameterInvalid) as caught:
        Output.from_data(raster(), "GTiff", {"compress": "x" * 100_000, "y" * 100_000: 1})
    assert len(caught.value.message) < 1000


# --- Names of files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "stem"),
    [
        ("NDVI", "NDVI"),
        ("../../etc/passwd", "etc-passwd"),
        ("/abs/path", "abs-path"),
        ("a\x00b\r\nc", "a-b-c"),
        ("C:\\x", "C-x"),
        (".hidden", "hidden"),
        ("a..b", "a.b"),
        ("Äcker 2020", "Äcker-2020"),
        ("%2e%2e%2f", "2e-2e-2f"),
        ("x" * 999, "x" * 80),
        ("é" * 200, "é" * 40),
        ("thumbnail", "thumbnail_result"),
        ("Collection", "Collection_result"),
    ],
)
def test_names_of_files_are_safe(tmp_path, prefix, stem):
    assert names(save(raster(dates=None), tmp_path, filename_prefix=prefix)) == [f"{stem}.tif"]
    assert names(list(tmp_path.iterdir())) == [f"{stem}.tif"]


@pytest.mark.parametrize("format_", ["GTiff", "netCDF", "Zarr", "PNG", "JPEG", "JSON", "CSV", "Parquet"])
def test_every_format_has_a_prefix(tmp_path, format_):
    cube = raster("uint8", dates=None, bands=None, shape=(4, 5))
    (path,) = save(cube, tmp_path, format_, filename_prefix="mine")
    assert path.stem == "mine"


@pytest.mark.parametrize(
    ("prefixes", "stems"),
    [
        ([None], ["result"]),
        ([None, None], ["result_1", "result_2"]),
        (["a", "b"], ["a", "b"]),
        (["a", "A"], ["1_a", "2_A"]),
        (["a", "a_2022-06-01"], ["1_a", "2_a_2022-06-01"]),
        (["result_2", None], ["1_result_2", "2_result_2"]),
    ],
)
def test_outputs_never_share_names(prefixes, stems):
    assert choose_stems(prefixes) == stems


def test_no_output_replaces_the_file_of_another(tmp_path):
    first, second = raster(dates=2), raster(dates=None) + 1
    outputs = [
        Output.from_data(first, "GTiff", {"filename_prefix": "a"}),
        Output.from_data(second, "GTiff", {"filename_prefix": "a_2022-06-01"}),
    ]
    assets = write_outputs(None, outputs, tmp_path)
    assert len({asset.path for asset in assets}) == len(assets) == 3


def test_long_and_strange_labels_are_safe_in_names(tmp_path):
    cube = raster(dates=None, bands=1).expand_dims({"kind/\x01": ["x" * 400, "../a", "..", "X" * 400]})
    paths = save(cube, tmp_path)
    assert len(set(paths)) == 4
    assert all(re.fullmatch(r"[\w.-]+\.tif", path.name) and len(path.name) < 120 for path in paths)
    assert make_safe_name("..") == ""


# --- Layouts of GTiff ----------------------------------------------------------------------------


def test_a_file_for_each_band(tmp_path):
    cube = raster("uint16").assign_coords(nodata=("bands", [0, 1, 2]), bands=["B 1", "B/1", "SCL"])
    paths = save(cube.chunk({"bands": 1}), tmp_path, separate_asset_per_band=True)
    assert len(set(paths)) == 6
    with rasterio.open(tmp_path / "result_2022-06-06_SCL-2.tif") as file:
        assert (file.count, file.descriptions) == (1, ("SCL",))
        expected = np.where(cube.values[1, 2] == 2, file.nodata, cube.values[1, 2].astype("int32"))
        np.testing.assert_array_equal(file.read(1), expected)


@pytest.mark.parametrize("chunks", [None, {"t": 1, "bands": 2, "y": 13}])
@pytest.mark.parametrize(
    "options",
    [
        {"layout": "bands"},
        {"bands_metadata": {"B02": {"SCALE": 0.5, "offset": -1, "unit": "K", "Kind": "x"}}},
    ],
)
def test_all_dates_in_one_file(tmp_path, chunks, options):
    cube = placed("int16", dates=3)
    (asset,) = write_outputs(
        None, [Output.from_data(cube.chunk(chunks) if chunks else cube, "GTiff", options)], tmp_path
    )
    assert asset.path.name == "result.tif"
    assert (asset.start_datetime, asset.end_datetime) == ("2022-06-01T10:00:00Z", "2022-06-11T10:00:00Z")
    assert [b["name"] for b in asset.bands][2:4] == ["B03 2022-06-01", "B01 2022-06-06"]
    with rasterio.open(asset.path) as file:
        assert file.descriptions[3] == "B01 2022-06-06"
        np.testing.assert_array_equal(file.read(), cube.values.reshape(-1, 40, 30))
        assert file.transform == cube.odc.geobox.transform
        if "bands_metadata" in options:
            assert (file.scales[4], file.offsets[4], file.units[4]) == (0.5, -1, "K")
            assert file.tags(5)["Kind"] == "x"
            assert (file.scales[3], file.units[3]) == (1, None)


def test_metadata_of_a_single_date_changes_no_name(tmp_path):
    (path,) = save(raster(dates=1), tmp_path, bands_metadata={"B01": {"a": 1}})
    assert path.name == "result_2022-06-01.tif"
    with rasterio.open(path) as file:
        assert file.descriptions == ("B01", "B02", "B03")
        assert file.tags(1)["a"] == "1"


def test_many_dimensions_have_names_that_fit(tmp_path):
    cube = raster(dates=None, bands=None, shape=(2, 2))
    for i in range(12):
        cube = cube.expand_dims({f"dimension{i}": [f"{'long' * 9}{i}"]})
    cube = cube.expand_dims({"kind": ["a", "b"]}, axis=-3)
    paths = save(cube, tmp_path)
    assert len(set(paths)) == 2
    assert all(len(path.name) <= 204 for path in paths)


def test_too_many_dates_for_one_file(tmp_path):
    cube = raster(dates=22, shape=(3, 3))
    with pytest.raises(FormatUnsuitable, match="22 dates of 3 bands are more than 64"):
        Output.from_data(cube, "GTiff", {"layout": "bands"})
    assert len(save(cube, tmp_path, bands_metadata={"B01": {}})) == 22


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "color", ["#0a141e", [10, 20, 30], [10 / 255, 20 / 255, 30 / 255], 0x0A141EFF, [10, 20, 30, 255]]
)
def test_colours_of_a_geotiff(tmp_path, dtype, color):
    cube = raster(dtype, dates=None, bands=1) % 4
    (path,) = save(cube.astype(dtype), tmp_path, colormap={"1": color, "3.0": "white"})
    with rasterio.open(path) as file:
        assert file.colorinterp[0].name == "palette"
        assert file.colormap(1)[1] == (10, 20, 30, 255)
        assert file.colormap(1)[3] == (255, 255, 255, 255)
        np.testing.assert_array_equal(file.read(), cube.values)


@pytest.mark.parametrize(
    ("colormap", "reason"),
    [
        ({"256": "red"}, "value 256 is above 255"),
        ({"-1": "red"}, "'-1' is not a whole number"),
        ({"1": "blurple"}, "'blurple' is not a valid colour"),
        ({"1": [1, 2]}, "is not a valid colour"),
        ({"1": [0, 0, 256]}, "is not a valid colour"),
        ({"1": 2**32}, "is not a valid colour"),
        ({"1": None}, "is not a valid colour"),
        ("no such map", "no colour map"),
        (["red"], "colormap"),
        ({}, "colormap"),
    ],
)
@pytest.mark.parametrize("format_", ["GTiff", "PNG"])
def test_wrong_colours_are_named(format_, colormap, reason):
    if format_ == "PNG" and "256" in colormap:
        return
    with pytest.raises(ProcessParameterInvalid, match=re.escape(reason)):
        Output.from_data(raster("uint8", dates=None, bands=1), format_, {"colormap": colormap})


def test_colours_need_small_integers():
    with pytest.raises(ProcessParameterInvalid, match="uint8 and uint16, but these are float32"):
        Output.from_data(raster(dates=None, bands=1), "GTiff", {"colormap": {"1": "red"}})


# --- PNG -----------------------------------------------------------------------------------------


def test_png_colours_by_value(tmp_path):
    cube = raster(dates=None, bands=1)
    cube[0, 0, :6] = [1, 300, 2, -1, np.nan, 70000]
    (path,) = save(cube, tmp_path, "PNG", colormap={"1": "red", "300": [0, 0, 255, 100]})
    with Image.open(path) as image:
        actual = np.asarray(image)
    assert actual[0, :6].tolist() == [[255, 0, 0, 255], [0, 0, 255, 100], *[[0, 0, 0, 0]] * 4]


def test_png_colours_by_name(tmp_path):
    cube = raster("uint8", dates=None, bands=1)
    cube[0, 0, :2] = [0, 255]
    (path,) = save(cube, tmp_path, "PNG", colormap="viridis")
    with Image.open(path) as image:
        assert np.asarray(image)[0, :2].tolist() == [[68, 1, 84], [253, 231, 37]]


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("missing", [False, True])
def test_png_of_16_bits(tmp_path, bands, missing):
    cube = raster("float64", dates=None, bands=bands) * 300
    cube[0, 0, :2] = [-3, 1e6]
    if missing:
        cube[0, 1, 1] = np.nan
    (path,) = save(cube.chunk({"y": 7}), tmp_path, "PNG", datatype="uint16")
    expected = np.clip(np.rint(np.nan_to_num(cube.values, nan=0)), 0, 65535)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            assert file.dtypes[0] == "uint16"
            values = file.read()
    assert len(values) == bands + (missing and bands < 4)
    np.testing.assert_array_equal(values[: min(bands, 3), 2:], expected[:3, 2:])
    if missing:
        assert values[-1, 1, 1] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["result.png"]


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_thumbnails_of_16_bits(tmp_path, bands):
    cube = raster(dates=None, bands=bands) * 300
    cube[0, 0, 0] = np.nan
    assets = write_outputs(None, [Output.from_data(cube, "PNG", {"datatype": "uint16"})], tmp_path)
    asset = write_thumbnail(assets, tmp_path)
    assert asset is not None
    with Image.open(asset.path) as image:
        assert image.size == (30, 40)


def test_png_of_16_bits_has_no_colour_map():
    with pytest.raises(ProcessParameterInvalid, match="needs the datatype uint8"):
        Output.from_data(raster(bands=1), "PNG", {"datatype": "uint16", "colormap": ["red", "blue"]})


# --- Pieces --------------------------------------------------------------------------------------


def polygons(**properties: list[Any]) -> dict[str, Any]:
    """Three rectangles of 5 by 4 pixels: two in the cube, one outside of it."""
    west, north = ORIGIN
    shapes = [(0, 0, 50, 40), (100, 100, 150, 140), (5000, 0, 5050, 40)]
    features = [
        {
            "type": "Feature",
            "properties": {key: values[i] for key, values in properties.items()},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [
                        [west + left, north - top],
                        [west + right, north - top],
                        [west + right, north - bottom],
                        [west + left, north - bottom],
                        [west + left, north - top],
                    ]
                ],
            },
        }
        for i, (left, top, right, bottom) in enumerate(shapes)
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
    return {"type": "FeatureCollection", "features": features, "crs": crs}


def clipped(cube: xr.DataArray, **properties: list[Any]) -> xr.DataArray:
    return clip_to_geometries(cube, polygons(**properties), "filter_spatial", "geometries")


@pytest.mark.parametrize("chunks", [None, {"y": 16}])
def test_a_file_for_each_feature(tmp_path, chunks):
    cube = placed()
    data = clipped(cube.chunk(chunks) if chunks else cube, id=["field/1", "b", "c"])
    calculated = (data * 2).max("t")
    output = Output.from_data(
        calculated, "GTiff", {"sample_by_feature": True, "feature_id_property": "id", "filename_prefix": "s"}
    )
    assert output.warnings == ["1 features have no pixel and get no file: c."]
    paths = [asset.path for asset in write_outputs(None, [output], tmp_path)]
    assert names(paths) == ["s_field-1.tif", "s_b.tif"]
    with rasterio.open(paths[1]) as file:
        assert file.bounds[:2] == (ORIGIN[0] + 100, ORIGIN[1] - 140)
        np.testing.assert_allclose(file.read(), 2 * np.max(cube.values[:, :, 10:14, 10:15], axis=0))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (None, ["result_0", "result_1"]),
        ([7.0, 8, 9], ["result_7", "result_8"]),
        (["same", "SAME", "x"], ["result_same-0", "result_SAME-1"]),
        ([None, "", "y"], ["result_0", "result_1"]),
    ],
)
def test_features_are_named_by_property_or_number(tmp_path, ids, expected):
    data = clipped(placed(dates=1), **({"id": ids} if ids else {}))
    options = {"sample_by_feature": True, "feature_id_property": "id" if ids else None}
    paths = save(data, tmp_path, "netCDF", **options)
    assert [p.stem for p in paths] == expected
    with xr.open_dataset(paths[0], decode_coords="all") as dataset:
        assert dict(dataset.sizes) == {"t": 1, "y": 4, "x": 5}


def test_features_without_that_property():
    with pytest.raises(ProcessParameterInvalid, match="no feature has 'id'. They have: name"):
        Output.from_data(
            clipped(placed(), name=["a", "b", "c"]),
            "GTiff",
            {"sample_by_feature": True, "feature_id_property": "id"},
        )


def test_features_are_kept_through_other_grids(tmp_path):
    data = clipped(placed(dates=1))
    grid = get_grid(data, "resample_spatial")
    coarse = warp(data, grid, grid.zoom_out(2))
    assert names(save(coarse, tmp_path, sample_by_feature=True)) == [
        "result_0_2022-06-01.tif",
        "result_1_2022-06-01.tif",
    ]


def test_titles_tell_files_apart(tmp_path):
    output = Output.from_data(
        clipped(placed()), "GTiff", {"sample_by_feature": True, "separate_asset_per_band": True}
    )
    assets = write_outputs(None, [output], tmp_path)
    assert len({asset.title for asset in assets}) == len(assets) == 2 * 2 * 3
    assert assets[0].title == "0: B01: 2022-06-01T10:00:00Z"


def test_no_feature_has_a_pixel():
    data = clipped(placed())[..., 7:9, 7:9]
    with pytest.raises(NoDataAvailable, match="features to sample"):
        Output.from_data(data, "GTiff", {"sample_by_feature": True})


def test_a_file_for_each_geometry_of_a_vector_cube(tmp_path):
    options = {"sample_by_feature": True, "feature_id_property": "field"}
    paths = save(vector(), tmp_path, "netCDF", **options)
    assert names(paths) == ["result_a.nc", "result_b.nc", "result_c.nc"]
    with xr.open_dataset(paths[2]) as dataset:
        np.testing.assert_array_equal(dataset["B02"].values.ravel(), vector().values[2, :, 1])


def test_tiles_of_a_utm_zone(tmp_path):
    west, north = 595000.0, 5105000.0
    cube = placed("uint16", dates=None, bands=1, shape=(30, 20))
    cube = cube.assign_coords(x=west + 500 + 1000 * np.arange(20.0), y=north - 500 - 1000 * np.arange(30.0))
    paths = save(cube.chunk({"x": 7}), tmp_path, tile_grid="utm-20km")
    assert names(paths) == [
        f"result_{tile}.tif"
        for tile in ("E580N5060", "E600N5060", "E580N5080", "E600N5080", "E580N5100", "E600N5100")
    ]
    pixels = 0
    for path in paths:
        with rasterio.open(path) as file:
            left, bottom, right, top = file.bounds
            assert left // 20_000 == (right - 1) // 20_000
            assert bottom // 20_000 == (top - 1) // 20_000
            y, x = int((north - top) / 1000), int((left - west) / 1000)
            np.testing.assert_array_equal(
                file.read(1), cube.values[0, y : y + file.height, x : x + file.width]
            )
            pixels += file.height * file.width
    assert pixels == 600


def test_tiles_of_one_degree(tmp_path):
    cube = raster("uint8", dates=None, bands=None, shape=(10, 10), crs="EPSG:4326").odc.assign_crs(4326)
    cube = cube.assign_coords(x=-0.9 + 0.2 * np.arange(10), y=0.9 - 0.2 * np.arange(10))
    tiles = {path.stem[7:] for path in save(cube, tmp_path, "PNG", tile_grid="WGS84-1degree")}
    assert tiles == {"N00E000", "N00W001", "S01E000", "S01W001"}


@pytest.mark.parametrize(
    ("crs", "grid", "kind"), [(32632, "wgs84-1degree", "in degrees"), (3035, "utm-20km", "in a UTM zone")]
)
def test_tiles_need_a_fitting_reference_system(tmp_path, crs, grid, kind):
    cube = raster(dates=None).drop_vars("spatial_ref", errors="ignore").odc.assign_crs(crs)
    output = Output.from_data(cube, "GTiff", {"tile_grid": grid})
    assert kind in output.warnings[0]
    assert names([a.path for a in write_outputs(None, [output], tmp_path)]) == ["result.tif"]


# --- Archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "options", "reason"),
    [
        ("GTiff", {}, "GTiff has a file for each of the 2 labels of 't'"),
        ("GTiff", {"separate_asset_per_band": True}, "each band has a file"),
        ("PNG", {}, "PNG has a file for each of the 2 labels of 't'"),
        ("Zarr", {}, "the format Zarr has several files"),
        ("GTiff", {"tile_grid": "utm-100km"}, "GTiff has a file for each of the 2 labels"),
    ],
)
def test_why_a_result_is_an_archive(tmp_path, format_, options, reason):
    output = Output.from_data(placed("uint8"), format_, options)
    download = make_download(write_outputs(None, [output], tmp_path), [output])
    assert (download.name, download.media_type) == ("result.zip", "application/zip")
    assert zipfile.is_zipfile(io.BytesIO(b"".join(download.open_archive())))
    assert reason in explain_archive([output])


def test_errors_are_those_of_the_api():
    for options in ({"sample_by_feature": True}, {"colormap": {"x": 1}}, {"nothing": 1}):
        with pytest.raises(OpenEOError) as caught:
            Output.from_data(raster(bands=1), "PNG", options)
        assert caught.value.status == 400
