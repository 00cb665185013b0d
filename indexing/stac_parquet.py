"""Read STAC Items from stac-geoparquet files, which need not be what they claim to be."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from odc_openeo.indexing.index import IndexingError

BATCH_ROWS: Final = 200
LARGEST_ITEM: Final = 2**20
"""Most bytes of an Item as JSON."""
MOST_COLUMNS: Final = 5000
MOST_VERTICES: Final = 100_000
LARGEST_FOOTER: Final = 2**25
"""Most bytes of the metadata of a file."""
SCHEMES: Final = frozenset({"http", "https", "s3", "gs", "az", "abfs", "abfss"})
REQUIRED: Final = ("id", "geometry", "assets")


@dataclass(frozen=True)
class Row:
    """A row of a file: its number from 0, and the JSON of its Item or why it has none."""

    number: int
    item: dict[str, Any] | None = None
    problem: str | None = None


def open_items(path: Path) -> pq.ParquetFile:
    """Open a stac-geoparquet file and check what it says of itself.

    Raises:
        IndexingError: it is not such a file.
    """
    try:
        file = pq.ParquetFile(
            path,
            pre_buffer=False,
            buffer_size=2**20,
            thrift_container_size_limit=2**21,
            thrift_string_size_limit=LARGEST_FOOTER,
        )
        names = file.schema_arrow.names
        columns = file.metadata.num_columns
        geo = json.loads((file.metadata.metadata or {}).get(b"geo", b"{}"))
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise IndexingError(f"{path}: not a readable Parquet file ({_shorten(error)})") from error
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise IndexingError(f"{path}: not a stac-geoparquet file, it has no column {', '.join(missing)}")
    if columns > MOST_COLUMNS:
        raise IndexingError(f"{path}: it has {columns} columns, at most {MOST_COLUMNS} are read")
    _check_reference_system(path, geo)
    return file


def _check_reference_system(path: Path, geo: Any) -> None:
    """Refuse geometries that are not in longitude and latitude, the default of GeoParquet."""
    columns = geo.get("columns") if isinstance(geo, dict) else None
    column = columns.get("geometry") if isinstance(columns, dict) else None
    crs = column.get("crs", "OGC:CRS84") if isinstance(column, dict) else "OGC:CRS84"
    try:
        is_geographic = crs is None or CRS.from_user_input(crs).equals("OGC:CRS84", ignore_axis_order=True)
        is_geographic = is_geographic or CRS.from_user_input(crs).equals("EPSG:4326", ignore_axis_order=True)
    except (CRSError, TypeError, ValueError):
        is_geographic = False
    if not is_geographic:
        raise IndexingError(f"{path}: geometries must be in longitude and latitude (OGC:CRS84)")


def read_rows(file: pq.ParquetFile, shard: int = 0, shards: int = 1) -> Iterator[list[Row]]:
    """Read a file in batches of rows, or every batch of ``shards`` from number ``shard`` on.

    Rows that hold no Item come with a problem; they do not affect others.
    """
    first = 0
    for number, batch in enumerate(file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)):
        if number % shards == shard:
            yield list(_convert_batch(batch, first))
        first += batch.num_rows


def _convert_batch(batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    try:
        items = _make_documents(batch)
    except Exception:
        # One bad value fails the conversion of the whole batch.
        for i in range(batch.num_rows):
            yield _convert_row(batch.slice(i, 1), first + i)
        return
    for i, item in enumerate(items):
        yield _check_row(item, first + i)


def _convert_row(batch: pa.RecordBatch, number: int) -> Row:
    try:
        (item,) = _make_documents(batch)
    except Exception as error:  # pyarrow, shapely and the library raise many kinds
        return Row(number, problem=f"it cannot be read ({_shorten(error)})")
    return _check_row(item, number)


def _make_documents(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    from stac_geoparquet.arrow import stac_table_to_items

    return [_drop_nulls(row) for row in stac_table_to_items(pa.Table.from_batches([batch]))]


def _drop_nulls(value: Any) -> Any:
    """Drop members that are null: Parquet has those of all Items in each."""
    if isinstance(value, dict):
        return {key: _drop_nulls(member) for key, member in value.items() if member is not None}
    return [_drop_nulls(member) for member in value] if isinstance(value, list) else value


def _check_row(item: dict[str, Any], number: int) -> Row:
    try:
        text = json.dumps(item, allow_nan=False, default=_format_value)
    except (TypeError, ValueError, RecursionError) as error:
        return Row(number, problem=f"it is not JSON ({_shorten(error)})")
    if len(text) > LARGEST_ITEM:
        return Row(number, problem=f"it has {len(text)} bytes as JSON, at most {LARGEST_ITEM} are indexed")
    if "\\u0000" in text:
        return Row(number, problem="a text has a character of code 0, which PostgreSQL does not store")
    document = json.loads(text)
    problem = _find_problem(document)
    return Row(number, document if problem is None else None, problem)


def _format_value(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise TypeError(f"{type(value).__name__} is not a type of JSON")


def _find_problem(item: dict[str, Any]) -> str | None:
    if not isinstance(item.get("id"), str) or not item["id"]:
        return "it has no id"
    if not isinstance(item.get("assets"), dict) or not item["assets"]:
        return "it has no assets"
    try:
        shape = shapely.geometry.shape(item["geometry"])
    except Exception as error:
        return f"its geometry is not valid ({_shorten(error)})"
    if shape.is_empty or shapely.get_num_coordinates(shape) > MOST_VERTICES:
        return "its geometry is empty or has too many vertices"
    west, south, east, north = shape.bounds
    if not all(map(math.isfinite, shape.bounds)) or south < -90 or north > 90 or west < -360 or east > 360:
        return f"its geometry is not in longitude and latitude: {shape.bounds}"
    return None


def make_item(document: dict[str, Any], folders: Sequence[Path]) -> pystac.Item:
    """Make the Item of a row; its assets must be in object stores, on the web, or in one of ``folders``.

    Raises:
        IndexingError: it is not a valid Item, or an asset is elsewhere.
    """
    item_id = str(document["id"])
    links = document.get("links")
    document = {
        **document,
        "type": "Feature",
        "links": [],
        "stac_version": document.get("stac_version", "1.0.0"),
    }
    for name, asset in document["assets"].items():
        if not isinstance(asset, dict) or not is_allowed_href(asset.get("href"), folders):
            href = str(asset.get("href") if isinstance(asset, dict) else asset)[:200]
            raise IndexingError(
                f"STAC Item {item_id}: asset '{name[:100]}' is at {href!r}; only URLs of the web and of "
                "object stores are indexed, and files in the folders that are allowed"
            )
    try:
        return pystac.Item.from_dict(
            document, href=_find_location(document, links), migrate=True, preserve_dict=False
        )
    except Exception as error:
        raise IndexingError(f"STAC Item {item_id} is not valid ({_shorten(error)})") from error


def _find_location(item: dict[str, Any], links: Any) -> str:
    """Find the URL of an Item: its link ``self``, else a name beside its first asset."""
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "self" and is_allowed_href(link.get("href"), ()):
            return str(link["href"])
    first = str(next(iter(item["assets"].values()))["href"]).partition("?")[0]
    return f"{first.rpartition('/')[0]}/{quote(str(item['id']), safe='')}.json"


def is_allowed_href(href: Any, folders: Sequence[Path]) -> bool:
    """Whether what a foreign file names may be indexed: GDAL would open anything else as well."""
    if not isinstance(href, str) or any(ord(character) < 32 for character in href):
        return False
    try:
        parts = urlsplit(href)
    except ValueError:
        return False
    path = unquote(parts.path)
    if ".." in path.split("/") or "\\" in path:
        return False
    if parts.scheme.lower() in SCHEMES:
        return bool(parts.netloc)
    if parts.scheme.lower() not in ("file", "") or parts.netloc or not path.startswith("/"):
        return False
    real = Path(posixpath.realpath(path))
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def _shorten(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
