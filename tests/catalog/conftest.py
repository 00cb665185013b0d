"""An index to fill, and the catalogue that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from odc_openeo import db
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.stack.postgres import Postgres
from tests.catalog.scenes import PRODUCT, Index
from tests.support.index_drivers import SCHEMAS, index_environment, init_test_index

SERVERS = {"postgres": "postgres_server", "postgis": "postgis_server"}


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


@dataclass(frozen=True)
class Site:
    """A database with our tables and an index of one driver, which is the default one."""

    driver: str
    url: str
    server: Postgres
    config: Config

    @property
    def schema(self) -> str:
        return SCHEMAS[self.driver]

    @property
    def database(self) -> str:
        return str(db.normalise_url(self.url).database)

    def run(self, *statements: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    """Names of databases to copy, by driver, as far as they are made."""
    return {}


def make_template(server: Postgres, driver: str) -> str:
    name = f"template_driver_{driver}"
    url = server.create_database(name)
    config = Config(database_url=SecretStr(url))
    migrate.upgrade(config)
    db.dispose_engine(config)
    init_test_index(url, driver)
    return name


@pytest.fixture(params=list(SERVERS))
def site(
    request: pytest.FixtureRequest,
    templates: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    driver = request.param
    server: Postgres = request.getfixturevalue(SERVERS[driver])
    if driver not in templates:
        templates[driver] = make_template(server, driver)
    name = f"driver_{uuid4().hex}"
    url = server.create_database(name, templates[driver])
    for variable, value in index_environment(url, driver).items():
        monkeypatch.setenv(variable, value)
    config = Config(database_url=SecretStr(url), data_dir=tmp_path / "data")
    yield Site(driver, url, server, config)
    db.dispose_engine(config)
    server.drop_database(name)
