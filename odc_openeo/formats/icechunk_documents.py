"""Metadata of Zarr arrays in a repository that others may have changed, compared before zarr reads any of it.

What the metadata of the existing cube claim is never believed: except for the number of dates and the size of
chunks, which are limited, all of it must be as in the cube that is appended, which this service has written.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from zarr.buffer import default_buffer_prototype

from odc_openeo.cube import T

METADATA: Final = "zarr.json"
MOST_ARRAYS: Final = 500
MOST_DOCUMENT_BYTES: Final = 2**20
MOST_DATES: Final = 100_000
MOST_CHUNK_BYTES: Final = 2**28
MOST_TEXT_BYTES: Final = 1024
EPOCH: Final = re.compile(r"(seconds|microseconds) since 1970-01-01(T00:00:00)?")
MICROSECONDS: Final = {"seconds": 1_000_000, "microseconds": 1}

Document = Mapping[str, Any]


class CubesDiffer(ValueError):
    """Dates can't be appended; the message is a sentence that says what differs, beginning with "it"."""


@dataclass(frozen=True)
class CubeDocuments:
    """The metadata documents of a group and of its arrays, by name; ``root`` is None if there is no group."""

    root: Document | None
    arrays: Mapping[str, Document]

    @property
    def dates(self) -> int:
        """The number of labels along t."""
        return int(self.arrays[T]["shape"][0]) if T in self.arrays else 0


def read_documents(store: Any) -> CubeDocuments:
    """Read the documents of a group at the top of a store.

    Raises:
        CubesDiffer: there are too many or too large ones, or what is there is no group of arrays.
    """
    return asyncio.run(_collect_documents(store))


async def _collect_documents(store: Any) -> CubeDocuments:
    root = await _read_document(store, METADATA)
    arrays: dict[str, Document] = {}
    async for entry in store.list_dir(""):
        name = str(entry).strip("/")
        if name == METADATA:
            continue
        if len(arrays) >= MOST_ARRAYS:
            raise CubesDiffer(f"it has more than {MOST_ARRAYS} arrays.")
        document = await _read_document(store, f"{name}/{METADATA}")
        if document is None or document.get("node_type") != "array":
            raise CubesDiffer(f"it has '{name[:100]}', which is not an array.")
        arrays[name] = document
    return CubeDocuments(root, arrays)


async def _read_document(store: Any, key: str) -> Document | None:
    content = await store.get(key, default_buffer_prototype())
    if content is None:
        return None
    if len(content) > MOST_DOCUMENT_BYTES:
        raise CubesDiffer("its metadata are too large.")
    try:
        document = json.loads(content.to_bytes())
    except (ValueError, RecursionError) as error:
        raise CubesDiffer("its metadata are not JSON.") from error
    if not isinstance(document, dict):
        raise CubesDiffer("its metadata are not objects.")
    return document


def write_documents(store: Any, documents: CubeDocuments) -> None:
    """Write documents into a store that has none."""

    async def write_all() -> None:
        entries = {METADATA: documents.root or {}}
        entries |= {f"{name}/{METADATA}": document for name, document in documents.arrays.items()}
        for key, document in entries.items():
            buffer = default_buffer_prototype().buffer.from_bytes(json.dumps(document).encode())
            await store.set(key, buffer)

    asyncio.run(write_all())


def compare_documents(source: CubeDocuments, target: CubeDocuments) -> None:
    """Compare the arrays of a cube with those of the cube that its dates are appended to.

    Raises:
        CubesDiffer: they differ in more than the number of dates and the size of chunks.
    """
    if source.arrays.keys() != target.arrays.keys():
        there, here = (", ".join(sorted(documents.arrays)) for documents in (target, source))
        raise CubesDiffer(
            f"it has the variables and coordinates {there[:500]}; this result has {here[:500]}."
        )
    for name, document in source.arrays.items():
        _compare_arrays(name, document, target.arrays[name])
    lengths = {
        document["shape"][list_dimensions(document).index(T)]
        for document in target.arrays.values()
        if T in list_dimensions(document)
    }
    if len(lengths) != 1:
        raise CubesDiffer("its variables do not have the same dates.")


def _compare_arrays(name: str, source: Document, target: Document) -> None:
    for key in ("dimension_names", "data_type"):
        if source.get(key) != target.get(key):
            what = {"dimension_names": "dimensions", "data_type": "type"}[key]
            raise CubesDiffer(_describe_difference(name, what, target.get(key), source.get(key)))
    _compare_shapes(name, source, target)
    if source.get("fill_value") != target.get("fill_value"):
        there, here = target.get("fill_value"), source.get("fill_value")
        raise CubesDiffer(_describe_difference(name, "no-data value", there, here))
    _compare_attributes(name, source["attributes"], target.get("attributes"))
    _check_chunks(name, source, target.get("chunk_grid"))
    handled = ("attributes", "shape", "chunk_grid")
    rest = [{k: v for k, v in document.items() if k not in handled} for document in (source, target)]
    if rest[0] != rest[1]:
        raise CubesDiffer(f"'{name}' is encoded in another way than this service does it.")


def _describe_difference(name: str, what: str, there: Any, here: Any) -> str:
    there, here = (json.dumps(value)[:200] for value in (there, here))
    return f"the {what} of '{name}' is {there} there, and {here} in this result."


def _compare_shapes(name: str, source: Document, target: Document) -> None:
    dims, shape = list_dimensions(source), target.get("shape")
    is_valid = (
        isinstance(shape, list) and len(shape) == len(dims) and all(type(size) is int for size in shape)
    )
    if not is_valid:
        raise CubesDiffer(f"'{name}' has no valid shape.")
    assert isinstance(shape, list)
    for dimension, there, here in zip(dims, shape, source["shape"], strict=True):
        if dimension != T and there != here:
            raise CubesDiffer(f"'{name}' has {there} labels along {dimension} there, {here} in this result.")
        if dimension == T and not 0 < there <= MOST_DATES:
            raise CubesDiffer(f"'{name}' has {there} dates; the limit is {MOST_DATES}.")


def _compare_attributes(name: str, source: Mapping[str, Any], target: Any) -> None:
    if not isinstance(target, Mapping):
        raise CubesDiffer(f"'{name}' has no attributes.")
    for key in sorted({*source, *target}):
        there, here = target.get(key), source.get(key)
        if there == here:
            continue
        if key == "units" and all(isinstance(u, str) and EPOCH.fullmatch(u) for u in (there, here)):
            continue
        raise CubesDiffer(_describe_difference(name, f"attribute '{key[:100]}'", there, here))


def _check_chunks(name: str, source: Document, grid: Any) -> None:
    """Check that chunks can be held in memory; ``source`` tells the type and the dimensions."""
    configuration = grid.get("configuration") if isinstance(grid, Mapping) else None
    sides = configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None
    is_valid = (
        isinstance(grid, Mapping)
        and grid.get("name") == "regular"
        and isinstance(sides, list)
        and len(sides) == len(list_dimensions(source))
        and all(type(side) is int and side > 0 for side in sides)
    )
    if not is_valid:
        raise CubesDiffer(f"'{name}' has no valid chunks.")
    assert isinstance(sides, list)
    if math.prod(sides) * find_item_bytes(source["data_type"]) > MOST_CHUNK_BYTES:
        raise CubesDiffer(f"the chunks of '{name}' are too large: {sides}.")


def find_item_bytes(data_type: Any) -> int:
    """Return the bytes of one value of a type as this service writes it; of texts of any length, the most."""
    if isinstance(data_type, Mapping):
        return int(data_type["configuration"].get("length_bytes", MOST_TEXT_BYTES))
    return MOST_TEXT_BYTES if data_type == "string" else np.dtype(data_type).itemsize


def find_time_unit(document: Document) -> int | None:
    """Return the microseconds of the unit of an array of times since 1970; None if it has no times."""
    units = document["attributes"].get("units")
    match = EPOCH.fullmatch(units) if isinstance(units, str) else None
    return None if match is None else MICROSECONDS[match[1]]


def list_dimensions(document: Document) -> list[str]:
    """List the names of the dimensions of an array; empty for a single value."""
    return list(document.get("dimension_names") or ())


def find_time_axis(document: Document) -> int | None:
    """Return the axis of t of an array; None if there is none."""
    dimensions = list_dimensions(document)
    return dimensions.index(T) if T in dimensions else None
