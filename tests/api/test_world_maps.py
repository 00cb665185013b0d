"""Maps of the poles and of the world over HTTP: loaded in runners, and no danger to other collections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from flask.testing import FlaskClient

from tests.api.conftest import API
from tests.catalog.conftest import index  # noqa: F401  (a fixture)
from tests.catalog.scenes import Index, product, scene
from tests.catalog.test_places import make_box, write_map
from tests.support.netcdf import load_raw

Bearer = dict[str, str]


@pytest.fixture
def maps(index: Index, tmp_path: Path) -> Index:  # noqa: F811
    index.add_product(
        product("maps", measurements=[{"name": "v", "dtype": "uint16", "nodata": 0, "units": "1"}])
    )
    index.add(scene(tmp_path / "tiny", 1, "2022-06-01T10:00:00Z"))
    return index


def run(client: FlaskClient, bearer: Bearer, nodes: dict[str, Any], last: str) -> Any:
    save = {
        "process_id": "save_result",
        "arguments": {"data": {"from_node": last}, "format": "netCDF"},
        "result": True,
    }
    body = {"process": {"process_graph": {**nodes, "save": save}}}
    return client.post(f"{API}/result", json=body, headers=bearer)


def load(client: FlaskClient, bearer: Bearer, box: Any, id_: str = "maps") -> Any:
    arguments = {"id": id_, "spatial_extent": box, "temporal_extent": None}
    return run(client, bearer, {"load": {"process_id": "load_collection", "arguments": arguments}}, "load")


def read(response: Any, folder: Path) -> xr.DataArray:
    """The pixels of a netCDF response, of its only variable with places."""
    assert response.status_code == 200, response.text
    (folder / "result.nc").write_bytes(response.data)
    variables = load_raw(folder / "result.nc").data_vars.values()
    (pixels,) = [variable.squeeze() for variable in variables if variable.ndim > 1]
    return pixels


@pytest.mark.parametrize("name", ["south pole", "north pole", "disk", "web map"])
def test_other_collections_are_as_before(
    client: FlaskClient, bearer: Bearer, maps: Index, tmp_path: Path, name: str
) -> None:
    maps.add(write_map(tmp_path / "map", name))
    listed = client.get(f"{API}/collections").get_json()["collections"]
    assert {collection["id"] for collection in listed} == {"maps", "tiny_s2"}
    for id_ in ("maps", "tiny_s2"):
        for address in (f"/collections/{id_}", f"/collections/{id_}/items", f"/search?collections={id_}"):
            assert client.get(f"{API}{address}").status_code == 200, (id_, address)
        assert len(client.get(f"{API}/collections/{id_}/items").get_json()["features"]) == 1
    assert load(client, bearer, None, "tiny_s2").status_code == 200


@pytest.mark.parametrize(
    ("box", "columns"),
    [
        (make_box(-180, 0, -60, 60), 50),
        (make_box(-180, 180, -85, 85), 100),
        (make_box(-170, 170, -60, 60), 94),
    ],
)
def test_boxes_over_a_map_of_the_world(
    client: FlaskClient, bearer: Bearer, maps: Index, tmp_path: Path, box: Any, columns: int
) -> None:
    maps.add(write_map(tmp_path / "map", "web map"))
    assert read(load(client, bearer, box), tmp_path).sizes["x"] == columns


def test_longitudes_from_0_to_360(client: FlaskClient, bearer: Bearer, maps: Index, tmp_path: Path) -> None:
    maps.add(write_map(tmp_path / "map", "from 0 to 360"))
    with rasterio.open(tmp_path / "map" / "v.tif") as file:
        pixels = file.read(1)
    cube = read(load(client, bearer, make_box(-10, 30, 40, 50)), tmp_path)
    np.testing.assert_array_equal(cube.values, np.hstack([pixels[40:50, 350:], pixels[40:50, :30]]))
    published = client.get(f"{API}/collections/maps").get_json()["extent"]["spatial"]["bbox"][0]
    west, south, east, north = published
    whole = read(load(client, bearer, make_box(west, east, south, north)), tmp_path)
    assert whole.sizes["x"] == 360


@pytest.mark.parametrize("file", ["a.tif", "a.nc"])
def test_longitudes_of_an_uploaded_file(
    client: FlaskClient, bearer: Bearer, tmp_path: Path, file: str
) -> None:
    write_map(tmp_path, "from 0 to 360")
    with rasterio.open(tmp_path / "v.tif") as raster:
        pixels = raster.read(1)
    content = (tmp_path / "v.tif").read_bytes()
    if file.endswith(".nc"):
        lat, lon = np.arange(89.5, -90, -1), np.arange(0.5, 360)
        coords = {
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        }
        xr.Dataset({"v": (("lat", "lon"), pixels)}, coords).to_netcdf(tmp_path / "v.nc")
        content = (tmp_path / "v.nc").read_bytes()
    assert client.put(f"{API}/files/{file}", data=content, headers=bearer).status_code == 200
    format_ = "netCDF" if file.endswith(".nc") else "GTiff"
    nodes = {
        "load": {"process_id": "load_uploaded_files", "arguments": {"paths": [file], "format": format_}},
        "crop": {
            "process_id": "filter_bbox",
            "arguments": {"data": {"from_node": "load"}, "extent": make_box(-10, 30, 40, 50)},
        },
    }
    cube = read(run(client, bearer, nodes, "crop"), tmp_path)
    np.testing.assert_array_equal(cube.values, np.hstack([pixels[40:50, 350:], pixels[40:50, :30]]))
