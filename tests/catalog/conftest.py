"""An index to fill, and the catalogue that reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from tests.catalog.scenes import PRODUCT, Index


@pytest.fixture
def index(odc_database: str) -> Iterator[Index]:
    """An index with the tiny product and no dataset."""
    new_index = Index()
    new_index.add_product(PRODUCT)
    yield new_index
    new_index.datacube.close()


@pytest.fixture
def catalog(odc_config: Config, index: Index) -> Iterator[Catalog]:
    """The catalogue of that index."""
    new_catalog = Catalog(odc_config)
    yield new_catalog
    new_catalog.close()
