"""STAC Items into the index: the same dataset, the same files, and clear refusals."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from datacube.index import Index
from datacube.metadata import ds2stac

from odc_openeo.indexing.index import IndexingError
from odc_openeo.indexing.samples import LANDSAT_PRODUCT, S2_PRODUCT
from odc_openeo.indexing.stac import index_stac

Item = dict[str, Any]


@pytest.fixture
def item(index: Index) -> Item:
    """A STAC Item, under a new id, of one Sentinel-2-like scene, its assets named by common names."""
    dataset = next(iter(index.datasets.search(product=S2_PRODUCT, region_code="32TPS", limit=1)))
    document = ds2stac(dataset).to_dict()
    document["id"] = "item-of-" + str(dataset.id)
    document["properties"]["datetime"] = "2023-06-01T10:10:31Z"
    aliases = {"B02": "blue", "B04": "red", "B08": "nir"}
    document["assets"] = {aliases.get(name, name): asset for name, asset in document["assets"].items()}
    return document


def write(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def test_item_becomes_dataset(index: Index, item: Item, tmp_path: Path) -> None:
    path = write(tmp_path, "item.json", item)
    (added,) = index_stac([path], index=index).added
    try:
        dataset = index.datasets.get_unsafe(added)
        assert dataset.product.name == S2_PRODUCT
        assert set(dataset.measurements) == set(dataset.product.measurements)
        original = index.datasets.get_unsafe(uuid.UUID(item["id"].removeprefix("item-of-")))
        assert dataset.crs == original.crs
        assert sorted(str(g["shape"]) for g in dataset.metadata_doc["grids"].values()) == [
            "[320, 320]",
            "[640, 640]",
        ]
        assert dataset.measurements["B08"]["path"].endswith("B08.tif")
        assert dataset.metadata_doc["properties"]["eo:cloud_cover"] == item["properties"]["eo:cloud_cover"]
        assert index_stac([path], index=index).unchanged == [added]
        item["properties"]["eo:cloud_cover"] = 1.5
        write(tmp_path, "item.json", item)
        assert index_stac([tmp_path], index=index).updated == [added]
        assert index.datasets.get_unsafe(added).metadata_doc["properties"]["eo:cloud_cover"] == 1.5
    finally:
        index.datasets.archive([added])
        index.datasets.purge([added])


def test_item_collection_into_named_product(index: Index, item: Item, tmp_path: Path) -> None:
    item["collection"] = "elsewhere"
    path = write(tmp_path, "items.json", {"type": "FeatureCollection", "features": [item]})
    (added,) = index_stac([path], product=S2_PRODUCT, index=index).added
    index.datasets.archive([added])
    index.datasets.purge([added])


def test_refusals_name_the_item(index: Index, item: Item, tmp_path: Path) -> None:
    path = write(tmp_path, "item.json", item)
    with pytest.raises(IndexingError, match="no product 'missing'"):
        index_stac([path], product="missing", index=index)
    with pytest.raises(IndexingError, match="no asset for .*qa_pixel"):
        index_stac([path], product=LANDSAT_PRODUCT, index=index)
    del item["assets"]["SCL"]
    with pytest.raises(IndexingError, match=r"item-of-.* no asset for SCL"):
        index_stac([write(tmp_path, "item.json", item)], index=index)
    with pytest.raises(IndexingError, match="neither a STAC Item"):
        index_stac([write(tmp_path, "other.json", {"type": "Catalog"})], index=index)
    with pytest.raises(IndexingError, match="not a readable JSON file"):
        index_stac([tmp_path / "absent.json"], index=index)
