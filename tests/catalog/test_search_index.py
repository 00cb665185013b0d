"""The database index that operators may add for searches (driver ``postgis``): the same is found."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from click.testing import CliRunner
from odc.geo.geom import box
from sqlalchemy import create_engine, text

from odc_openeo.catalog import Catalog, ItemQuery, parse_bbox, postgis_driver, search_index
from odc_openeo.catalog.index_check import find_index_warning
from odc_openeo.catalog.scene_search import Query
from odc_openeo.cli import cli
from tests.catalog.conftest import Site
from tests.catalog.scenes import COARSE, Grid, Index, document, product
from tests.catalog.test_drivers import name_user

NAMES = ("first", "second")
TIMES = (
    "2022-06-01T10:00:00Z",
    "2022-06-01T23:30:00-05:00",
    "2022-06-03 10:00:00.123456+00:00",
    "2022-08-01",
)
BANDS = {name: {"path": f"{name}.tif"} for name in ("B04", "B08", "B11", "SCL")}
LEFTS = (300_000, 600_000, 780_000)
ONLY_POSTGIS = pytest.mark.parametrize("site", ["postgis"], indirect=True)


@pytest.fixture
def catalog(site: Site, tmp_path: Path) -> Iterator[Catalog]:
    """Two products with scenes at each of some places and times; intervals, and a date line."""
    owner = Index()
    for name in NAMES:
        owner.add_product(product(name))
    for number, (name, left, time) in enumerate(itertools.product(NAMES, LEFTS, TIMES)):
        grid = Grid(
            left + 10 * number, COARSE.top, COARSE.size, COARSE.shape, 32660 if left > 700_000 else 32632
        )
        interval = {
            "dtr__start_datetime": "2022-05-01T00:00:00Z",
            "dtr__end_datetime": "2022-06-02T00:00:00Z",
        }
        # The driver compares the times of a dataset, of which all need a zone, or none.
        more = interval if number % 5 == 0 and ":" in time else {}
        owner.add(document(tmp_path / str(number), BANDS, {"default": grid}, name, time, **more))
    archived = document(tmp_path / "x", BANDS, {"default": COARSE}, "first", TIMES[0])
    owner.add(archived)
    owner.archive(archived)
    owner.datacube.close()
    opened = Catalog(site.config)
    yield opened
    opened.close()


def list_queries() -> list[dict[str, Any]]:
    generator = np.random.default_rng(1)
    queries: list[dict[str, Any]] = [{}, {"collections": ("first",)}]
    for _ in range(30):
        west, south = generator.uniform(-180, 175), generator.uniform(30, 60)
        width = generator.choice([0.01, 3, 90])
        bounds = [west, south, min(west + width, 180), min(south + width, 90)]
        start = datetime(2022, 5, 20, tzinfo=UTC) + timedelta(hours=float(generator.uniform(0, 400)))
        query: dict[str, Any] = {"collections": (str(generator.choice(NAMES)),)}
        if generator.random() < 0.7:
            query["area"] = parse_bbox(bounds)
        if generator.random() < 0.7:
            query |= {"start": start, "end": start + timedelta(hours=float(generator.choice([0, 30, 900])))}
        queries.append(query)
    near = [{"collections": ("first",), "area": parse_bbox([x, 46, x + 4, 48])} for x in (4, 8, 176, -180)]
    return [
        *queries,
        *near,
        {"area": parse_bbox([-180, -90, 180, 90]), "start": datetime(2022, 6, 2, tzinfo=UTC)},
    ]


def find_everything(catalog: Catalog) -> list[list[str]]:
    found = []
    for query in list_queries():
        page = catalog.search_items(ItemQuery(limit=100, **query), "", lambda *_: None)
        found.append([item["id"] for item in page.items])
    for west, days in itertools.product((4.0, 8.0, 9.5, 178.0), (1, 40)):
        start = datetime(2022, 6, 1, 12, tzinfo=UTC)
        search = Query(box(west, 46, west + 1.5, 47.5, "EPSG:4326"), start, start + timedelta(days=days))
        found.append([str(scene.id) for scene in catalog.search_scenes("second", search)])
    return found


def has_used_index(site: Site) -> bool:
    engine = create_engine(site.url)
    with engine.connect() as connection:
        source = (
            search_index.is_of_product(1),
            search_index.overlaps_interval(datetime(2022, 1, 1, tzinfo=UTC), None),
        )
        connection.execute(text("SET enable_seqscan = off"))
        connection.execute(text("SET enable_indexscan = on"))
        connection.execute(text("DROP INDEX odc.ix_ds_prod_active"))
        plan = connection.execute(
            text(f"EXPLAIN SELECT id FROM odc.dataset WHERE archived IS NULL AND {' AND '.join(source)}")
        )
        lines = "\n".join(row[0] for row in plan)
        connection.rollback()
    engine.dispose()
    return search_index.NAME in lines


def run_tune(site: Site, *words: str) -> Any:
    return CliRunner().invoke(
        cli, ["index", "tune", *words], env={k: v or "" for k, v in site.config.environment().items()}
    )


@ONLY_POSTGIS
def test_the_same_is_found_with_the_index(site: Site, catalog: Catalog) -> None:
    before = find_everything(catalog)
    assert sum(map(len, before)) > 100
    done = run_tune(site)
    assert done.exit_code == 0, done.output
    assert has_used_index(site)
    assert find_everything(catalog) == before
    source = catalog._products.get_current().sources["first"]
    assert type(source.driver).__name__ == "IndexedPostgisDriver"
    assert postgis_driver._has_standard_offsets(source.fields, "lon", "lat", "time")
    assert run_tune(site).exit_code == 0
    assert run_tune(site, "--drop").exit_code == 0
    assert find_everything(catalog) == before
    assert type(catalog._products.get_current().sources["first"].driver).__name__ == "PostgisDriver"


@ONLY_POSTGIS
def test_odd_documents_are_indexed_all_the_same(site: Site, catalog: Catalog) -> None:
    assert run_tune(site).exit_code == 0
    documents = [
        '{"properties": {"datetime": "yesterday"}, "extent": {"lon": {"begin": "x", "end": true}}}',
        '{"properties": {"datetime": {"a": 1}}, "extent": 3}',
        '{"extent": {"lon": {"begin": "NaN", "end": 1e300}, "lat": {"begin": null, "end": 1}}}',
        "[]",
    ]
    engine = create_engine(site.url)
    with engine.begin() as connection:
        change = text("UPDATE odc.dataset SET metadata = CAST(:document AS jsonb)")
        for odd in documents:
            connection.execute(change, {"document": odd})
    engine.dispose()


@ONLY_POSTGIS
def test_who_may_not_tune_is_told_so(site: Site, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"reader_{uuid4().hex[:8]}"
    site.run(f"CREATE ROLE {name} LOGIN", f"GRANT USAGE ON SCHEMA odc TO {name}")
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", name_user(site.url, name))
    done = run_tune(site)
    assert (done.exit_code, "Run the command as the owner" in done.output) == (1, True), done.output
    assert "Traceback" not in done.output
    site.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@ONLY_POSTGIS
def test_the_doctor_recommends_it(site: Site, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_index_warning(site.config) is None
    monkeypatch.setattr(search_index, "MANY", 10)
    site.run("ANALYZE odc.dataset")
    assert "odc-openeo index tune" in str(find_index_warning(site.config))
    assert run_tune(site).exit_code == 0
    assert find_index_warning(site.config) is None
