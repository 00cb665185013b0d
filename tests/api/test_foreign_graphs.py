"""Graphs made for other back-ends: by names of collections and bands, and by options of formats."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openeo
import pytest
import rasterio
import xarray as xr
from flask import Flask
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.catalog import OverridesError
from odc_openeo.config import Config
from odc_openeo.storage.scratch_folders import FOLDER
from tests.api.conftest import API, PASSWORD, code
from tests.catalog.scenes import PRODUCT, Index, scene
from tests.support.http_service import serve_application

BOX = {"west": 600100, "south": 5199600, "east": 600200, "north": 5199700, "crs": 32632}
JUNE = ["2022-06-01", "2022-07-01"]
OVERRIDES = """
tiny_s2:
  aliases: [SENTINEL2_L2A, COPERNICUS/S2]
  bands:
    B04: {aliases: [B04_10m, "reflectance|b04"]}
    B08: {aliases: [TOC-B08_10M]}
"""


@pytest.fixture
def app(odc_config: Config, tmp_path: Path) -> Iterator[Flask]:
    """The application with aliases and two scenes."""
    index = Index()
    index.add_product(PRODUCT)
    for number, day in enumerate(("01", "06"), 1):
        index.add(scene(tmp_path / day, number, f"2022-06-{day}T10:00:00Z"))
    file = tmp_path / "overrides.yaml"
    file.write_text(OVERRIDES)
    yield create_app(odc_config.model_copy(update={"collection_overrides": file}))
    index.datacube.close()


@pytest.fixture
def connection(app: Flask, token: str) -> Iterator[openeo.Connection]:
    """The Python client, signed in to the application."""
    with serve_application(app) as url:
        yield openeo.connect(f"{url}{API}").authenticate_basic("ada", PASSWORD)


def pixels(folder: Path, band: str) -> np.ndarray:
    """The pixels of a band in the box, straight from its file."""
    with rasterio.open(folder / f"{band}.tif") as file:
        edges = (BOX["west"], BOX["south"], BOX["east"], BOX["north"])
        return file.read(1, window=rasterio.windows.from_bounds(*edges, file.transform)).astype(float)


def save(client: FlaskClient, bearer: dict[str, str], format_: str, bands: list[str], **options: Any) -> Any:
    graph = {
        "load": {
            "process_id": "load_collection",
            "arguments": {
                "id": "SENTINEL2_L2A",
                "spatial_extent": BOX,
                "temporal_extent": JUNE,
                "bands": bands,
            },
        },
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "load"}, "format": format_, "options": options},
            "result": True,
        },
    }
    return client.post(f"{API}/result", json={"process": {"process_graph": graph}}, headers=bearer)


def test_the_python_client_runs_a_graph_of_aliases(connection: openeo.Connection, tmp_path: Path) -> None:
    cube = connection.load_collection("SENTINEL2_L2A", BOX, JUNE, bands=["TOC-B08_10M", "B04_10m"])
    nir, red = cube.band("TOC-B08_10M"), cube.band("B04_10m")
    ((nir - red) / (nir + red)).max_time().download(tmp_path / "ndvi.nc")
    values = []
    for day in ("01", "06"):
        b08, b04 = pixels(tmp_path / day, "B08"), pixels(tmp_path / day, "B04")
        values.append((b08 - b04) / (b08 + b04))
    with xr.open_dataset(tmp_path / "ndvi.nc") as dataset:
        np.testing.assert_allclose(dataset["var"].values, np.max(values, axis=0), rtol=1e-6)
    cube.filter_bands(["B04_10m"]).min_time().download(tmp_path / "red.tif")
    with rasterio.open(tmp_path / "red.tif") as file:
        lower = np.minimum(pixels(tmp_path / "01", "B04"), pixels(tmp_path / "06", "B04"))
        np.testing.assert_array_equal(file.read(1), lower)


def test_labels_of_a_raw_graph_are_those_asked_for(
    client: FlaskClient, bearer: dict[str, str], tmp_path: Path
) -> None:
    bands = ["reflectance|b04", "B04_10m", "SCL"]
    response = save(client, bearer, "GTiff", bands, layout="bands", filename_prefix="s2")
    assert response.status_code == 200
    assert response.headers["Content-Disposition"] == "attachment; filename=s2.tif"
    assert "Warning" not in response.headers
    with rasterio.MemoryFile(response.data) as memory, memory.open() as file:
        assert file.descriptions == tuple(f"{b} 2022-06-{day}" for day in ("01", "06") for b in bands)
        for number, folder in ((1, "01"), (2, "01"), (4, "06"), (5, "06")):
            np.testing.assert_array_equal(file.read(number), pixels(tmp_path / folder, "B04"))


def test_an_alias_answers_in_the_api(client: FlaskClient) -> None:
    assert [c["id"] for c in client.get(f"{API}/collections").get_json()["collections"]] == ["tiny_s2"]
    collection = client.get(f"{API}/collections/SENTINEL2_L2A").get_json()
    assert collection == client.get(f"{API}/collections/tiny_s2").get_json()
    assert "B04_10m" in collection["summaries"]["eo:bands"][0]["aliases"]
    items = client.get(f"{API}/collections/SENTINEL2_L2A/items").get_json()["features"]
    assert len(items) == 2
    item = client.get(f"{API}/collections/SENTINEL2_L2A/items/{items[0]['id']}").get_json()
    assert item["collection"] == "tiny_s2"
    assert client.get(f"{API}/collections/SENTINEL2_L2A/queryables").status_code == 200
    features = client.get(f"{API}/search?collections=SENTINEL2_L2A,tiny_s2").get_json()["features"]
    assert len(features) == 2
    body = {"collections": ["COPERNICUS/S2"], "limit": 1}
    page = client.post(f"{API}/search", json=body).get_json()
    assert len(page["features"]) == 1
    assert code(client.get(f"{API}/collections/SENTINEL2")) == "CollectionNotFound"


def test_an_archive_says_that_it_is_one_and_why(
    client: FlaskClient, bearer: dict[str, str], odc_config: Config
) -> None:
    for _ in range(2):  # the second time from the cache of results
        response = save(client, bearer, "GTiff", ["B04"], stitch=True, filename_prefix="a/b")
        assert response.mimetype == "application/zip"
        assert response.headers["Content-Disposition"] == "attachment; filename=a-b.zip"
        with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
            assert sorted(archive.namelist()) == ["a-b_2022-06-01.tif", "a-b_2022-06-06.tif"]
        warnings = response.headers.getlist("Warning")
        assert warnings[0].startswith(
            '299 - "The result is a ZIP archive: GTiff has a file for each of the 2'
        )
        assert "stitch" in warnings[1]
        assert "'a-b'" in warnings[2]
        assert all(text.isascii() and text.endswith('"') for text in warnings)
    assert "Warning" in response.headers["Access-Control-Expose-Headers"]


def test_warnings_cannot_break_the_response(client: FlaskClient, bearer: dict[str, str]) -> None:
    prefix = 'ä"\\\r\nSet-Cookie: a=b'
    response = save(client, bearer, "netCDF", ["B04"], filename_prefix=prefix)
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers
    assert "ä-Set-Cookie-a-b.nc" in response.headers["Content-Disposition"] or (
        "filename*=UTF-8''%C3%A4-Set-Cookie-a-b.nc" in response.headers["Content-Disposition"]
    )
    assert all("\n" not in value for value in response.headers.getlist("Warning"))


@pytest.mark.parametrize(
    ("format_", "options", "reason"),
    [
        ("GTiff", {"dtype": "uint8"}, "no option 'dtype'"),
        ("GTiff", {"colormap": {"1": "red"}, "sample_by_feature": 3}, "option 'sample_by_feature'"),
        ("PNG", {"datatype": "float32"}, "must be one of 'uint8' or 'uint16'"),
        ("GTiff", {"filename_prefix": "/"}, "option 'filename_prefix'"),
        ("GTiff", {"bands_metadata": {"B04": {"x": {}}}}, "option 'bands_metadata'"),
        ("GTiff", {"level": 10**15}, "option 'level'"),
    ],
)
def test_wrong_options_are_named(
    client: FlaskClient, bearer: dict[str, str], format_: str, options: dict[str, Any], reason: str
) -> None:
    response = save(client, bearer, format_, ["B04"], **options)
    assert (response.status_code, code(response)) == (400, "ProcessParameterInvalid")
    assert reason in response.get_json()["message"]


def test_a_wrong_file_of_overrides_prevents_the_start(odc_config: Config, tmp_path: Path) -> None:
    file = tmp_path / "overrides.yaml"
    file.write_text("a: {aliases: [x]}\nb: {aliases: [x]}")
    with pytest.raises(OverridesError, match="alias 'x' stands for several collections: a, b"):
        create_app(odc_config.model_copy(update={"collection_overrides": file}))


def test_options_are_published_with_titles(client: FlaskClient) -> None:
    for name, format_ in client.get(f"{API}/file_formats").get_json()["output"].items():
        for option, schema in format_["parameters"].items():
            assert {"title", "type", "description", "default"} <= set(schema), (name, option)
        json.dumps(format_, allow_nan=False)


@pytest.mark.parametrize("is_read", [True, False])
def test_nothing_is_left_of_an_archive(
    client: FlaskClient, bearer: dict[str, str], odc_config: Config, is_read: bool
) -> None:
    """Its files stay while it is sent, and are removed when it is sent or its client has gone."""
    response = save(client, bearer, "GTiff", ["B04"])
    scratch = odc_config.data_dir / FOLDER
    assert len(list(scratch.rglob("*.tif"))) == 2
    if is_read:
        assert len(response.data) == response.content_length
    response.close()
    assert list(scratch.iterdir()) == []
