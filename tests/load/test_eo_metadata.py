"""Datasets of the older metadata type `eo`: loaded if their documents have a grid, else explained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import Transformer

import odc_openeo.processes  # noqa: F401  (registers the processes that graphs use)
from odc_openeo.catalog import Catalog, ItemQuery, parse_bbox, parse_filter
from odc_openeo.catalog.eo_documents import as_eo3
from odc_openeo.errors import FeatureUnsupported
from tests.catalog.scenes import FINE, Index, pixels, write
from tests.load.test_load_collection import load
from tests.support.index_drivers import get_test_driver

pytestmark = pytest.mark.skipif(
    get_test_driver() == "postgis", reason="Open Data Cube's postgis driver has only EO3 datasets"
)

ID = "9b5c8d1c-6f0c-4b8a-9f62-7f5a3f8c0a11"
BOX = {"west": 600100, "south": 5199600, "east": 600200, "north": 5199700, "crs": 32632}
MEASUREMENT = {"name": "B04", "dtype": "uint16", "nodata": 0, "units": "1"}
INFO = {"geotransform": [600000, 10, 0, 5200000, 0, -10], "width": 80, "height": 60}


def make_product(**more: Any) -> dict[str, Any]:
    return {
        "name": "older",
        "description": "Scenes of the last decade.",
        "metadata_type": "eo",
        "metadata": {"product_type": "older"},
        "measurements": [MEASUREMENT],
        **more,
    }


def make_document(path: Path, **band: Any) -> dict[str, Any]:
    """Write a file; the document of the scene as it was written before EO3."""
    write(path, {"B04": (FINE, pixels(FINE, 1))})
    west, north = FINE.left, FINE.top
    east, south = west + FINE.shape[1] * FINE.size, north - FINE.shape[0] * FINE.size
    corners = {"ul": (west, north), "ur": (east, north), "lr": (east, south), "ll": (west, south)}
    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    lon_lat = {name: to_degrees.transform(*corner) for name, corner in corners.items()}
    return {
        "id": ID,
        "location": (path / "agdc-metadata.yaml").as_uri(),
        "product_type": "older",
        "creation_dt": "2017-01-02T00:00:00",
        "platform": {"code": "LANDSAT_8"},
        "instrument": {"name": "OLI"},
        "format": {"name": "GeoTiff"},
        "extent": {
            "from_dt": "2016-05-01T10:00:00",
            "to_dt": "2016-05-01T10:00:20",
            "center_dt": "2016-05-01T10:00:10",
            "coord": {name: {"lat": lat, "lon": lon} for name, (lon, lat) in lon_lat.items()},
        },
        "grid_spatial": {
            "projection": {
                "spatial_reference": "EPSG:32632",
                "geo_ref_points": {name: {"x": x, "y": y} for name, (x, y) in corners.items()},
            }
        },
        "image": {"bands": {"B04": {"path": "B04.tif", **band}}},
        "lineage": {"source_datasets": {}},
    }


def index_document(index: Index, product: Mapping[str, Any], document: dict[str, Any]) -> None:
    index.add_product(product)
    index.add(document)


def load_older(catalog: Catalog, **more: Any) -> np.ndarray:
    data = load(catalog, BOX, ["2016-05-01", "2016-05-02"], id="older", **more)
    assert [str(t)[:19] for t in data.t.values] == ["2016-05-01T10:00:10"]
    return np.asarray(data.squeeze(("t", "bands")).values)


STORAGE = {"crs": "EPSG:32632", "resolution": {"x": 10, "y": -10}}


@pytest.mark.parametrize(
    ("product", "band"),
    [
        (make_product(), {"info": INFO}),
        (make_product(storage=STORAGE), {}),
        (make_product(load={"crs": "EPSG:32632", "resolution": {"x": 10, "y": -10}}), {}),
        (make_product(), {"cell_size": 10.0}),
    ],
    ids=["info", "storage", "load", "cell size"],
)
def test_scenes_with_a_grid_are_loaded(
    catalog: Catalog, index: Index, tmp_path: Path, product: dict[str, Any], band: dict[str, Any]
) -> None:
    index_document(index, product, make_document(tmp_path, **band))
    np.testing.assert_array_equal(load_older(catalog), pixels(FINE, 1)[30:40, 10:20])
    collection = catalog.get_collection("older")
    assert collection["description"] == "Scenes of the last decade."
    assert collection["cube:dimensions"]["x"]["extent"] == [600000, 600800]
    assert collection["cube:dimensions"]["x"]["step"] == 10
    assert collection["summaries"]["platform"] == ["LANDSAT_8"]
    assert collection["summaries"]["instruments"] == ["OLI"]
    assert catalog.count_by_month("older") == {"2016-05": 1}


def test_scenes_are_items(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    index_document(index, make_product(), make_document(tmp_path, info=INFO))

    def find(**query: Any) -> list[dict[str, Any]]:
        page = catalog.search_items(ItemQuery(limit=10, collections=("older",), **query), "", lambda *_: None)
        json.dumps(page.items, allow_nan=False)
        return list(page.items)

    (item,) = find(area=parse_bbox([10.3, 46.9, 10.4, 47]))
    assert item["properties"]["datetime"] == "2016-05-01T10:00:10Z"
    assert item["properties"]["platform"] == "LANDSAT_8"
    assert item["properties"]["proj:shape"] == [60, 80]
    assert shapely.geometry.shape(item["geometry"]).is_valid
    assert find(area=parse_bbox([20, 46.9, 21, 47])) == []
    assert len(find(filter=parse_filter("platform = 'LANDSAT_8'", "cql2-text"))) == 1
    assert find(filter=parse_filter("platform = 'LANDSAT_7'", "cql2-text")) == []
    condition = {
        "process_id": "eq",
        "arguments": {"x": {"from_parameter": "value"}, "y": "LANDSAT_8"},
        "result": True,
    }
    assert load_older(catalog, properties={"eo:platform": {"process_graph": {"c": condition}}}).size == 100


def test_scenes_without_a_grid_are_explained(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    index_document(index, make_product(), make_document(tmp_path))
    collection = catalog.get_collection("older")
    assert collection["description"] == (
        "Scenes of the last decade.\n\nThe datasets of this collection have no EO3 metadata with a pixel "
        "grid: they can be searched, but not loaded."
    )
    with pytest.raises(FeatureUnsupported) as error:
        load_older(catalog)
    assert str(error.value) == (
        f"This back-end does not support datasets without a pixel grid: {ID} of collection 'older' has no "
        "EO3 metadata with 'crs' and 'grids'. Operators: index it anew with EO3 documents, in a product of "
        "type eo3."
    )
    page = catalog.search_items(ItemQuery(limit=10, collections=("older",)), "", lambda *_: None)
    assert [item["id"] for item in page.items] == [ID]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["grid_spatial"]["projection"].pop("spatial_reference"),
        lambda d: d["grid_spatial"]["projection"]["geo_ref_points"].pop("ul"),
        lambda d: d["grid_spatial"]["projection"]["geo_ref_points"]["ul"].update(x=float("nan")),
        lambda d: d["grid_spatial"]["projection"]["geo_ref_points"]["ul"].update(x=600003),
        lambda d: d["grid_spatial"].update(projection=None),
        lambda d: d["image"].update(bands=[{"path": "B04.tif"}]),
        lambda d: d["image"]["bands"].update(B04="B04.tif"),
        lambda d: d["image"]["bands"]["B04"].update(cell_size="10 m"),
        lambda d: d["image"]["bands"]["B04"].update(cell_size=7),
        lambda d: d["image"]["bands"]["B04"].update(cell_size=0),
        lambda d: d.update(image=None),
        lambda d: d.update(extent=7),
        lambda d: d["extent"].update(center_dt=None, from_dt="yesterday"),
    ],
)
def test_damaged_documents_have_no_grid_and_break_nothing(tmp_path: Path, change: Any) -> None:
    document = make_document(tmp_path, cell_size=10)
    assert as_eo3(document, make_product())["grids"]["default"]["shape"] == [60, 80]
    damaged = deepcopy(document)
    change(damaged)
    converted = as_eo3(damaged, make_product())
    if "extent" in str(change.__code__.co_consts):
        assert "grids" in converted
    else:
        assert "grids" not in converted


def test_eo3_documents_stay_as_they_are(tmp_path: Path) -> None:
    document = write(tmp_path, {"B04": (FINE, pixels(FINE, 1))})
    assert as_eo3(document, {}) is document
