"""Summaries that follow random changes of the index are those of all its datasets, with both drivers."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from odc_openeo.catalog import Catalog, ItemQuery, Query, Summary, summary_rows, summary_update
from odc_openeo.catalog.odc_index import IndexConnection
from odc_openeo.catalog.product_extents import ExtentReader
from odc_openeo.cli import cli
from odc_openeo.config import Config
from tests.catalog.conftest import Site
from tests.catalog.scenes import FINE, PRODUCT, Grid, Index, document, product
from tests.support.waiting import wait_for

BANDS = {m["name"]: {"path": f"{m['name']}.tif"} for m in PRODUCT["measurements"]}
NAMES = ("tiny_s2", "another")
EXTENTS = ("lon", "lat", "time", "x", "y", "crs", "platforms", "instruments", "misplaced", "has_offsets")
FIRST = datetime(2022, 1, 1, tzinfo=UTC)


@dataclass
class Registry:
    """Makes random changes of an index, and remembers which datasets should be there."""

    site: Site
    index: Index
    folder: Path
    random: random.Random
    active: dict[str, dict[str, Any]] = field(default_factory=dict)
    archived: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: int = 0
    hides_deletions: bool = True

    def make_document(self) -> dict[str, Any]:
        """Make the document of a new dataset at a random place and time."""
        self.made += 1
        left, top = (1000.0 * self.random.randrange(200, 800), 1000.0 * self.random.randrange(2000, 6000))
        moment = FIRST + timedelta(hours=self.random.randrange(24 * 365))
        platform = {"eo__platform": f"platform-{self.random.randrange(4)}"}
        grid = Grid(left, top, 10, FINE.shape, self.random.choice((32632, 32633)))
        path, name = self.folder / str(self.made), self.random.choice(NAMES)
        return document(path, BANDS, {"default": grid}, name, f"{moment:%Y-%m-%dT%H:%M:%SZ}", **platform)

    def add_some(self) -> None:
        """Add up to four datasets."""
        documents = [self.make_document() for _ in range(self.random.randint(1, 4))]
        self.index.add(*documents)
        self.active |= {d["id"]: d for d in documents}

    def add_one(self) -> None:
        """Add a dataset."""
        new = self.make_document()
        self.index.add(new)
        self.active[new["id"]] = new

    def archive_one(self) -> None:
        """Archive a dataset."""
        if self.active:
            one = self.active.pop(self.random.choice(list(self.active)))
            self.index.archive(one)
            self.archived[one["id"]] = one

    def restore_one(self) -> None:
        """Restore an archived dataset."""
        if self.archived:
            one = self.archived.pop(self.random.choice(list(self.archived)))
            self.index.restore(one)
            self.active[one["id"]] = one

    def update_one(self) -> None:
        """Give a dataset another time."""
        if self.active:
            one = self.active[self.random.choice(list(self.active))]
            moment = FIRST + timedelta(hours=self.random.randrange(24 * 365))
            new = json.loads(json.dumps(one))
            new["properties"]["datetime"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
            self.index.update(new)
            self.active[new["id"]] = new

    def purge_one(self) -> None:
        """Delete an archived dataset."""
        if self.archived:
            id_, _ = self.archived.popitem()
            self.index.index.datasets.purge([id_])

    def purge_and_add(self) -> None:
        """Delete an active dataset by force, and add another one: the count stays the same."""
        if self.active:
            one = self.active.pop(self.random.choice(list(self.active)))
            self.index.index.datasets.purge([one["id"]], allow_delete_active=True)
            new = {**self.make_document(), "product": one["product"]}
            self.index.add(new)
            self.active[new["id"]] = new

    def make_change(self) -> None:
        """Make a random change."""
        weights = {self.add_some: 4, self.archive_one: 3, self.restore_one: 2, self.update_one: 2}
        weights |= {self.purge_one: 1, self.purge_and_add: int(self.hides_deletions)}
        self.random.choices(list(weights), list(weights.values()))[0]()


@pytest.fixture(params=[3, 50_000], ids=["more-than-allowed", "few"])
def config(request: pytest.FixtureRequest, site: Site) -> Config:
    """The configuration of a site whose requests read few datasets, or as many as they need here."""
    return site.config.model_copy(update={"summary_datasets": request.param})


@pytest.fixture
def registry(site: Site, tmp_path: Path) -> Iterator[Registry]:
    index = Index()
    for name in NAMES:
        index.add_product(product(name))
    yield Registry(site, index, tmp_path, random.Random(7))
    index.datacube.close()


def compute_all(config: Config) -> dict[str, Summary]:
    """Compute the summaries from all datasets."""
    index = IndexConnection(config)
    with index.connect() as connection:
        reader = ExtentReader(connection, index.driver, FIRST)
        summaries = {p.name: reader.compute_whole(p) for p in index.datacube.index.products.get_all()}
    index.close()
    return summaries


def find_differences(catalog: Catalog, registry: Registry, expected: dict[str, Summary]) -> list[str]:
    """Compare with all datasets: extents with those computed anew, counts and times with the documents."""
    differences = []
    for name in NAMES:
        summary = catalog.get_summary(name)
        documents = [d for d in registry.active.values() if d["product"]["name"] == name]
        times = [datetime.fromisoformat(d["properties"]["datetime"]) for d in documents]
        span = (min(times), max(times)) if times else (None, None)
        pairs = {part: (getattr(summary, part), getattr(expected[name], part)) for part in EXTENTS}
        pairs |= {"count": (summary.count, len(documents)), "documents": (summary.time, span)}
        pairs |= {"pending": (summary.pending, False)}
        differences += [
            f"{name} {part}: {one} {other}" for part, (one, other) in pairs.items() if one != other
        ]
    return differences


def wait_until_right(catalogs: list[Catalog], registry: Registry, config: Config) -> None:
    """Wait until all catalogues are right: deletions show once the server has counted them."""
    registry.index.index._db.close()
    expected = compute_all(config)
    deadline = time.monotonic() + 30
    while any(find_differences(catalog, registry, expected) for catalog in catalogs):
        assert time.monotonic() < deadline, [find_differences(c, registry, expected) for c in catalogs]
        time.sleep(0.1)


@pytest.mark.parametrize("overlap_s", [600, 0.3])
def test_random_changes(
    config: Config, registry: Registry, overlap_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary_rows, "OVERLAP", timedelta(seconds=overlap_s))
    # A deletion that hides behind an addition is found while that is still looked at.
    registry.hides_deletions = overlap_s > 1
    catalogs = [Catalog(config), Catalog(config)]
    for _ in range(5):
        for _ in range(registry.random.randint(1, 3)):
            registry.make_change()
            registry.random.choice(catalogs).list_collections()
        wait_until_right(catalogs, registry, config)
    for catalog in catalogs:
        catalog.close()


def test_changes_that_commit_late(config: Config, site: Site, registry: Registry) -> None:
    for _ in range(6):
        registry.add_some()
    catalog = Catalog(config)
    wait_until_right([catalog], registry, config)
    engine = create_engine(site.url)
    with engine.connect() as late:
        late.execute(text("SELECT now()"))
        one = registry.active.pop(next(iter(registry.active)))
        late.execute(text(f"UPDATE {site.schema}.dataset SET archived = now() WHERE id = '{one['id']}'"))
        registry.update_one()
        registry.add_some()
        catalog.list_collections()
        catalog.list_collections()
        late.commit()
    wait_until_right([catalog], registry, config)
    engine.dispose()
    catalog.close()
    assert {one["id"]}.isdisjoint(registry.active)


@pytest.mark.parametrize("config", [3], indirect=True)
def test_a_huge_product_holds_no_request(
    config: Config, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary_rows, "OVERLAP", timedelta(seconds=0.2))
    for _ in range(8):
        registry.add_some()
    time.sleep(0.3)
    catalog = Catalog(config)
    background = catalog._products._summaries.background
    monkeypatch.setattr(background, "ensure_running", lambda: None)
    documents = [d for d in registry.active.values() if d["product"]["name"] == "another"]
    assert catalog.get_summary("another").pending
    extent = catalog.get_collection("another")["extent"]
    assert extent == {
        "spatial": {"bbox": [[-180.0, -90.0, 180.0, 90.0]]},
        "temporal": {"interval": [[None, None]]},
    }
    # Searches find what is there, all the same.
    assert len(catalog.search_scenes("another", Query())) == len(documents)
    query = ItemQuery(limit=100, collections=("another",))
    items = catalog.search_items(query, "", lambda *_: None)
    assert {item["id"] for item in items.items} == {d["id"] for d in documents}
    times = [item["properties"]["datetime"] for item in items.items]
    assert times == sorted(times, reverse=True)
    names: list[str] = []
    catalog.refresh_summaries(lambda summary: names.append(summary.product))
    assert set(names) == set(NAMES)
    assert catalog.get_summary("another").count == len(documents)
    # Nothing is left to the background of what is added since.
    for _ in range(2):
        time.sleep(0.3)
        registry.add_one()
        assert find_differences(catalog, registry, compute_all(config)) == []
    catalog.close()


@pytest.mark.parametrize("config", [3], indirect=True)
def test_the_command_makes_what_is_pending(
    config: Config, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        registry.add_some()
    for name, value in config.environment().items():
        monkeypatch.setenv(name, value)
    counts = {name: sum(d["product"]["name"] == name for d in registry.active.values()) for name in NAMES}
    lines = {f"{name}: {count} datasets" for name, count in counts.items() if count > 3}
    last = "Extents and counts of 2 collections are up to date"
    for options, expected in (([], lines), ([], set()), (["--all"], lines)):
        done = CliRunner().invoke(cli, ["collections", "refresh", *options], catch_exceptions=False)
        assert done.exit_code == 0
        *made, end = done.output.splitlines()
        assert expected <= set(made)
        assert end == last
        assert bool(made) == bool(expected)


def test_datasets_that_bring_their_times_are_counted(config: Config, site: Site, registry: Registry) -> None:
    registry.add_one()
    catalog = Catalog(config)
    wait_until_right([catalog], registry, config)
    column = {"postgres": "dataset_type_ref", "postgis": "product_ref"}[site.driver]
    # As when an index is restored from a backup, or copied from another server.
    site.run(
        f"INSERT INTO {site.schema}.dataset (id, metadata_type_ref, {column}, metadata, added, updated) "
        f"SELECT gen_random_uuid(), metadata_type_ref, {column}, metadata, '2020-01-01', '2020-01-01' "
        f"FROM {site.schema}.dataset, generate_series(1, {summary_update.MOST_UNEXPLAINED + 10})"
    )
    expected = summary_update.MOST_UNEXPLAINED + 11
    wait_for(lambda: sum(catalog.get_summary(name).count for name in NAMES) == expected)
    catalog.close()
