"""Decode chunks of Zarr arrays that users name: a few codecs, and never more bytes than a chunk has.

Nothing here looks up codecs by the names in a file: `zarr` would import whatever is registered, and
decompress what it is told without a limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numcodecs import blosc

from odc_openeo.untrusted.rasters import RasterRefusedError

BLOSC_HEADER: Final = 16
COMPRESSORS: Final = frozenset({"blosc", "zstd", "gzip", "zlib", "lz4"})
CHECKSUM_BYTES: Final = 4
NO_CHUNK: Final = 2**64 - 1
MOST_INNER_CHUNKS: Final = 2**20
"""Chunks of a shard, whose index has 16 bytes for each."""


@dataclass(frozen=True)
class Pipeline:
    """How bytes become the values of a chunk: codecs in the order of decoding, and the order of bytes.

    ``inner`` is the pipeline of the chunks of a shard, ``index`` that of its index, at its start or end.
    """

    compressors: tuple[str, ...]
    is_big_endian: bool = False
    inner: Pipeline | None = None
    inner_shape: tuple[int, ...] = ()
    index: Pipeline | None = None
    is_index_first: bool = False

    def decode(self, content: bytes, shape: Sequence[int], dtype: np.dtype[Any], fill: Any) -> np.ndarray:
        """Decode a chunk.

        Raises:
            RasterRefusedError: it is damaged, or has more or fewer bytes than its shape says.
        """
        if self.inner is not None:
            return self._decode_shard(content, shape, dtype, fill)
        size = int(np.prod(shape)) * dtype.itemsize
        for name in self.compressors:
            # A checksum follows what it is of, which may be compressed itself.
            content = remove_checksum(content) if name == "crc32c" else decompress_bytes(name, content, size)
        if len(content) != size:
            raise RasterRefusedError(f"a chunk has {len(content)} bytes instead of {size}.")
        stored = dtype.newbyteorder(">") if self.is_big_endian else dtype.newbyteorder("<")
        return np.frombuffer(content, stored).reshape(shape).astype(dtype)

    def _decode_shard(
        self, content: bytes, shape: Sequence[int], dtype: np.dtype[Any], fill: Any
    ) -> np.ndarray:
        """Decode the chunks of a shard; those that are not in it have the fill value."""
        assert self.inner is not None
        assert self.index is not None
        counts = [size // side for size, side in zip(shape, self.inner_shape, strict=True)]
        size = 16 * int(np.prod(counts)) + CHECKSUM_BYTES * self.index.compressors.count("crc32c")
        if size > len(content):
            raise RasterRefusedError("the index of a shard is incomplete.")
        encoded = content[:size] if self.is_index_first else content[-size:]
        places = self.index.decode(encoded, (*counts, 2), np.dtype("uint64"), 0)
        values = np.full(shape, fill, dtype)
        for position in np.ndindex(*counts):
            start, length = map(int, places[position])
            if start == length == NO_CHUNK:
                continue
            if start + length > len(content):
                raise RasterRefusedError("a chunk of a shard lies outside of it.")
            region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(position, self.inner_shape, strict=True))
            values[region] = self.inner.decode(content[start : start + length], self.inner_shape, dtype, fill)
        return values


def remove_checksum(content: bytes) -> bytes:
    """Remove a checksum from the end; values that a checksum would refuse are the author's own."""
    if len(content) < CHECKSUM_BYTES:
        raise RasterRefusedError("a chunk is incomplete.")
    return content[:-CHECKSUM_BYTES]


def decompress_bytes(name: str, content: bytes, size: int) -> bytes:
    """Decompress bytes of a known size; what has another is refused before memory is taken for it.

    Raises:
        RasterRefusedError: they are damaged, or have another size.
    """
    try:
        if name == "blosc":
            return _decompress_blosc(content, size)
        if name in ("gzip", "zlib"):
            return _inflate_bytes(content, size, 31 if name == "gzip" else zlib.MAX_WBITS)
        if name == "lz4":
            (claimed,) = struct.unpack_from("<I", content)
            if claimed != size:
                raise RasterRefusedError(f"a chunk claims {claimed} bytes instead of {size}.")
            return pa.decompress(content[4:], size, codec="lz4_raw", asbytes=True)
        return pa.decompress(content, size, codec="zstd", asbytes=True)
    except RasterRefusedError:
        raise
    except (OSError, ValueError, RuntimeError, struct.error, zlib.error, pa.ArrowException) as error:
        raise RasterRefusedError("a chunk is damaged, or has another size than its shape says.") from error


def _inflate_bytes(content: bytes, size: int, window_bits: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    values = inflater.decompress(content, size + 1)
    if len(values) != size or inflater.unconsumed_tail:
        raise RasterRefusedError(f"a chunk has another size than {size} bytes.")
    return values


def _decompress_blosc(content: bytes, size: int) -> bytes:
    if len(content) < BLOSC_HEADER:
        raise RasterRefusedError("a chunk is incomplete.")
    claimed, _, compressed = struct.unpack_from("<III", content, 4)
    if claimed != size or compressed != len(content):
        raise RasterRefusedError(f"a chunk claims {claimed} bytes instead of {size}.")
    return bytes(blosc.decompress(content))


# --- Metadata of codecs --------------------------------------------------------------------------


def parse_compressor(document: Any) -> Pipeline:
    """Parse the compressor of Zarr version 2; RasterRefusedError for unknown ones."""
    if document is None:
        return Pipeline(())
    name = document.get("id") if isinstance(document, Mapping) else document
    return Pipeline((_check_name(name),))


def parse_codecs(documents: Any, chunk_shape: Sequence[int], *, is_nested: bool = False) -> Pipeline:
    """Parse the codecs of Zarr version 3.

    Raises:
        RasterRefusedError: a codec is unknown or not allowed, or its configuration is not valid.
    """
    if not isinstance(documents, list) or not 1 <= len(documents) <= 8:
        raise RasterRefusedError("its list of codecs is not valid.")
    (kind, configuration), *compressors = [_parse_codec(document) for document in documents]
    names = tuple(_check_name(name, "crc32c") for name, _ in reversed(compressors))
    if kind == "bytes":
        order = configuration.get("endian", "little")
        if order not in ("little", "big"):
            raise RasterRefusedError("the byte order of its codec 'bytes' is not valid.")
        return Pipeline(names, order == "big")
    if kind != "sharding_indexed" or is_nested or names:
        raise RasterRefusedError(f"its codec '{str(kind)[:50]}' is not supported here.")
    return _parse_sharding(configuration, chunk_shape)


def _parse_sharding(configuration: Mapping[str, Any], chunk_shape: Sequence[int]) -> Pipeline:
    inner = parse_sizes(configuration.get("chunk_shape"), len(chunk_shape))
    is_whole = all(shard % side == 0 for shard, side in zip(chunk_shape, inner, strict=True))
    if not is_whole or np.prod([s // n for s, n in zip(chunk_shape, inner, strict=True)]) > MOST_INNER_CHUNKS:
        raise RasterRefusedError("its shards are not whole numbers of chunks, or have too many.")
    index = parse_codecs(configuration.get("index_codecs"), chunk_shape, is_nested=True)
    if set(index.compressors) - {"crc32c"}:
        raise RasterRefusedError("the index of its shards is compressed.")
    return Pipeline(
        (),
        inner=parse_codecs(configuration.get("codecs"), inner, is_nested=True),
        inner_shape=inner,
        index=index,
        is_index_first=configuration.get("index_location", "end") == "start",
    )


def _parse_codec(document: Any) -> tuple[Any, Mapping[str, Any]]:
    if isinstance(document, str):
        return document, {}
    configuration = document.get("configuration", {}) if isinstance(document, Mapping) else None
    if not isinstance(configuration, Mapping):
        raise RasterRefusedError("its list of codecs is not valid.")
    return document.get("name"), configuration


def _check_name(name: Any, *others: str) -> str:
    if not isinstance(name, str) or name not in COMPRESSORS | {*others}:
        allowed = ", ".join(sorted(COMPRESSORS))
        raise RasterRefusedError(f"its codec '{str(name)[:50]}' is not supported, only {allowed}.")
    return name


def parse_sizes(value: Any, count: int | None = None) -> tuple[int, ...]:
    """Parse the sizes of an array or its chunks; RasterRefusedError unless they are whole and positive."""
    is_valid = (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(type(size) is int and 0 < size < 2**31 for size in value)
    )
    if not is_valid:
        raise RasterRefusedError("its shape or that of its chunks is not valid.")
    return tuple(value)
