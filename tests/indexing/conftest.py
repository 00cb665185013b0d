"""The sample scenes, and an ODC index that holds them, for the tests of indexing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from datacube import Datacube
from datacube.index import Index

from odc_openeo.indexing.index import index_samples
from odc_openeo.indexing.samples import SampleSet, find_samples
from odc_openeo.stack import postgres
from tests.support.index_drivers import get_test_driver, index_environment, init_test_index


@pytest.fixture(scope="session")
def sample_sets(samples: Path) -> dict[str, SampleSet]:
    """The sample scenes by product."""
    return {sample_set.product: sample_set for sample_set in find_samples(samples)}


@pytest.fixture(scope="session")
def index_environ(postgres_server: postgres.Postgres) -> dict[str, str]:
    """The environment that names a fresh, empty ODC index, shared by the tests here."""
    url = postgres_server.create_database("indexing")
    environ = {**os.environ, **index_environment(url)}
    init_test_index(url)
    return environ


@pytest.fixture(scope="session")
def sample_environ(index_environ: dict[str, str], samples: Path) -> dict[str, str]:
    """The environment that names an index of the sample scenes."""
    index_samples(samples, index_environ)
    return index_environ


@pytest.fixture(scope="session")
def index(sample_environ: dict[str, str]) -> Iterator[Index]:
    """An index of the sample scenes."""
    raw = {"default": {"db_url": sample_environ["ODC_DEFAULT_DB_URL"], "index_driver": get_test_driver()}}
    with Datacube(raw_config=raw) as cube:
        yield cube.index
