"""STAC Items in bulk from stac-geoparquet files, which may lie, and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from datacube.index import Index
from datacube.model import Range
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from odc_openeo.indexing.bulk import (
    BulkIndexer,
    BulkRequest,
    BulkResult,
    derive_dataset_id,
    index_parquet,
)
from odc_openeo.indexing.index import IndexingError
from odc_openeo.indexing.stac import index_stac
from odc_openeo.indexing.stac_parquet import is_allowed_href, open_items, read_rows
from tests.catalog.scenes import PRODUCT, product
from tests.catalog.scenes import Index as SceneIndex

Item = dict[str, Any]
STORE = "s3://scenes"


@pytest.fixture
def index(odc_database: str) -> Iterator[Index]:
    """An index of two products without datasets, the default of this process."""
    scenes = SceneIndex()
    scenes.add_product(PRODUCT)
    scenes.add_product(
        product("heights", measurements=[{"name": "z", "dtype": "int16", "nodata": 0, "units": "m"}])
    )
    yield scenes.datacube.index
    scenes.datacube.close()


@pytest.fixture
def items() -> list[Item]:
    """STAC Items of scenes of one product, with files in an object store."""
    return [make_item(number) for number in range(5)]


def make_item(number: int) -> Item:
    """An Item whose bands have common names, two of them on a coarser grid."""
    sizes = {"red": 10, "nir": 10, "swir16": 20, "SCL": 20}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": f"bulk-{number}",
        "collection": PRODUCT["name"],
        "geometry": shapely.geometry.mapping(shapely.box(10.3, 46.9, 10.4, 47.0)),
        "bbox": [10.3, 46.9, 10.4, 47.0],
        "links": [],
        "properties": {
            "datetime": f"2023-07-{number % 28 + 1:02}T10:10:31.125Z",
            "eo:cloud_cover": number * 1.5,
            "created": "2023-08-01T00:00:00Z",
            "instruments": ["msi"],
            "proj:code": "EPSG:32632",
        },
        "assets": {
            name: {
                "href": f"{STORE}/{number}/{name}.tif",
                "type": "image/tiff; application=geotiff",
                "roles": ["data"],
                "proj:shape": [600 // size, 800 // size],
                "proj:transform": [size, 0, 600_000, 0, -size, 5_200_000],
            }
            for name, size in sizes.items()
        },
    }


def write_table(items: list[Item], path: Path) -> Path:
    to_parquet(parse_stac_items_to_arrow(items), path)
    return path


def index_rows(index: Index, path: Path, **request: Any) -> BulkResult:
    """Index a file in this process."""
    indexer, total = BulkIndexer(index, BulkRequest(path, **request)), BulkResult()
    for rows in read_rows(open_items(path)):
        total.include(indexer.index_rows(rows))
    return total


def count_results(result: BulkResult) -> tuple[int, int, int]:
    return result.added, result.present, result.bad


def test_datasets_are_those_of_single_items(index: Index, items: list[Item], tmp_path: Path) -> None:
    assert count_results(index_rows(index, write_table(items, tmp_path / "items.parquet"))) == (5, 0, 0)
    ids = [derive_dataset_id(item["collection"], item["id"]) for item in items]
    bulk = [index.datasets.get_unsafe(id_) for id_ in ids]
    index.datasets.archive(ids)
    index.datasets.purge(ids)
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert index_stac([tmp_path / "items.json"], index=index).added == ids
    for dataset, item in zip(bulk, items, strict=True):
        single = index.datasets.get_unsafe(dataset.id)
        assert dataset.metadata_doc == single.metadata_doc
        assert dataset.uri == f"{item['assets']['red']['href'].rpartition('/')[0]}/{item['id']}.json"
        assert dataset.measurements["B08"]["path"] == item["assets"]["nir"]["href"]
        assert dataset.center_time == single.center_time
    interval = Range(datetime(2023, 7, 3, tzinfo=UTC), datetime(2023, 7, 4, tzinfo=UTC))
    datasets = index.datasets.search(product=PRODUCT["name"], time=interval)
    assert [dataset.id for dataset in datasets] == [ids[2]]


def test_a_repeated_call_leaves_what_is_indexed(index: Index, items: list[Item], tmp_path: Path) -> None:
    index_rows(index, write_table(items[:2], tmp_path / "first.parquet"))
    items[0]["properties"]["eo:cloud_cover"] = 99.0
    path = write_table([*items, items[4]], tmp_path / "items.parquet")
    assert count_results(index_rows(index, path)) == (3, 3, 0)
    dataset = index.datasets.get_unsafe(derive_dataset_id(items[0]["collection"], items[0]["id"]))
    assert dataset.metadata_doc["properties"]["eo:cloud_cover"] == 0
    assert count_results(index_rows(index, path)) == (0, 6, 0)


def break_id(item: Item) -> None:
    item["id"] = ""


def break_file(item: Item) -> None:
    item["assets"]["red"]["href"] = "file:///etc/passwd"


def break_path(item: Item) -> None:
    item["assets"]["red"]["href"] = "s3://scenes/../other/red.tif"


def break_driver(item: Item) -> None:
    item["assets"]["red"]["href"] = "/vsicurl/http://169.254.169.254/latest"


def break_place(item: Item) -> None:
    item["geometry"] = shapely.geometry.mapping(shapely.box(600_000, 5_000_000, 700_000, 5_100_000))


def break_text(item: Item) -> None:
    item["properties"]["title"] = "a\0b"


def break_collection(item: Item) -> None:
    item["collection"] = "of_nobody"


def break_product(item: Item) -> None:
    item["collection"] = "heights"


def break_number(item: Item) -> None:
    item["properties"]["eo:cloud_cover"] = float("nan")


def break_time(item: Item) -> None:
    item["properties"]["datetime"] = None
    item["properties"].pop("start_datetime", None)


def break_size(item: Item) -> None:
    item["properties"]["title"] = "x" * 2**21


BREAKS: dict[str, tuple[Callable[[Item], None], str]] = {
    "id": (break_id, "no id"),
    "file": (break_file, "file:///etc/passwd"),
    "path": (break_path, "asset 'red'"),
    "driver": (break_driver, "vsicurl"),
    "place": (break_place, "longitude and latitude"),
    "text": (break_text, "code 0"),
    "collection": (break_collection, "no product 'of_nobody'"),
    "product": (break_product, "no asset for"),
    "number": (break_number, "not JSON"),
    "time": (break_time, "datetime"),
    "size": (break_size, "bytes as JSON"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_bad_rows_are_named_and_the_others_added(
    index: Index, items: list[Item], tmp_path: Path, name: str
) -> None:
    change, message = BREAKS[name]
    change(items[3])
    result = index_rows(index, write_table(items, tmp_path / "items.parquet"))
    assert count_results(result) == (4, 0, 1)
    (problem,) = result.problems
    assert problem.startswith("row 3")
    assert message in problem
    assert len(problem) < 1000


def test_values_that_the_index_refuses_fail_their_row_only(
    index: Index, items: list[Item], tmp_path: Path
) -> None:
    """PostgreSQL refuses a whole batch for one value: here a number that is none."""
    for item in items:
        item["properties"]["eo:cloud_cover"] = str(item["properties"]["eo:cloud_cover"])
    items[2]["properties"]["eo:cloud_cover"] = "many"
    result = index_rows(index, write_table(items, tmp_path / "items.parquet"))
    assert result.added + result.bad == 5
    assert result.bad in (0, 1), "only the row at fault"
    assert all("row 2" in problem for problem in result.problems)


def test_a_geometry_that_is_none(index: Index, items: list[Item], tmp_path: Path) -> None:
    table = pa.Table.from_batches(list(parse_stac_items_to_arrow(items)))
    shapes = table["geometry"].to_pylist()
    shapes[1], shapes[2] = b"\x01\x03\x00\x00\x00\xff\xff\xff\x7f", None
    column = table.schema.get_field_index("geometry")
    table = table.set_column(column, table.schema.field(column), pa.array(shapes, pa.binary()))
    pq.write_table(table, tmp_path / "items.parquet")
    result = index_rows(index, tmp_path / "items.parquet")
    assert count_results(result) == (3, 0, 2)
    assert [problem.partition(":")[0] for problem in result.problems] == ["row 1", "row 2"]


def test_files_that_are_no_tables_of_items(tmp_path: Path, items: list[Item]) -> None:
    path = tmp_path / "items.parquet"
    for content in (b"", b"PAR1", b"PAR1" + b"\xff" * 64 + b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1"):
        path.write_bytes(content)
        with pytest.raises(IndexingError, match="not a readable Parquet file"):
            open_items(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(IndexingError, match="no column geometry, assets"):
        open_items(path)
    columns = {f"c{i}": [1] for i in range(6000)}
    pq.write_table(pa.table({"id": ["a"], "geometry": [b""], "assets": [{"a": 1}], **columns}), path)
    with pytest.raises(IndexingError, match="6003 columns|6002 columns"):
        open_items(path)


def test_schemas_that_are_nested_deeply(tmp_path: Path) -> None:
    column = pa.array([1], pa.int32())
    for _ in range(150):
        column = pa.StructArray.from_arrays([column], ["a"])
    table = pa.table({"id": ["x"], "geometry": [shapely.to_wkb(shapely.Point(0, 0))], "assets": column})
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(IndexingError, match="nested"):
        open_items(tmp_path / "items.parquet")


def test_texts_that_expand_are_read_with_limited_memory(
    index: Index, items: list[Item], tmp_path: Path
) -> None:
    """A dictionary holds a text once, and each row repeats it."""
    item = {**items[0], "properties": {**items[0]["properties"], "title": "x" * 2**23}}
    table = pa.Table.from_batches(list(parse_stac_items_to_arrow([item])))
    path = tmp_path / "items.parquet"
    pq.write_table(pa.concat_tables([table] * 400), path, compression="zstd")
    assert path.stat().st_size < 2**20
    with pytest.raises(IndexingError, match="memory"):
        list(index_parquet(BulkRequest(path, memory_bytes=800 * 2**20)))


def test_other_reference_systems_are_refused(tmp_path: Path, items: list[Item]) -> None:
    table = pq.read_table(write_table(items, tmp_path / "items.parquet"))
    metadata = dict(table.schema.metadata)
    for crs, is_allowed in (("EPSG:32632", False), ("EPSG:4326", True), ("nonsense", False), ([1], False)):
        geo = json.loads(metadata[b"geo"])
        geo["columns"]["geometry"]["crs"] = crs
        path = tmp_path / "other.parquet"
        pq.write_table(table.replace_schema_metadata({**metadata, b"geo": json.dumps(geo).encode()}), path)
        if is_allowed:
            open_items(path)
            continue
        with pytest.raises(IndexingError, match="longitude and latitude"):
            open_items(path)


def test_addresses_that_may_be_indexed(tmp_path: Path) -> None:
    allowed = tmp_path / "scenes"
    allowed.mkdir()
    (tmp_path / "secret.tif").touch()
    (allowed / "link.tif").symlink_to(tmp_path / "secret.tif")
    for href in ("https://example.org/a.tif", "s3://bucket/a.tif", f"file://{allowed}/a.tif", f"{allowed}/b"):
        assert is_allowed_href(href, [allowed]), href
    for href in (
        *(
            None,
            7,
            "",
            "a.tif",
            "../a.tif",
            "file:///etc/passwd",
            "/etc/passwd",
            f"file://{allowed}/../secret.tif",
        ),
        *(f"file://{allowed}/%2e%2e/secret.tif", f"file://{allowed}/link.tif", f"file://host{allowed}/a.tif"),
        *(
            "/vsis3/bucket/a.tif",
            "vrt://a.tif",
            "NETCDF:/etc/passwd",
            "ftp://example.org/a",
            "https:///a.tif",
        ),
        *("s3://bucket/../other/a.tif", "s3://bucket/%2e%2e/other/a.tif", "https://example.org/a\n.tif"),
        *(f"{allowed}\\..\\secret.tif", "javascript:alert(1)", "data:image/tiff;base64,AAAA", "http://[::1"),
    ):
        assert not is_allowed_href(href, [allowed]), href
        assert not is_allowed_href(href, []), href
    assert not is_allowed_href(f"file://{allowed}/a.tif", [])


def test_several_processes_share_a_file(index: Index, items: list[Item], tmp_path: Path) -> None:
    many = []
    for number in range(450):
        many.append(make_item(number))
    break_file(many[300])
    path = write_table(many, tmp_path / "items.parquet")
    *_, result = index_parquet(BulkRequest(path), processes=2)
    assert count_results(result) == (449, 0, 1)
    assert result.problems[0].startswith("row 300")
    *_, result = index_parquet(BulkRequest(path), processes=2)
    assert count_results(result) == (0, 449, 1)
    (tmp_path / "broken.parquet").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(IndexingError, match="not a readable Parquet file"):
        list(index_parquet(BulkRequest(tmp_path / "broken.parquet")))


def test_ids_are_those_of_open_data_cube(items: list[Item]) -> None:
    import pystac
    from datacube.metadata import stac2ds

    for id_ in (items[0]["id"], str(uuid.uuid4()), "ä/ö"):
        item = pystac.Item.from_dict({**items[0], "id": id_})
        (dataset,) = stac2ds([item], cfg={"*": {"warnings": "ignore"}})
        assert dataset.id == derive_dataset_id(items[0]["collection"], id_)
    assert np.unique([derive_dataset_id("a", "b"), derive_dataset_id("a", "c")]).size == 2
