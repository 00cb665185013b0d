"""Products as STAC Collections."""

from __future__ import annotations

import os
from pathlib import Path

import pystac
import pytest
from pystac.validation import validate_dict

from odc_openeo.catalog import Catalog, OverridesError
from odc_openeo.catalog.stac_documents import name_in_words
from odc_openeo.config import Config
from odc_openeo.errors import CollectionNotFound
from tests.catalog.scenes import PRODUCT, Index, product, scene

BASE = "https://example.org/openeo/1.3"


def test_collection_describes_product_and_datasets(catalog: Catalog, index: Index, tmp_path: Path):
    index.add(
        scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z", eo__platform="sentinel-2a", eo__cloud_cover=10.5),
        scene(tmp_path / "b", 2, "2022-06-05T10:00:00.250Z", 600400, eo__platform="sentinel-2b"),
    )
    collection = catalog.get_collection("tiny_s2", BASE)
    assert f"{collection['title']}." == collection["description"] == "Tiny scenes like those of Sentinel-2."
    assert collection["description"] == PRODUCT["description"]
    assert collection["license"] == "CC-BY-4.0"
    assert "providers" not in collection
    assert collection["cube:dimensions"] == {
        "x": {
            "type": "spatial",
            "axis": "x",
            "extent": [600000.0, 601200.0],
            "reference_system": 32632,
            "step": 10.0,
        },
        "y": {
            "type": "spatial",
            "axis": "y",
            "extent": [5199400.0, 5200000.0],
            "reference_system": 32632,
            "step": 10.0,
        },
        "t": {"type": "temporal", "extent": ["2022-06-01T10:00:00Z", "2022-06-05T10:00:00.250Z"]},
        "bands": {"type": "bands", "values": ["B04", "B08", "B11", "SCL"]},
    }
    assert collection["extent"]["temporal"]["interval"] == [
        ["2022-06-01T10:00:00Z", "2022-06-05T10:00:00.250Z"]
    ]
    west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
    assert (west, south, east, north) == pytest.approx((10.3119, 46.9385, 10.3278, 46.9441), abs=2e-3)
    summaries = collection["summaries"]
    assert summaries["platform"] == ["sentinel-2a", "sentinel-2b"]
    assert summaries["instruments"] == ["MSI"]
    assert summaries["gsd"] == [10.0, 20.0]
    assert summaries["proj:code"] == ["EPSG:32632"]
    assert summaries["bands"][0] == {
        "name": "B04",
        "data_type": "uint16",
        "nodata": 0,
        "gsd": 10.0,
        "eo:common_name": "red",
        "eo:center_wavelength": 0.665,
        "eo:full_width_half_max": 0.032,
        "raster:scale": 0.0001,
        "raster:offset": -0.1,
        "aliases": ["red"],
    }
    assert summaries["eo:bands"][1] == {
        "name": "B08",
        "common_name": "nir",
        "gsd": 10.0,
        "aliases": ["nir", "infrared"],
    }


def test_collection_is_valid_stac(catalog: Catalog, index: Index, tmp_path: Path):
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    for collection in catalog.list_collections(BASE):
        assert validate_dict({**collection, "stac_extensions": []})
        read = pystac.Collection.from_dict(collection)
        assert read.get_self_href() == f"{BASE}/collections/tiny_s2"


def test_empty_product_is_valid_and_open(catalog: Catalog):
    collection = catalog.get_collection("tiny_s2", BASE)
    assert validate_dict({**collection, "stac_extensions": []})
    assert collection["extent"]["temporal"]["interval"] == [[None, None]]
    assert collection["extent"]["spatial"]["bbox"] == [[-180.0, -90.0, 180.0, 90.0]]
    assert "platform" not in collection["summaries"]


def test_unknown_collection_is_not_found(catalog: Catalog):
    with pytest.raises(CollectionNotFound, match="'nowhere'"):
        catalog.get_collection("nowhere")


def test_queryables_have_search_fields_and_dataset_properties(catalog: Catalog, index: Index, tmp_path: Path):
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z", eo__platform="s2a", sat__orbit=22))
    queryables = catalog.get_queryables("tiny_s2", BASE)
    assert queryables["$id"] == f"{BASE}/collections/tiny_s2/queryables"
    assert queryables["properties"]["eo:cloud_cover"]["type"] == "number"
    assert queryables["properties"]["sat:orbit"] == {"type": "number"}
    assert queryables["properties"]["platform"]["enum"] == ["s2a"]
    assert {"time", "lon", "lat"}.isdisjoint(queryables["properties"])


def test_operator_overrides_replace_collection_members(odc_config: Config, index: Index, tmp_path: Path):
    file = tmp_path / "overrides.yaml"
    file.write_text(
        "tiny_s2:\n  title: Tiny\n  license: CC0-1.0\n  keywords: [small]\n"
        "  providers: [{name: Us, roles: [host]}]\n  bands: {B11: {common_name: swir22}}\n"
    )
    catalog = Catalog(odc_config.model_copy(update={"collection_overrides": file}))
    collection = catalog.get_collection("tiny_s2", BASE)
    assert (collection["title"], collection["license"], collection["keywords"]) == (
        "Tiny",
        "CC0-1.0",
        ["small"],
    )
    assert collection["providers"] == [{"name": "Us", "roles": ["host"]}]
    assert collection["summaries"]["bands"][2]["eo:common_name"] == "swir22"
    assert collection["description"] == PRODUCT["description"]

    file.write_text("tiny_s2: {hidden: true}\n")
    os.utime(file, ns=(1, 1))
    assert catalog.list_collections(BASE) == []
    with pytest.raises(CollectionNotFound):
        catalog.get_collection("tiny_s2")

    file.write_text("tiny_s2: {tilte: Tiny}\n")
    os.utime(file, ns=(2, 2))
    with pytest.raises(OverridesError, match="tilte"):
        catalog.list_collections(BASE)
    catalog.close()


def test_products_show_at_once(catalog: Catalog, index: Index):
    assert [c["id"] for c in catalog.list_collections()] == ["tiny_s2"]
    index.add_product(product("another"))
    assert [c["id"] for c in catalog.list_collections()] == ["another", "tiny_s2"]
    index.update_product(product("another", description="Changed"))
    assert catalog.get_collection("another")["description"] == "Changed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s2_l2a_sample", "S2 L2A sample"),
        ("dem_sample", "DEM sample"),
        ("LANDSAT-8.c2", "LANDSAT 8 C2"),
        ("__", "__"),
        ("ündü_x", "Ündü X"),
    ],
)
def test_a_name_in_words(name: str, words: str) -> None:
    assert name_in_words(name) == words
