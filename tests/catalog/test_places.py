"""Datasets whose place or time Open Data Cube's index does not have, or has wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from sqlalchemy import create_engine, text

from odc_openeo import errors
from odc_openeo.catalog import Catalog, ItemQuery, parse_bbox, parse_interval
from odc_openeo.graph import evaluate
from odc_openeo.processes import filters, load_collection  # noqa: F401  (registers the processes)
from odc_openeo.registry.environment import Environment, RunLimits
from tests.catalog.scenes import Index, product, scene
from tests.support.index_drivers import get_schema, get_test_driver, needs_postgres_driver

DISK = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84 +units=m +no_defs +type=crs"
MAPS: dict[str, tuple[Any, float, float, float, int, int]] = {
    "south pole": ("EPSG:3031", -200_000, 200_000, 1000, 400, 400),
    "north pole": ("EPSG:3413", -200_000, 200_000, 1000, 400, 400),
    "another north pole": ("EPSG:3995", -200_000, 200_000, 1000, 400, 400),
    "disk": (DISK, -5_500_000, 5_500_000, 110_000, 100, 100),
    "web map": ("EPSG:3857", -20037508.34, 20037508.34, 400750.1668, 100, 100),
    "from 0 to 360": ("EPSG:4326", 0, 90, 1, 360, 180),
}


def write_map(folder: Path, name: str, outline: bool = True, **properties: Any) -> dict[str, Any]:
    """A raster of distinct numbers, and its EO3 document."""
    crs, left, top, size, columns, rows = MAPS[name]
    transform = Affine(size, 0, left, 0, -size, top)
    folder.mkdir(parents=True, exist_ok=True)
    values = (np.arange(rows * columns) % 60_000 + 1).astype("uint16").reshape(rows, columns)
    profile = {"driver": "GTiff", "count": 1, "height": rows, "width": columns, "dtype": "uint16"}
    with rasterio.open(folder / "v.tif", "w", **profile, crs=crs, transform=transform, nodata=0) as file:
        file.write(values, 1)
    right, bottom = left + size * columns, top - size * rows
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    number = sum(map(ord, str(folder))) % 10**6
    return {
        "$schema": "https://schemas.opendatacube.org/dataset",
        "id": f"00000000-0000-4000-8000-{number:012}",
        "product": {"name": "maps"},
        "location": (folder / "scene.odc-metadata.yaml").as_uri(),
        "crs": crs,
        "grids": {"default": {"shape": [rows, columns], "transform": list(transform)}},
        "measurements": {"v": {"path": "v.tif"}},
        **({"geometry": {"type": "Polygon", "coordinates": [ring]}} if outline else {}),
        "properties": {
            "datetime": "2024-03-05T10:00:00Z",
            "odc:processing_datetime": "2024-03-05T10:00:00Z",
            "odc:file_format": "GeoTIFF",
            "eo:instrument": "MSI",
            **properties,
        },
        "lineage": {},
    }


@pytest.fixture
def maps(index: Index, tmp_path: Path) -> Index:
    """The index with a product of maps beside the tiny one, which has one scene."""
    measurement = {"name": "v", "dtype": "uint16", "nodata": 0, "units": "1"}
    index.add_product(product("maps", measurements=[measurement]))
    index.add(scene(tmp_path / "tiny", 1, "2022-06-01T10:00:00Z"))
    return index


def load(catalog: Catalog, box: Any = None, time: Any = None) -> xr.DataArray:
    arguments = {"id": "maps", "spatial_extent": box, "temporal_extent": time}
    node = {"process_id": "load_collection", "arguments": arguments, "result": True}
    return evaluate({"process_graph": {"load": node}}, Environment(catalog, limits=RunLimits()))


def make_box(west: float, east: float, south: float, north: float) -> dict[str, float]:
    return {"west": west, "east": east, "south": south, "north": north}


def list_items(catalog: Catalog, **query: Any) -> list[dict[str, Any]]:
    page = catalog.search_items(ItemQuery(limit=10, collections=("maps",), **query), "", lambda *_: None)
    json.dumps(page.items, allow_nan=False)
    return list(page.items)


PLACES: list[tuple[str, list[float], dict[str, float], dict[str, float]]] = [
    ("south pole", [-180, -90, 180, -87.397], make_box(10, 40, -89, -88.5), make_box(10, 40, -80, -70)),
    ("north pole", [-180, 87.389, 180, 90], make_box(10, 40, 88.5, 89), make_box(10, 40, -89, -88)),
    ("another north pole", [-180, 87.397, 180, 90], make_box(-180, 180, 89, 90), make_box(0, 9, 0, 9)),
    ("disk", [-81.3, -81.33, 81.3, 81.33], make_box(5, 20, 40, 50), make_box(150, 170, 0, 9)),
    ("web map", [-180, -85.05, 180, 85.05], make_box(5, 20, 40, 50), make_box(5, 20, 86, 89)),
    ("from 0 to 360", [-180, -90, 180, 90], make_box(-170, -150, -5, 5), make_box(0, 0.2, 0, 0.2)),
]


DISKS = needs_postgres_driver("it cannot index an outline that leaves the Earth")
PLACES_OF_DRIVER = [pytest.param(*p, id=p[0], marks=[DISKS] if p[0] == "disk" else []) for p in PLACES]


@pytest.mark.parametrize(("name", "bbox", "inside", "outside"), PLACES_OF_DRIVER)
def test_maps_are_listed_and_searched_by_their_outlines(
    catalog: Catalog,
    maps: Index,
    tmp_path: Path,
    name: str,
    bbox: list[float],
    inside: dict[str, float],
    outside: dict[str, float],
) -> None:
    maps.add(write_map(tmp_path / "map", name, outline=name in ("south pole", "web map")))
    documents = {d["id"]: d for d in catalog.list_collections()}
    json.dumps(documents, allow_nan=False)
    np.testing.assert_allclose(documents["maps"]["extent"]["spatial"]["bbox"][0], bbox, atol=0.02)
    assert documents["tiny_s2"]["extent"]["spatial"]["bbox"][0][0] == pytest.approx(10.3, abs=0.1)
    assert load(catalog, inside).size > 0
    with pytest.raises(errors.NoDataAvailable):
        load(catalog, outside)
    published = documents["maps"]["extent"]["spatial"]["bbox"][0]
    whole = load(catalog, dict(zip(("west", "south", "east", "north"), published, strict=True)))
    rows, columns = MAPS[name][5], MAPS[name][4]
    if name != "disk":
        assert whole.shape[2:] == (rows, columns)
    edges = ("west", "south", "east", "north")
    (item,) = list_items(catalog, area=parse_bbox([inside[e] for e in edges]))
    np.testing.assert_allclose(item["bbox"], bbox, atol=0.02)
    if name != "from 0 to 360":
        assert not list_items(catalog, area=parse_bbox([outside[e] for e in edges]))


def test_maps_of_all_kinds_in_one_collection(catalog: Catalog, maps: Index, tmp_path: Path) -> None:
    catalog.list_collections()
    names = [name for name in MAPS if name != "disk" or get_test_driver() == "postgres"]
    for name in names:
        maps.add(write_map(tmp_path / name, name))
        (bbox,) = catalog.get_collection("maps")["extent"]["spatial"]["bbox"]
        assert np.isfinite(bbox).all()
    assert bbox == [-180, -90, 180, 90]
    assert len(list_items(catalog)) == len(names)


# --- Damaged documents ---------------------------------------------------------------------------


MAP = "metadata #>> '{product,name}' = 'maps'"


def change_documents(database: str, change: str) -> None:
    """Change documents as no tool of Open Data Cube would."""
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {get_schema()}.dataset SET metadata = {change} WHERE {MAP}"))
    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        """jsonb_set(metadata, '{crs}', '"no such system"')""",
        "metadata #- '{geometry}' #- '{extent}'",
        "jsonb_set(metadata, '{grids,default,transform}', '[null]')",
        """jsonb_set(metadata, '{grid_spatial,projection,geo_ref_points,ll,x}', '"west"')""",
        """jsonb_set(metadata, '{grids}', '7')""",
    ],
)
def test_a_damaged_dataset_affects_no_other_collection(
    catalog: Catalog, maps: Index, odc_database: str, tmp_path: Path, change: str, caplog: Any
) -> None:
    maps.add(write_map(tmp_path / "map", "south pole"))
    with caplog.at_level(logging.WARNING):
        change_documents(odc_database, change)
        documents = {d["id"]: d for d in catalog.list_collections()}
        json.dumps(documents, allow_nan=False)
        assert set(documents) == {"maps", "tiny_s2"}
        assert documents["tiny_s2"]["extent"]["spatial"]["bbox"][0][0] == pytest.approx(10.3, abs=0.1)
        assert len(list(catalog.search_items(ItemQuery(limit=10), "", lambda *_: None).items)) >= 1


# --- Times ---------------------------------------------------------------------------------------


def test_times_with_an_offset_are_searched_by_instant(catalog: Catalog, maps: Index, tmp_path: Path) -> None:
    times = [
        "2024-03-31T00:30:00+02:00",
        "2024-03-31 10:00:00",
        "2024-03-31T23:30:00-05:00",
        "2024-04-05",
        "2024-04-06T00:00:00Z",
    ]
    for number, moment in enumerate(times):
        maps.add(write_map(tmp_path / str(number), "web map", datetime=moment))

    def dates(start: str | None, end: str | None) -> list[str]:
        return [str(t)[:16] for t in load(catalog, None, [start, end]).t.values]

    assert dates("2024-03-30", "2024-03-31") == ["2024-03-30T22:30"]
    assert dates("2024-03-31", "2024-04-01") == ["2024-03-31T10:00"]
    assert dates("2024-04-01", "2024-04-02") == ["2024-04-01T04:30"]
    assert dates("2024-04-05", None) == ["2024-04-05T00:00", "2024-04-06T00:00"]
    assert dates(None, "2024-03-30T22:31:00Z") == ["2024-03-30T22:30"]
    extent = catalog.get_collection("maps")["extent"]["temporal"]["interval"][0]
    assert extent == ["2024-03-30T22:30:00Z", "2024-04-06T00:00:00Z"]
    start, end = parse_interval("2024-04-01T00:00:00Z/2024-04-01T05:00:00Z")
    (item,) = list_items(catalog, start=start, end=end)
    assert item["properties"]["datetime"] == "2024-04-01T04:30:00Z"
    start, end = parse_interval("2024-03-31T23:00:00Z/2024-03-31T23:59:00Z")
    assert not list_items(catalog, start=start, end=end)
    ordered = [item["properties"]["datetime"] for item in list_items(catalog)]
    assert ordered == sorted(ordered, reverse=True)


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        pytest.param(
            "0001-01-01T00:00:00+02:00",
            marks=needs_postgres_driver("it cannot index times before the year 1"),
        ),
    ],
)
def test_first_and_last_times_of_the_calendar(
    catalog: Catalog, maps: Index, tmp_path: Path, moment: str
) -> None:
    maps.add(write_map(tmp_path / "map", "web map", datetime=moment))
    assert {d["id"] for d in catalog.list_collections()} == {"maps", "tiny_s2"}
    assert len(list_items(catalog)) == 1


def test_scenes_of_an_interval_are_found_by_overlap(catalog: Catalog, maps: Index, tmp_path: Path) -> None:
    for year in (2022, 2023, 2024):
        interval = {
            "datetime": f"{year}-07-01T12:00:00Z",
            "dtr:start_datetime": f"{year}-01-01T00:00:00Z",
            "dtr:end_datetime": f"{year + 1}-01-01T00:00:00Z" if year == 2022 else f"{year}-12-31T23:59:59Z",
        }
        maps.add(write_map(tmp_path / str(year), "web map", **interval))

    def years(*extent: str | None) -> list[str]:
        labels = load(catalog, None, extent).t.values
        assert all(str(t)[4:16] == "-07-01T12:00" for t in labels)
        return [str(t)[:4] for t in labels]

    assert years("2023-02-01", "2023-02-11") == ["2023"]
    assert years("2022-12-01", "2023-02-01") == ["2022", "2023"]
    assert years("2023-01-01", "2024-01-01") == ["2023"]
    assert years("2023-12-31", None) == ["2023", "2024"]
    assert years("2022-07-01", "2022-07-02") == ["2022"]
    with pytest.raises(errors.NoDataAvailable, match="at that place and time"):
        years("2019-01-01", "2020-01-01")


@pytest.mark.parametrize("filtered", [["2023-06-01", "2023-08-01"], ["2023-02-01", "2023-02-11"]])
def test_filters_of_time_give_the_same_with_and_without_a_plan(
    catalog: Catalog, maps: Index, tmp_path: Path, filtered: list[str]
) -> None:
    for year in (2022, 2023, 2024):
        interval = {
            "datetime": f"{year}-07-01T12:00:00Z",
            "dtr:start_datetime": f"{year}-01-01T00:00:00Z",
            "dtr:end_datetime": f"{year}-12-31T23:59:59Z",
        }
        maps.add(write_map(tmp_path / str(year), "web map", **interval))
    extent = ["2022-12-01", "2023-02-11"]
    arguments = {"id": "maps", "spatial_extent": make_box(5, 20, 40, 50), "temporal_extent": extent}
    graph = {
        "load": {"process_id": "load_collection", "arguments": arguments},
        "filter": {
            "process_id": "filter_temporal",
            "arguments": {"data": {"from_node": "load"}, "extent": filtered},
            "result": True,
        },
    }
    results = [
        evaluate(
            {"process_graph": graph}, Environment(catalog, limits=RunLimits(load_scenes=limit)), plan=plan
        )
        for plan, limit in ((True, 1 if "08" in filtered[1] else 10), (True, 10), (False, 10))
    ]
    for result in results:
        assert [str(t)[:4] for t in result.t.values] == (["2023"] if "08" in filtered[1] else [])
        xr.testing.assert_identical(result.compute(), results[0].compute())
