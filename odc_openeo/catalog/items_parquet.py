"""STAC Items as stac-geoparquet: whole collections to files, and pages of items as bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from odc_openeo.catalog.item_search import ItemQuery
from odc_openeo.catalog.items import Place
from odc_openeo.config import Config

if TYPE_CHECKING:
    from odc_openeo.catalog import Catalog

MEDIA_TYPE: Final = "application/vnd.apache.parquet"
PAGE_ITEMS: Final = 1000
"""Items that are held in memory at once."""
ROW_GROUP_ITEMS: Final = 10_000

Item = Mapping[str, Any]


def export_collection(catalog: Catalog, collection: str, path: Path, base_url: str) -> tuple[int, int]:
    """Write all Items of a collection to a file; return their number and that of those left out.

    Assets have the URLs of the index. Items without a geometry are left out. The file appears when it is
    complete; memory does not grow with the number of items.

    Raises:
        CollectionNotFound: there is no such collection.
        OSError: the file cannot be written.
    """
    counts = [0, 0]
    with tempfile.TemporaryDirectory(prefix=".items-", dir=path.absolute().parent) as folder:
        unfinished = Path(folder) / "items.parquet"
        write_items(_iter_items(catalog, collection, base_url, counts), unfinished)
        os.replace(unfinished, path)
    return counts[0], counts[1]


def _iter_items(catalog: Catalog, collection: str, base_url: str, counts: list[int]) -> Iterator[Item]:
    token: str | None = None
    while True:
        query = ItemQuery(limit=PAGE_ITEMS, collections=(collection,), token=token)
        page = catalog.search_items(query, base_url, _keep_address)
        for item in page.items:
            has_geometry = item["geometry"] is not None
            counts[not has_geometry] += 1
            if has_geometry:
                yield item
        token = page.token
        if token is None:
            return


def _keep_address(uri: str, _collection: str, _item: str, _key: str) -> Place:
    return Place(uri)


def write_items(items: Iterable[Item], path: Path) -> None:
    """Write Items to a stac-geoparquet file, in two passes over the disk as their members may differ.

    Nothing but an empty table is written if there are none.
    """
    import pyarrow as pa
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    items = iter(items)
    first = next(items, None)
    if first is None:
        to_parquet(_make_empty_table(), path)
        return
    with tempfile.TemporaryDirectory(prefix=".chunks-", dir=path.parent) as folder:
        reader = parse_stac_items_to_arrow(
            _chain_items(first, items), chunk_size=PAGE_ITEMS, schema="ChunksToDisk", tmpdir=folder
        )
        schema = reader.schema.remove_metadata()
        batches = (batch.cast(schema) for batch in reader if batch.num_rows)
        to_parquet(pa.RecordBatchReader.from_batches(schema, batches), path)


def _chain_items(first: Item, items: Iterable[Item]) -> Iterator[dict[str, Any]]:
    yield dict(first)
    for item in items:
        yield dict(item)


def _make_empty_table() -> Any:
    import pyarrow as pa

    edges = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
    columns = {
        "type": pa.string(),
        "stac_version": pa.string(),
        "id": pa.string(),
        "collection": pa.string(),
        "geometry": pa.binary(),
        "bbox": edges,
        "datetime": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(list(columns.items())).empty_table()


def encode_items(_config: Config, items: Sequence[Item]) -> bytes:
    """Encode Items as a stac-geoparquet file, a task of runners; those without a geometry are left out."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    placed = [dict(item) for item in items if item.get("geometry") is not None]
    table = parse_stac_items_to_arrow(placed) if placed else _make_empty_table()
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        # The library writes to paths only.
        to_parquet(table, file.name)
        return Path(file.name).read_bytes()
