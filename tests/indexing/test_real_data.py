"""The real scenes beside the project, indexed with definitions of ours and read back through the index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import odc.stac
import pytest
import rasterio
from datacube import Datacube
from datacube.index import Index
from datacube.metadata import ds2stac

from odc_openeo.indexing.index import index_datasets, index_products
from tests.indexing.real_data import DATA, FIELD, FIELD_SCENES, LANDSAT, products, write_documents

pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason="the real scenes are not beside the project"),
]


@pytest.fixture(scope="module")
def real_index(index_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index_products(products(), index_environ)
    documents: dict[str, list[Path]] = write_documents(tmp_path_factory.mktemp("documents"))
    index_datasets([path for paths in documents.values() for path in paths], index_environ)
    raw = {"default": {"db_url": index_environ["ODC_DEFAULT_DB_URL"], "index_driver": "postgres"}}
    with Datacube(raw_config=raw) as cube:
        yield cube.index


def test_all_scenes_are_found(real_index: Index) -> None:
    assert real_index.datasets.count(product=LANDSAT) == 19
    assert real_index.datasets.count(product=FIELD) == 33
    assert real_index.datasets.count(product=LANDSAT, region_code="014032") == 6


def test_panchromatic_band_has_its_own_grid(real_index: Index) -> None:
    dataset = next(iter(real_index.datasets.search(product=LANDSAT, limit=1)))
    grid = dataset.metadata_doc["measurements"]["B8"]["grid"]
    fine, coarse = dataset.metadata_doc["grids"][grid], dataset.metadata_doc["grids"]["default"]
    assert fine["transform"][0] < coarse["transform"][0] / 1.9


def test_pixels_come_back(real_index: Index) -> None:
    dataset = min(real_index.datasets.search(product=FIELD), key=lambda dataset: dataset.center_time)
    loaded = odc.stac.load([ds2stac(dataset)], bands=["B08", "SCL"], chunks=None)
    for band in ("B08", "SCL"):
        with rasterio.open(FIELD_SCENES / f"2019-01-27_{band}.tif") as source:
            np.testing.assert_array_equal(loaded[band].values[0], source.read(1))
