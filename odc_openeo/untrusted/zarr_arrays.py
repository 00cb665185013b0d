"""Arrays of Zarr stores that users name: their metadata and windows of their values, with limits to both.

`zarr` and `xarray` are not used: they allocate what metadata claim, load codecs by name, and read whatever a
store's address leads to. Here files are read only below the store, from a place of foreign files. ADR 21 has
the reasons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

import numpy as np

from odc_openeo.untrusted.rasters import LARGEST_BLOCK, RasterRefusedError
from odc_openeo.untrusted.strict_json import is_deeper_than
from odc_openeo.untrusted.zarr_codecs import Pipeline, parse_codecs, parse_compressor, parse_sizes

ENDING: Final = ".zarr"
MOST_METADATA_BYTES: Final = 16 * 2**20
LARGEST_WINDOW: Final = 2**30
"""Bytes of the pixels that are read at once."""
MOST_CHUNKS: Final = 4096
"""Chunks of a window."""
MOST_DIMENSIONS: Final = 4
TYPES: Final = frozenset(
    {
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64"),
    }
)
SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@runtime_checkable
class FilePlace(Protocol):
    """A place of foreign files whose content can be read."""

    def read_file(self, href: str, most: int) -> bytes | None:
        """Read a file; None if there is none.

        Raises:
            RasterRefusedError, UrlTooLarge: it is outside of the place, or has more than ``most`` bytes.
            UrlForbidden, UrlUnreachable: its URL cannot be read.
        """


@dataclass(frozen=True)
class ForeignArray:
    """The metadata of an array. ``grid_shape`` are the sizes of its last two dimensions, y and x.

    ``attributes`` are those of the array, ``group`` those of the group that it is in.
    """

    href: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    pipeline: Pipeline
    fill: Any
    separator: str
    prefix: str
    attributes: Mapping[str, Any]
    group: Mapping[str, Any]
    has_declared_fill: bool

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape[-2], self.shape[-1]

    def read_window(self, place: FilePlace, rows: slice, columns: slice) -> np.ndarray:
        """Read the values of a window of the grid, one chunk after the other.

        Raises:
            RasterRefusedError: it is too large, or a chunk is damaged.
            OpenEOError: a file cannot be read.
        """
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if height * width * self.dtype.itemsize > LARGEST_WINDOW:
            raise RasterRefusedError("too many of its pixels are needed at once. Load a finer resolution.")
        vertical = range(rows.start // self.chunks[-2], -(-rows.stop // self.chunks[-2]))
        horizontal = range(columns.start // self.chunks[-1], -(-columns.stop // self.chunks[-1]))
        if len(vertical) * len(horizontal) > MOST_CHUNKS:
            raise RasterRefusedError("it has chunks that are too small: too many are needed at once.")
        values = np.full((height, width), self.fill, self.dtype)
        for i in vertical:
            for j in horizontal:
                self._copy_chunk(place, (i, j), (rows, columns), values)
        return values

    def _copy_chunk(
        self, place: FilePlace, position: tuple[int, int], window: tuple[slice, slice], values: np.ndarray
    ) -> None:
        content = place.read_file(self._locate_chunk(position), LARGEST_BLOCK)
        if content is None:
            return
        chunk = self.pipeline.decode(content, self.chunks, self.dtype, self.fill)
        plane = chunk[(0,) * (chunk.ndim - 2)]
        inside, target = [], []
        for i, side, edge in zip(position, self.chunks[-2:], window, strict=True):
            start, stop = max(edge.start, i * side), min(edge.stop, (i + 1) * side)
            inside.append(slice(start - i * side, stop - i * side))
            target.append(slice(start - edge.start, stop - edge.start))
        values[tuple(target)] = plane[tuple(inside)]

    def _locate_chunk(self, position: tuple[int, int]) -> str:
        indices = [0] * (len(self.shape) - 2) + list(position)
        return join_href(self.href, f"{self.prefix}{self.separator.join(map(str, indices))}")


def join_href(href: str, name: str) -> str:
    """Make the address of a file below another one; the query of a URL stays, which may be a signature."""
    if not href.startswith(("http://", "https://")):
        return f"{href}/{name}"
    url, mark, query = href.partition("?")
    return f"{url.rstrip('/')}/{name}{mark}{query}"


def find_parent(href: str) -> str:
    """Find the address of the group that an array is in."""
    if not href.startswith(("http://", "https://")):
        return href.rpartition("/")[0]
    url, mark, query = href.partition("?")
    return f"{url.rpartition('/')[0]}{mark}{query}"


def is_zarr_href(href: str) -> bool:
    """Whether an address leads into a Zarr store: it is below a folder whose name ends on ``.zarr``."""
    try:
        parts = urlsplit(href).path.split("/")
    except ValueError:
        return False
    return any(part.lower().endswith(ENDING) for part in parts[:-1])


def open_array(href: str, place: Any) -> ForeignArray:
    """Read the metadata of an array of version 2 or 3.

    Raises:
        RasterRefusedError: there is none, or it is not an array of numbers that is safe to read.
        OpenEOError: it cannot be had.
    """
    if not isinstance(place, FilePlace):
        raise RasterRefusedError("it is a Zarr store, which cannot be read from this place.")
    href = href.rstrip("/")
    document = read_metadata(place, join_href(href, "zarr.json"))
    parent = find_parent(href)
    if document is not None:
        if document.get("node_type") != "array":
            raise RasterRefusedError("it is a group of a Zarr store. Name an array in it.")
        group = read_metadata(place, join_href(parent, "zarr.json")) or {}
        return _parse_version_3(href, document, _get_object(group, "attributes"))
    document = read_metadata(place, join_href(href, ".zarray"))
    if document is None:
        raise RasterRefusedError("there is no array of a Zarr store at this address.")
    attributes = read_metadata(place, join_href(href, ".zattrs")) or {}
    group = read_metadata(place, join_href(parent, ".zattrs")) or {}
    return _parse_version_2(href, document, attributes, group)


def read_attributes(place: FilePlace, href: str) -> Mapping[str, Any]:
    """Read the attributes of an array or group; empty if there are none."""
    document = read_metadata(place, join_href(href, "zarr.json"))
    if document is not None:
        return _get_object(document, "attributes")
    return read_metadata(place, join_href(href, ".zattrs")) or {}


def open_coordinates(href: str, place: FilePlace, size: int) -> np.ndarray | None:
    """Read a one-dimensional array of a known size; None if there is none of this size.

    Raises:
        RasterRefusedError: its metadata or chunks are damaged.
    """
    document = read_metadata(place, join_href(href, "zarr.json")) or read_metadata(
        place, join_href(href, ".zarray")
    )
    if document is None or document.get("shape") != [size] or size * 8 > MOST_METADATA_BYTES:
        return None
    line = {**document, "shape": [1, size]}
    if "node_type" in document:
        grid = _get_object(document, "chunk_grid")
        sides = _get_object(grid, "configuration").get("chunk_shape")
    else:
        sides = document.get("chunks")
    (side,) = parse_sizes(sides, 1)
    if "node_type" in document:
        line["chunk_grid"] = {"name": grid.get("name"), "configuration": {"chunk_shape": [1, side]}}
        array = _parse_version_3(href, line, {})
    else:
        array = _parse_version_2(href, {**line, "chunks": [1, side]}, {}, {})
    pieces = []
    for number in range(-(-size // side)):
        content = place.read_file(join_href(href, f"{array.prefix}{number}"), MOST_METADATA_BYTES)
        if content is None:
            return None
        pieces.append(array.pipeline.decode(content, (side,), array.dtype, array.fill))
    return np.concatenate(pieces)[:size].astype(np.float64)


def read_metadata(place: FilePlace, href: str) -> dict[str, Any] | None:
    """Read a JSON object, None if there is no such file; RasterRefusedError if it is not one."""
    content = place.read_file(href, MOST_METADATA_BYTES)
    if content is None:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RasterRefusedError("its metadata are not valid JSON.") from error
    if not isinstance(document, dict) or is_deeper_than(document):
        raise RasterRefusedError("its metadata are not an object of JSON, or nested too deeply.")
    return document


def _get_object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _parse_version_3(href: str, document: Mapping[str, Any], group: Mapping[str, Any]) -> ForeignArray:
    dtype = _parse_type(document.get("data_type"))
    shape = _parse_shape(document.get("shape"))
    grid = _get_object(document, "chunk_grid")
    if grid.get("name") != "regular" or document.get("storage_transformers"):
        raise RasterRefusedError("its chunks are not on a regular grid.")
    chunks = _parse_chunks(_get_object(grid, "configuration").get("chunk_shape"), shape, dtype)
    key = _get_object(document, "chunk_key_encoding")
    is_default = key.get("name", "default") == "default"
    separator = _get_object(key, "configuration").get("separator", "/" if is_default else ".")
    attributes = _get_object(document, "attributes")
    fill = document.get("fill_value")
    return ForeignArray(
        href,
        shape,
        chunks,
        dtype,
        parse_codecs(document.get("codecs"), chunks),
        _parse_fill(fill, dtype),
        _check_separator(separator),
        f"c{separator}" if is_default else "",
        attributes,
        group,
        False,
    )


def _parse_version_2(
    href: str, document: Mapping[str, Any], attributes: Mapping[str, Any], group: Mapping[str, Any]
) -> ForeignArray:
    code = document.get("dtype")
    dtype = _parse_type(code)
    shape = _parse_shape(document.get("shape"))
    chunks = _parse_chunks(document.get("chunks"), shape, dtype)
    if document.get("filters") or document.get("order", "C") != "C":
        raise RasterRefusedError("it has filters or is stored by columns, which is not supported.")
    pipeline = parse_compressor(document.get("compressor"))
    if isinstance(code, str) and code.startswith(">"):
        pipeline = Pipeline(pipeline.compressors, is_big_endian=True)
    fill = document.get("fill_value")
    separator = _check_separator(document.get("dimension_separator", "."))
    value = _parse_fill(fill, dtype)
    return ForeignArray(
        *(href, shape, chunks, dtype, pipeline, value, separator, "", attributes, group, fill is not None)
    )


def _check_separator(separator: Any) -> str:
    if separator not in ("/", "."):
        raise RasterRefusedError("the names of its chunks are not valid.")
    return str(separator)


def _parse_type(name: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.name not in TYPES:
        raise RasterRefusedError(f"its values are not real numbers but of type {str(name)[:50]!r}.")
    return dtype.newbyteorder("=")


def _parse_shape(value: Any) -> tuple[int, ...]:
    shape = parse_sizes(value)
    if not 2 <= len(shape) <= MOST_DIMENSIONS or any(size != 1 for size in shape[:-2]):
        raise RasterRefusedError(f"it has the shape {shape}, but rows and columns of one date are needed.")
    return shape


def _parse_chunks(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    chunks = parse_sizes(value, len(shape))
    if math.prod(chunks) * dtype.itemsize > LARGEST_BLOCK:
        raise RasterRefusedError(f"it has chunks of {chunks} values. Rewrite it with smaller ones.")
    return chunks


def _parse_fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """The value of chunks that are not stored, 0 if there is none."""
    value = 0 if value is None else SPECIAL.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, bool | int | float):
        raise RasterRefusedError("its fill value is not a number.")
    try:
        with np.errstate(over="raise", invalid="raise"):
            return dtype.type(value)
    except (OverflowError, ValueError, FloatingPointError) as error:
        raise RasterRefusedError("its fill value does not fit its type.") from error
