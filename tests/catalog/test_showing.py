"""What pages show of a collection: datasets by month, and the scene that shows it best."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from odc_openeo import db
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.errors import CollectionNotFound
from tests.catalog.scenes import Index
from tests.catalog.test_summaries import dates, light, statements


def test_datasets_by_month(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    assert catalog.count_by_month("tiny_s2") == {}
    first = dates(tmp_path, "2021-11-30", "2022-01-01", "2022-01-31")
    index.add(*first)
    assert catalog.count_by_month("tiny_s2") == {"2021-11": 1, "2021-12": 0, "2022-01": 2}
    index.add(*dates(tmp_path, "2022-02-28"))
    assert catalog.count_by_month("tiny_s2") == {"2021-11": 1, "2021-12": 0, "2022-01": 2, "2022-02": 1}
    index.archive(*first)
    assert catalog.count_by_month("tiny_s2") == {"2022-02": 1}


def test_datasets_are_counted_once_for_all_processes(
    catalog: Catalog, index: Index, odc_config: Config, tmp_path: Path
) -> None:
    index.add(*dates(tmp_path, "2022-05-01", "2022-06-01"))
    counted = catalog.count_by_month("tiny_s2")
    other = Catalog(odc_config)
    other.get_summary("tiny_s2")
    with statements(other) as seen:
        assert other.count_by_month("tiny_s2") == counted
    assert not [s for s in seen if "count" in s and "dataset_type_ref" in s]
    other.close()


def test_months_do_not_depend_on_the_time_zone_of_the_database(
    catalog: Catalog, index: Index, odc_config: Config, tmp_path: Path
) -> None:
    with db.session(odc_config) as session:
        session.execute(text("ALTER ROLE CURRENT_USER SET timezone = 'Europe/Rome'"))
    try:
        index.add(*dates(tmp_path, "2022-01-31", "2022-07-01"))
        assert list(catalog.count_by_month("tiny_s2").values()) == [1, 0, 0, 0, 0, 0, 1]
    finally:
        with db.session(odc_config) as session:
            session.execute(text("ALTER ROLE CURRENT_USER RESET timezone"))


def test_the_specimen_is_recent_and_clear(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    def add(day: str, cover: float) -> None:
        index.add(light(tmp_path, "tiny_s2", f"{day}T10:00:00Z", **{"eo:cloud_cover": cover}))

    def shown() -> str | None:
        scene = catalog.find_preview_scene("tiny_s2")
        return scene and f"{scene.time:%Y-%m-%d}"

    assert shown() is None
    add("2020-01-01", 0.0)
    assert shown() == "2020-01-01"
    add("2022-06-01", 40.0)
    add("2022-06-20", 10.0)
    assert shown() == "2022-06-20"
    add("2022-06-25", 90.0)
    assert shown() == "2022-06-20"
    with pytest.raises(CollectionNotFound):
        catalog.find_preview_scene("nowhere")


def test_long_intervals_have_a_specimen(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    year = light(tmp_path, "tiny_s2", "2022-07-02T12:00:00Z")
    year["properties"] |= {
        "dtr:start_datetime": "2022-01-01T00:00:00Z",
        "dtr:end_datetime": "2022-12-31T23:59:59Z",
    }
    index.add(year)
    scene = catalog.find_preview_scene("tiny_s2")
    assert scene is not None
    assert scene.time == datetime(2022, 7, 2, 12, tzinfo=UTC)
    assert sum(catalog.count_by_month("tiny_s2").values()) == 12


def test_of_very_many_scenes_some_are_looked_at(catalog: Catalog, index: Index, tmp_path: Path) -> None:
    from odc_openeo.catalog.preview_scene import MOST_CANDIDATES, find_preview_scene
    from odc_openeo.errors import ProcessGraphComplexity

    index.add(*dates(tmp_path, "2022-06-01"))
    scene = catalog.find_preview_scene("tiny_s2")
    assert scene is not None
    queries = []

    def search(query, limit):
        queries.append(query.end - query.start)
        assert limit == MOST_CANDIDATES
        if len(queries) < 4:
            raise ProcessGraphComplexity(reason="too many")
        return [dataclasses.replace(scene)]

    assert find_preview_scene(search, scene.time) is not None
    assert queries == sorted(queries, reverse=True)
    assert len(queries) == 4
