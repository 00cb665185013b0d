"""Reference systems of users open no files: PROJ would shift coordinates by what any file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import h5py
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from odc_openeo.errors import FileContentInvalid, OpenEOError
from odc_openeo.formats.read import get_input_format
from odc_openeo.graph import evaluate
from odc_openeo.untrusted.reference_systems import CrsRefusedError, check_crs, parse_crs

SECRET = 42.0


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A raster of somebody else, which PROJ takes for a grid of shifts in seconds of arc."""
    path = tmp_path / "victim.tif"
    profile = {"driver": "GTiff", "width": 20, "height": 20, "count": 2, "dtype": "float32"}
    with rasterio.open(path, "w", crs="EPSG:4326", transform=from_origin(0, 20, 1, 1), **profile) as file:
        file.write(np.full((2, 20, 20), SECRET * 3600, "float32"))
    return path


def definitions(victim: Path) -> dict[str, Any]:
    grid = f"+proj=longlat +ellps=WGS84 +nadgrids={victim} +no_defs +type=crs"
    bound = pyproj.CRS.from_user_input(grid)
    utm = pyproj.CRS.from_user_input(f"+proj=utm +zone=32 +nadgrids={victim} +type=crs")
    wkt1 = bound.to_wkt("WKT1_GDAL")
    return {
        "PROJ string": grid,
        "PROJ string without plus": grid.replace("+", ""),
        "with spaces": grid.replace("nadgrids=", "nadgrids = "),
        "optional grid": grid.replace("nadgrids=", "nadgrids=@"),
        "list of grids": grid.replace("nadgrids=", "nadgrids=@null,"),
        "upper case": grid.replace("nadgrids", "NADGRIDS"),
        "projected": f"+proj=utm +zone=32 +nadgrids={victim} +type=crs",
        "heights": f"+proj=longlat +datum=WGS84 +geoidgrids={victim} +vunits=m +type=crs",
        "WKT2": bound.to_wkt(),
        "WKT2 projected": utm.to_wkt(),
        "WKT1 with an extension": wkt1,
        "PROJJSON": bound.to_json(),
        "PROJJSON object": bound.to_json_dict(),
        "init": f"+init={victim}:x",
        "init without plus": f"init={victim}:x +type=crs",
        "init of a device": "+init=/dev/zero:x",
        "init of an address": "+init=http://127.0.0.1:1/x:y",
        "too long": "PROJCS[" + "x" * 60_000,
    }


KINDS = list(definitions(Path("/nowhere/victim.tif")))
SOUND = [4326, "EPSG:4326", "epsg:3857", 32632, "EPSG:27700", "EPSG:31467", "OGC:CRS84", "ESRI:54009"]


@pytest.mark.parametrize("kind", KINDS)
def test_definitions_that_name_files(victim: Path, kind: str) -> None:
    with pytest.raises(CrsRefusedError):
        parse_crs(definitions(victim)[kind])


@pytest.mark.parametrize("kind", ["PROJ string", "WKT2", "PROJJSON", "projected", "heights"])
def test_parsed_systems_that_name_files(victim: Path, kind: str) -> None:
    """As libraries hand them over that have read them from a file."""
    with pytest.raises(CrsRefusedError):
        check_crs(pyproj.CRS.from_user_input(definitions(victim)[kind]))


@pytest.mark.parametrize("code", SOUND)
def test_systems_in_use(code: Any) -> None:
    crs = pyproj.CRS.from_user_input(code)
    assert parse_crs(code) == crs
    for version in ("WKT2_2019", "WKT1_GDAL"):
        try:
            text = crs.to_wkt(version)
        except pyproj.exceptions.CRSError:
            continue
        assert parse_crs(text).equals(pyproj.CRS.from_user_input(text))
    assert parse_crs(crs.to_json()) == crs
    assert parse_crs(crs.to_json_dict()) == crs


@pytest.mark.filterwarnings("ignore:'.init=:FutureWarning")
def test_legacy_ways_to_write_a_code() -> None:
    assert parse_crs("+init=epsg:32632 +type=crs").to_epsg() == 32632
    shifted = "+proj=tmerc +lat_0=0 +lon_0=9 +ellps=bessel +towgs84=598,73,418,0.2,0.04,-2.4,6.7 +type=crs"
    assert parse_crs(shifted) == pyproj.CRS.from_user_input(shifted)


def point(crs: Any = None) -> dict[str, Any]:
    geometry = {"type": "Point", "coordinates": [5.0, 10.0]}
    declared = {} if crs is None else {"crs": {"type": "name", "properties": {"name": crs}}}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    return {"type": "FeatureCollection", "features": [feature], **declared}


def nodes(**graph: Any) -> dict[str, Any]:
    last = list(graph)[-1]
    return {"process_graph": {**graph, last: {**graph[last], "result": True}}}


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_geojson(victim: Path, kind: str) -> None:
    crs = definitions(victim)[kind]
    load = {"process_id": "load_geojson", "arguments": {"data": point()}}
    reproject = {
        "process_id": "vector_reproject",
        "arguments": {"data": {"from_node": "load"}, "projection": crs},
    }
    with pytest.raises(OpenEOError) as caught:
        evaluate(nodes(load=load, reproject=reproject))
    assert caught.value.status == 400
    declared = {"process_id": "load_geojson", "arguments": {"data": point(crs)}}
    with pytest.raises(OpenEOError) as caught:
        evaluate(nodes(load=declared))
    assert caught.value.status == 400


def test_geoparquet(victim: Path, tmp_path: Path) -> None:
    crs = pyproj.CRS.from_user_input(definitions(victim)["PROJ string"])
    frame = geopandas.GeoDataFrame({"v": [1]}, geometry=[shapely.Point(5, 10)], crs=crs)
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(FileContentInvalid):
        get_input_format("Parquet").read([tmp_path / "a.parquet"])


def test_geojson_files(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps(point(definitions(victim)["PROJ string"])))
    with pytest.raises(FileContentInvalid):
        get_input_format("GeoJSON").read([tmp_path / "a.geojson"])


@pytest.mark.parametrize("kind", ["WKT2", "WKT1 with an extension", "PROJ string", "init"])
@pytest.mark.parametrize("attribute", ["crs_wkt", "spatial_ref", "proj4"])
def test_netcdf(victim: Path, tmp_path: Path, attribute: str, kind: str) -> None:
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        for name in ("y", "x"):
            axis = file.create_dataset(name, data=np.arange(3.0))
            axis.make_scale(name)
            axis.attrs["standard_name"] = f"projection_{name}_coordinate"
        values = file.create_dataset("v", data=np.ones((3, 3)))
        values.dims[0].attach_scale(file["y"])
        values.dims[1].attach_scale(file["x"])
        values.attrs["grid_mapping"] = "crs"
        mapping = file.create_dataset("crs", data=0)
        mapping.attrs[attribute] = definitions(victim)[kind]
    with pytest.raises(FileContentInvalid):
        get_input_format("netCDF").read([path])


@pytest.mark.parametrize("kind", ["WKT2", "WKT1 with an extension", "projected"])
def test_geotiff(victim: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    crs = definitions(victim)[kind]
    with rasterio.open(path, "w", crs=crs, transform=from_origin(5, 10, 1, 1), **profile) as file:
        file.write(np.ones((1, 4, 4), "uint8"))
    with rasterio.open(path) as file:
        names_a_file = "victim" in file.crs.to_wkt()
    try:
        get_input_format("GTiff").read([path])
    except FileContentInvalid:
        return
    # GeoTIFF does not keep all of such a definition.
    assert not names_a_file
