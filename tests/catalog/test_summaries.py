"""Extents follow the index at once, and are computed from what changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from tests.catalog.scenes import FINE, PRODUCT, Grid, Index, document, product
from tests.support.index_drivers import copy_dataset
from tests.support.waiting import wait_for

BANDS = {m["name"]: {"path": f"{m['name']}.tif"} for m in PRODUCT["measurements"]}


def months(catalog: Catalog, id_: str = "tiny_s2") -> tuple[Any, Any]:
    start, end = catalog.get_collection(id_)["extent"]["temporal"]["interval"][0]
    return start and start[:7], end and end[:7]


def light(tmp_path: Path, name: str, when: str, left: float = 600000, **properties: Any) -> dict[str, Any]:
    grid = Grid(left, 5200000, 10, FINE.shape)
    return document(tmp_path / when, BANDS, {"default": grid}, name, when, **properties)


def dates(tmp_path: Path, *days: str, name: str = "tiny_s2") -> list[dict[str, Any]]:
    return [light(tmp_path, name, f"{day}T10:00:00Z") for day in days]


def test_added_archived_restored_updated_show_at_once(catalog: Catalog, index: Index, tmp_path: Path):
    may, june, july = dates(tmp_path, "2022-05-01", "2022-06-01", "2022-07-01")
    assert months(catalog) == (None, None)
    index.add(june)
    assert months(catalog) == ("2022-06", "2022-06")
    index.add(may, july)
    assert months(catalog) == ("2022-05", "2022-07")
    index.archive(july)
    assert months(catalog) == ("2022-05", "2022-06")
    index.archive(may)
    assert months(catalog) == ("2022-06", "2022-06")
    index.restore(july)
    assert months(catalog) == ("2022-06", "2022-07")
    index.update({**july, "properties": {**july["properties"], "datetime": "2023-01-01T10:00:00Z"}})
    assert months(catalog) == ("2022-06", "2023-01")
    index.archive(june, july)
    assert months(catalog) == (None, None)


def test_another_process_sees_the_same(catalog: Catalog, index: Index, odc_config: Config, tmp_path: Path):
    other = Catalog(odc_config)
    index.add(*dates(tmp_path, "2022-05-01"))
    assert months(catalog) == months(other) == ("2022-05", "2022-05")
    index.add(*dates(tmp_path, "2022-08-01"))
    assert months(other) == months(catalog) == ("2022-05", "2022-08")
    other.close()


def test_forced_deletion_shows(catalog: Catalog, index: Index, tmp_path: Path):
    may, june = dates(tmp_path, "2022-05-01", "2022-06-01")
    index.add(may, june)
    assert months(catalog) == ("2022-05", "2022-06")
    index.index.datasets.purge([june["id"]], allow_delete_active=True)
    deadline = time.monotonic() + 20
    while months(catalog) != ("2022-05", "2022-05") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert months(catalog) == ("2022-05", "2022-05")


def test_deleted_product_disappears(catalog: Catalog, index: Index):
    index.add_product(product("another"))
    assert len(catalog.list_collections()) == 2
    index.index.products.delete([index.index.products.get_by_name("another")])
    assert [c["id"] for c in catalog.list_collections()] == ["tiny_s2"]


@contextmanager
def statements(catalog: Catalog) -> Iterator[list[str]]:
    """The SQL that the catalogue sends to the index itself."""
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    engine = catalog._index.engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def count_statements(catalog: Catalog) -> int:
    """The number of statements that it takes to list the collections."""
    with statements(catalog) as seen:
        catalog.list_collections()
    return len(seen)


def full_scans(seen: list[str]) -> int:
    return sum("array_agg" in s and "added >=" not in s and "updated >=" not in s for s in seen)


def test_only_changes_are_read(catalog: Catalog, index: Index, tmp_path: Path):
    days = [f"2022-{month:02}-01" for month in range(1, 13)]
    index.add(*dates(tmp_path, *days))
    assert months(catalog) == ("2022-01", "2022-12")
    wait_for(lambda: count_statements(catalog) == 1)
    with statements(catalog) as seen:
        index.add(*dates(tmp_path, "2023-01-01"))
        assert months(catalog) == ("2022-01", "2023-01")
        assert full_scans(seen) == 0
    with statements(catalog) as seen:
        index.archive(*dates(tmp_path, "2022-06-01"))
        catalog.list_collections()
        # It lies at the edge in space, as all do here.
        assert full_scans(seen) == 1


def test_archived_inside_needs_no_scan(catalog: Catalog, index: Index, tmp_path: Path):
    inner = light(tmp_path, "tiny_s2", "2022-06-01T10:00:00Z")
    outer = Grid(500000, 5300000, 100, (3000, 3000))
    around = [
        document(tmp_path / day, BANDS, {"default": outer}, "tiny_s2", f"{day}T10:00:00Z")
        for day in ("2022-01-01", "2022-12-01")
    ]
    index.add(inner, *around)
    assert months(catalog) == ("2022-01", "2022-12")
    with statements(catalog) as seen:
        index.archive(inner)
        assert months(catalog) == ("2022-01", "2022-12")
        assert full_scans(seen) == 0


def test_many_datasets_and_products(catalog: Catalog, index: Index, odc_database: str, tmp_path: Path):
    for number in range(20):
        index.add_product(product(f"p{number:03}"))
    index.add(*dates(tmp_path, "2022-05-01"))
    copy_dataset(odc_database, "^(p.*|tiny_s2)$", 300)
    assert len(catalog.list_collections()) == 21
    assert months(catalog, "p017") == ("2000-01", "2000-01")
    assert months(catalog) == ("2000-01", "2022-05")
    # The server counts the rows that were written some moments later.
    wait_for(lambda: count_statements(catalog) == 1)
    with statements(catalog) as seen:
        index.add(*dates(tmp_path, "2024-05-01", name="p017"))
        catalog.list_collections()
        assert len(seen) < 8
    assert months(catalog, "p017") == ("2000-01", "2024-05")


def test_threads_and_workers_refresh_together(index: Index, odc_config: Config, tmp_path: Path):
    index.add(*dates(tmp_path, "2022-05-01"))
    catalogs = [Catalog(odc_config) for _ in range(3)]
    items: list[Any] = []
    errors: list[BaseException] = []

    def ask(catalog: Catalog) -> None:
        try:
            items.append(months(catalog))
        except BaseException as error:
            errors.append(error)

    for round_ in range(3):
        index.add(*dates(tmp_path, f"2022-{6 + round_:02}-01"))
        threads = [threading.Thread(target=ask, args=(c,)) for c in catalogs for _ in range(4)]
        items.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not errors
        assert set(items) == {("2022-05", f"2022-{6 + round_:02}")}
    for catalog in catalogs:
        catalog.close()


def test_extent_over_the_antimeridian(catalog: Catalog, index: Index, tmp_path: Path):
    grid = Grid(300000, 8000000, 10000, (10, 60), 32601)
    index.add(document(tmp_path / "a", BANDS, {"default": grid}, "tiny_s2", "2022-06-01T10:00:00Z"))
    west, _, east, _ = catalog.get_collection("tiny_s2")["extent"]["spatial"]["bbox"][0]
    assert west == pytest.approx(177.455, abs=0.01)
    assert east == pytest.approx(-166.007, abs=0.01)
