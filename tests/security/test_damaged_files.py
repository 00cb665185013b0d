"""Files of users that are damaged or lie: an error that names the file, and no memory taken for lies."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import geopandas
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from scipy.io import netcdf_file

from odc_openeo.errors import FileContentInvalid, OpenEOError
from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.read import get_input_format
from odc_openeo.load import build
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.untrusted.rasters import LocalFolder

SIDE = 64
PROFILE = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": "uint8"}
GRID = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_200_000)}


def read(format_: str, path: Path) -> Any:
    return get_input_format(format_).read([path])


def compute(value: Any) -> Any:
    return dask.compute(value, scheduler="synchronous")[0]


def write_tiff(path: Path, **profile: Any) -> Path:
    with rasterio.open(path, "w", **{**PROFILE, **GRID, **profile}) as file:
        file.write(np.random.default_rng(1).integers(0, 255, (1, SIDE, SIDE)).astype("uint8"))
    return path


def read_as_asset(path: Path, **fields: Any) -> Any:
    asset = {"href": str(path), "type": "image/tiff; application=geotiff", **fields}
    item = {"id": "scene", "properties": {"datetime": "2022-06-01T10:00:00Z"}, "assets": {"a": asset}}
    return load_item(item, path.parent)


def load_item(item: dict[str, Any], folder: Path) -> Any:
    bands, scenes = read_items([item], LocalFolder(folder))
    return build.load(scenes, bands)


def refusal_of(format_: str, path: Path) -> str | None:
    """Why a file is refused; None if it is read."""
    try:
        read(format_, path)
    except FileContentInvalid as error:
        return str(error)
    return None


READERS = {"upload": lambda path: read("GTiff", path), "asset": read_as_asset}
DEGENERATE = {
    "no size": Affine(0, 0, 1, 0, 0, 1),
    "no width": Affine(0, 0, 600_000, 0, -10, 5_200_000),
    "no height": Affine(10, 0, 600_000, 0, 0, 5_200_000),
    "parallel axes": Affine(10, 10, 600_000, 10, 10, 5_200_000),
    "NaN": Affine(float("nan"), 0, 0, 0, -10, 0),
    "infinite": Affine(float("inf"), 0, 0, 0, -10, 0),
    "infinite origin": Affine(10, 0, float("inf"), 0, -10, 0),
    "tiny": Affine(1e-300, 0, 0, 0, -1e-300, 0),
    "huge": Affine(1e300, 0, 1e300, 0, -1e300, 1e300),
}
SYSTEMS = {
    "geocentric": "EPSG:4978",
    "vertical": "EPSG:5703",
    "local": 'LOCAL_CS["x",UNIT["m",1]]',
    "engineering": 'ENGCRS["x",EDATUM["y"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],UNIT["metre",1]]',
}


@pytest.mark.parametrize("transform", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_degenerate_transforms(tmp_path: Path, reader: Callable[..., Any], transform: Affine) -> None:
    path = write_tiff(tmp_path / "a.tif", transform=transform)
    with rasterio.open(path) as file:
        is_kept = file.transform != Affine.identity()
    if is_kept:
        with pytest.raises(FileContentInvalid, match=r"a\.tif"):
            reader(path)


@pytest.mark.parametrize("crs", SYSTEMS.values(), ids=SYSTEMS.keys())
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_reference_systems_without_a_place_on_earth(
    tmp_path: Path, reader: Callable[..., Any], crs: str
) -> None:
    with pytest.raises(FileContentInvalid, match=r"a\.tif"):
        reader(write_tiff(tmp_path / "a.tif", crs=crs))


@pytest.mark.parametrize("compress", ["deflate", "lzw"])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_damaged_blocks(tmp_path: Path, reader: Callable[..., Any], compress: str) -> None:
    """Found only when pixels are read: it is the user's file, not one of the operator's."""
    path = write_tiff(tmp_path / "a.tif", compress=compress)
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as file:
        offset = int(file.tags(1, ns="TIFF")["BLOCK_OFFSET_0_0"]) if file.tags(1, ns="TIFF") else 400
    content[offset : offset + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    with pytest.raises(OpenEOError) as caught:
        compute(reader(path))
    explained = explain_read_failure(caught.value)
    assert isinstance(explained, FileContentInvalid), caught.value
    assert "a.tif" in str(explained)
    assert str(tmp_path) not in str(explained)


@pytest.mark.parametrize(
    "fields",
    [
        {"proj:shape": [SIDE, SIDE], "proj:transform": [0] * 6, "proj:code": "EPSG:32632"},
        {"proj:shape": [SIDE, SIDE], "proj:transform": ["a"] * 6, "proj:code": "EPSG:32632"},
        {"proj:shape": [SIDE, SIDE], "proj:transform": [1e999] * 6, "proj:code": "EPSG:32632"},
        {"proj:shape": [0, -1], "proj:transform": [10, 0, 6e5, 0, -10, 5.2e6], "proj:code": "EPSG:32632"},
        {"proj:shape": [1.5, "2"], "proj:transform": [10, 0, 6e5, 0, -10, 5.2e6], "proj:code": "EPSG:1"},
        {"proj:shape": 5, "proj:transform": {}, "proj:code": ["EPSG:32632"]},
        {"proj:shape": [SIDE] * 3, "proj:transform": [10, 0, 6e5, 0, -10, 5.2e6], "proj:code": "nonsense"},
    ],
)
def test_invalid_grids_in_metadata_are_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    """The file tells its grid itself."""
    cube = read_as_asset(write_tiff(tmp_path / "a.tif"), **fields)
    assert cube.sizes == {"t": 1, "bands": 1, "y": SIDE, "x": SIDE}


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {"datetime": ""}},
        {"properties": {"datetime": 5}},
        {"properties": []},
        {"geometry": {"type": "Polygon", "coordinates": [[[1e308, 0], [1, 1], [0, 1], [1e308, 0]]]}},
        {
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[9e9, 0], [1, 1], [0, 1], [9e9, 0]]],
            }
        },
        {"geometry": {"type": "Polygon", "coordinates": "xy"}},
        {"geometry": {"type": {}, "coordinates": []}},
        {"geometry": "POINT (1 1)"},
        {"assets": []},
        {"assets": {"a": None}},
        {"assets": {"a": {"href": {}, "type": 5}}},
        {"assets": {"a": {"type": "image/tiff"}}},
    ],
)
def test_items_that_are_not_stac(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_tiff(tmp_path / "a.tif")
    item = {
        "id": "scene",
        "properties": {"datetime": "2022-06-01T10:00:00Z"},
        "assets": {"a": {"href": str(path), "type": "image/tiff"}},
        **change,
    }
    with pytest.raises(OpenEOError) as caught:
        load_item(item, tmp_path)
    assert caught.value.status in (400, 501)


# --- netCDF ----------------------------------------------------------------------------------------


def write_netcdf(folder: Path) -> Path:
    coords = {"y": 5_200_000.0 - 10 * np.arange(200), "x": 600_000.0 + 10 * np.arange(300)}
    values = np.random.default_rng(1).random((200, 300)).astype("float32")
    cube = xr.DataArray(values, dims=("y", "x"), coords=coords).odc.assign_crs("EPSG:32632")
    (asset,) = write_outputs(None, [Output.from_data(cube, "netCDF")], folder)
    return asset.path


@pytest.mark.parametrize(
    "attributes",
    [
        {"crs_wkt": "PROJCS[broken", "spatial_ref": "PROJCS[broken"},
        {"crs_wkt": "", "spatial_ref": ""},
        {"crs_wkt": 'LOCAL_CS["x"]', "spatial_ref": 'LOCAL_CS["x"]'},
        {"GeoTransform": "a b c"},
        {"GeoTransform": "0 0 0 0 0 0"},
    ],
)
def test_broken_grid_mappings(tmp_path: Path, attributes: dict[str, str]) -> None:
    path = write_netcdf(tmp_path)
    with h5py.File(path, "a") as file:
        for name, value in attributes.items():
            file["spatial_ref"].attrs[name] = value
    refusal = refusal_of("netCDF", path)
    # What is left may suffice to place the pixels.
    assert refusal is None or path.name in refusal


def test_damaged_values_of_netcdf(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path)
    cube = read("netCDF", path)
    content = bytearray(path.read_bytes())
    start = len(content) // 3
    content[start : start + len(content) // 3] = b"\xff" * (len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(FileContentInvalid, match=path.name):
        compute(cube)


@pytest.mark.parametrize("kind", ["HDF5", "classic"])
def test_endless_coordinates(tmp_path: Path, kind: str) -> None:
    path, size = tmp_path / "a.nc", 1_500_000_000
    if kind == "HDF5":
        with h5py.File(path, "w") as file:
            for name, length in (("x", size), ("y", 2)):
                axis = file.create_dataset(name, (length,), "f8", chunks=True)
                axis.make_scale(name)
                axis.attrs["standard_name"] = f"projection_{name}_coordinate"
            values = file.create_dataset("v", (2, size), "f4", chunks=True)
            values.dims[0].attach_scale(file["y"])
            values.dims[1].attach_scale(file["x"])
    else:
        with netcdf_file(path, "w") as file:
            file.createDimension("x", size)
    assert path.stat().st_size < 2**20
    with pytest.raises(FileContentInvalid, match=str(size)):
        read("netCDF", path)


def test_more_pixels_than_can_be_planned(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {**PROFILE, **GRID, "width": 2_000_000, "height": 2_000_000, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, tiled=True, SPARSE_OK=True, BIGTIFF="YES", compress="deflate"):
        pass
    with pytest.raises(FileContentInvalid, match="2000000"):
        read("GTiff", path)


# --- Tables ----------------------------------------------------------------------------------------


def geoparquet(path: Path, geometry: Any, **changes: Any) -> Path:
    geopandas.GeoDataFrame({"v": [1]}, geometry=[shapely.Point(1, 2)], crs=4326).to_parquet(path)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"geo"])
    about["columns"]["geometry"] |= changes
    if geometry is not None:
        table = table.set_column(1, "geometry", pa.array([geometry], pa.binary()))
    table = table.replace_schema_metadata({**table.schema.metadata, b"geo": json.dumps(about).encode()})
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("geometry", "changes"),
    [
        (b"nonsense", {}),
        (b"", {}),
        (b"\x01\x03\x00\x00\x00\xff\xff\xff\xff", {}),
        (None, {"crs": {"type": "nonsense"}}),
        (None, {"crs": "EPSG:999999"}),
        (None, {"encoding": "nonsense"}),
    ],
)
def test_broken_geoparquet(tmp_path: Path, geometry: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(FileContentInvalid, match=r"a\.parquet"):
        read("Parquet", geoparquet(tmp_path / "a.parquet", geometry, **changes))


def test_rows_that_need_no_memory(tmp_path: Path) -> None:
    """60 million equal rows fit into some hundred kilobytes."""
    path = tmp_path / "a.parquet"
    block = pa.table({"geometry": pa.array([None] * 6_000_000, pa.binary())})
    with pq.ParquetWriter(path, block.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(block)
    assert path.stat().st_size < 2**20
    with pytest.raises(FileContentInvalid, match="60000000 rows"):
        read("Parquet", path)


@pytest.mark.parametrize(
    "text",
    [
        "geometry\nPOLYGON ((0 0, 1\n",
        "geometry\nPOINT (a b)\n",
        "geometry\nnonsense\n",
        "geometry\n\n1\n",
        "geometry,geometry\nPOINT (1 1),POINT (2 2)\n",
        "lon,lat\na,b\n",
        "lon,lat\n1\n",
        'lon,lat\n"1,2\n',
        "\n",
        "",
        "\0",
        "lon,lat\n1,2,3,4\n",
    ],
)
def test_broken_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    refusal = refusal_of("CSV", tmp_path / "a.csv")
    assert refusal is None or "a.csv" in refusal


def test_rows_without_a_geometry(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"v": [1, 2]}, geometry=[shapely.Point(1, 2), None], crs=4326)
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(FileContentInvalid, match="row 2 has no geometry"):
        read("Parquet", tmp_path / "a.parquet")


def test_other_formats_in_disguise(tmp_path: Path) -> None:
    """Each reader opens its own format only."""
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    contents = [buffer.getvalue(), b"PK\x03\x04", b"<html>", b"\x89PNG\r\n\x1a\n", b"SQLite format 3\0", b""]
    for format_ in ("GTiff", "netCDF", "GeoJSON", "Parquet"):
        for content in contents:
            (tmp_path / "a").write_bytes(content)
            with pytest.raises(FileContentInvalid):
                read(format_, tmp_path / "a")
