"""The sample scenes in a real index: what the `datacube` command takes, and what a search then finds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from datacube.index import Index
from datacube.model import Range

from odc_openeo.indexing.index import (
    IndexingError,
    index_datasets,
    index_products,
    index_samples,
    run_datacube,
)
from odc_openeo.indexing.samples import (
    CLIMATE_PRODUCT,
    DEM_PRODUCT,
    LANDSAT_PRODUCT,
    PRODUCTS,
    S2_PRODUCT,
    SampleSet,
)
from tests.support.index_drivers import needs_postgres_driver


def test_every_sample_is_indexed(index: Index, sample_sets: dict[str, SampleSet]) -> None:
    counted = {product: index.datasets.count(product=product) for product in PRODUCTS}
    assert counted == {product: len(sample_sets[product].documents) for product in PRODUCTS}
    assert counted[DEM_PRODUCT] == 1


def test_indexing_again_changes_nothing(index: Index, sample_environ: dict[str, str], samples: Path) -> None:
    before = {product: index.products.most_recent_change(product) for product in PRODUCTS}
    index_samples(samples, sample_environ)
    assert {product: index.products.most_recent_change(product) for product in PRODUCTS} == before


def test_product_declares_bands(index: Index) -> None:
    product = index.products.get_by_name_unsafe(S2_PRODUCT)
    red = product.measurements["B04"]
    assert (red["dtype"], red["nodata"], red["scale_factor"], red["add_offset"]) == (
        "uint16",
        0,
        0.0001,
        -0.01,
    )
    assert product.canonical_measurement("nir") == "B08"
    assert product.measurements["SCL"]["flags_definition"]["scene_classification"]["values"]
    assert product.license == "CC0-1.0"


def test_search_by_time_and_place(index: Index) -> None:
    june = Range(datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 30, tzinfo=UTC))
    result = list(index.datasets.search(product=S2_PRODUCT, time=june))
    codes = sorted(dataset.metadata_doc["properties"]["odc:region_code"] for dataset in result)
    assert codes == ["32TPS"] * 5 + ["32TQS"] * 3 + ["33TTM"] * 2
    western = list(index.datasets.search(product=S2_PRODUCT, time=june, lon=Range(11.31, 11.32)))
    assert {dataset.metadata_doc["properties"]["odc:region_code"] for dataset in western} <= {"32TPS"}


@needs_postgres_driver("its own search by numbers is broken in 1.9.20")
def test_search_by_cloud_cover_and_platform(index: Index) -> None:
    clear = list(index.datasets.search(product=S2_PRODUCT, cloud_cover=Range(0, 10), platform="sentinel-2b"))
    assert clear
    for dataset in clear:
        properties = dataset.metadata_doc["properties"]
        assert properties["eo:cloud_cover"] <= 10
        assert properties["eo:platform"] == "sentinel-2b"


def test_landsat_and_climate_are_found(index: Index) -> None:
    assert index.datasets.count(product=LANDSAT_PRODUCT, region_code="192028") == 14
    day = Range(datetime(2022, 5, 1, tzinfo=UTC), datetime(2022, 5, 1, 23, tzinfo=UTC))
    assert index.datasets.count(product=CLIMATE_PRODUCT, time=day) == 1


def test_archive_restore_and_update(
    index: Index, sample_environ: dict[str, str], sample_sets: dict[str, SampleSet]
) -> None:
    path = sample_sets[LANDSAT_PRODUCT].documents[0]
    document = yaml.safe_load(path.read_text())
    run_datacube(["dataset", "archive", document["id"]], sample_environ)
    assert index.datasets.count(product=LANDSAT_PRODUCT) == 13
    run_datacube(["dataset", "restore", document["id"]], sample_environ)
    assert index.datasets.count(product=LANDSAT_PRODUCT) == 14
    original = path.read_text()
    document["properties"]["eo:cloud_cover"] = 99.0
    path.write_text(yaml.safe_dump(document))
    try:
        run_datacube(
            ["dataset", "update", "--allow-any", "properties.eo:cloud_cover", str(path)], sample_environ
        )
        assert index.datasets.get(document["id"]).metadata_doc["properties"]["eo:cloud_cover"] == 99
    finally:
        path.write_text(original)


def test_scenes_that_have_moved_get_their_new_place(
    index: Index, sample_environ: dict[str, str], sample_sets: dict[str, SampleSet], tmp_path: Path
) -> None:
    original = sample_sets[DEM_PRODUCT].documents[0]
    id_ = yaml.safe_load(original.read_text())["id"]
    moved = tmp_path / "moved" / original.name
    moved.parent.mkdir()
    moved.write_text(original.read_text())
    try:
        index_datasets([moved], sample_environ)
        assert index.datasets.get(id_).uris == [moved.as_uri()]
    finally:
        index.datasets.add_location(id_, original.as_uri())
        index.datasets.remove_location(id_, moved.as_uri())


def test_refusals_are_reported(sample_environ: dict[str, str], tmp_path: Path) -> None:
    orphan = tmp_path / "orphan.odc-metadata.yaml"
    orphan.write_text("id: 5f0f6b1c-9c4b-5d7e-8a56-0d6c0e0b3a99\nproduct: {name: nothing}\n")
    with pytest.raises(IndexingError, match="dataset add"):
        index_datasets([orphan], sample_environ)
    broken = tmp_path / "broken.odc-product.yaml"
    broken.write_text("name: broken\n")
    with pytest.raises(IndexingError, match="product add"):
        index_products([broken], sample_environ)
