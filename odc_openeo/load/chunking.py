"""The size of a load: what is refused before anything is built, and the chunks that are read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from odc.geo.geobox import GeoBox, GeoboxTiles

from odc_openeo.catalog import Scene
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.registry.environment import RunLimits

CHUNK: Final = 2048
"""Longest side of a chunk in pixels: opening a file costs as much as decoding half a million pixels."""

BLOCK: Final = 1024
"""Blocks of Cloud Optimized GeoTIFFs have this side, or a half or a quarter of it."""

SPARSE_CHUNKS: Final = (512, 1024)
"""Sides of chunks where most of a grid is not needed: those that are not needed are never read."""

SPARSE: Final = 0.25
"""The part of a grid that may be needed of it if it is said to be sparse."""

MOST_SPARSE: Final = 6_000
"""Chunks that a sparse load may have: each takes time to be planned, read or not."""

SPARSE_BYTES: Final = 8 * 2**20
"""Dates are read together, as far as these small chunks stay below this."""


@dataclass(frozen=True)
class Volume:
    """The size of a load: pixels, dates and bands, from a number of datasets.

    ``side`` is the side of its chunks in pixels, ``depth`` the dates in each, ``part`` the share of chunks
    that are needed; ``version`` changes with anything known about these datasets and bands.
    """

    collection: str
    datasets: int
    width: int
    height: int
    dates: int
    bands: int
    itemsize: int
    side: int = field(default_factory=lambda: CHUNK)
    depth: int = 1
    part: float = 1.0
    version: str = field(default="", compare=False)

    @property
    def pixels(self) -> int:
        """Pixels of all dates and bands."""
        return self.width * self.height * self.dates * self.bands

    @property
    def bytes(self) -> int:
        """Bytes in memory of the chunks that are needed."""
        return math.ceil(self.pixels * self.itemsize * self.part)

    @property
    def chunks(self) -> int:
        """Pieces that are read one by one."""
        across, down = (math.ceil(n / self.side) for n in (self.width, self.height))
        return across * down * math.ceil(self.dates / self.depth) * self.bands

    @property
    def is_sparse(self) -> bool:
        """Whether few of its chunks are needed."""
        return self.side < CHUNK

    def split_small(self) -> Volume:
        """Split into smaller chunks, if it is more than one chunk and that does not make too many."""
        if max(self.width, self.height) <= CHUNK:
            return self
        smaller = (replace(self, side=side, depth=self._find_depth(side)) for side in SPARSE_CHUNKS)
        return next((volume for volume in smaller if volume.chunks <= MOST_SPARSE), self)

    def _find_depth(self, side: int) -> int:
        return max(1, min(self.dates, SPARSE_BYTES // (side * side * self.itemsize)))


def check_volume(volume: Volume, loaded: Sequence[Volume], limits: RunLimits) -> None:
    """Refuse a load that is too much together with what the graph has loaded before.

    Raises:
        ProcessGraphComplexity: the bytes or the chunks are over the limits.
    """
    size = volume.bytes + sum(v.bytes for v in loaded)
    chunks = volume.chunks + sum(v.chunks for v in loaded)
    if size > limits.load_bytes:
        excess = f"{size / 1e9:,.1f} GB, and {limits.load_bytes / 1e9:,.1f} GB may be read"
    elif chunks > limits.load_chunks:
        excess = f"{chunks:,} pieces of files, and {limits.load_chunks:,} may be read"
    else:
        return
    share = f" ({volume.part:.0%} of them)" if volume.part < 1 else ""
    cube_size = (
        f"{volume.width} x {volume.height} pixels{share}, {volume.bands} bands and {volume.dates} dates"
    )
    together = f", together with {len(loaded)} loads before it" if loaded else ""
    raise ProcessGraphComplexity(
        reason=f"load_collection would load {cube_size}{together}: {excess}. Choose a smaller "
        "spatial_extent, a shorter temporal_extent, fewer bands, or a coarser resolution with "
        "resample_spatial (near)."
    )


def cut_into_chunks(geobox: GeoBox, volume: Volume, offset: tuple[int, int]) -> GeoboxTiles:
    """Cut a grid into chunks as long as those of a volume, the first of which begin before the grid."""
    cuts = (
        _cut_axis(length, volume.side, before) for length, before in zip(geobox.shape.yx, offset, strict=True)
    )
    return GeoboxTiles(geobox, tuple(cuts))


def _cut_axis(length: int, side: int, before: int) -> tuple[int, ...]:
    ends = [*range(side - before % side, length, side), length]
    return tuple(end - start for start, end in itertools.pairwise([0, *ends]))


def find_block_offset(geobox: GeoBox, scenes: Sequence[Scene]) -> tuple[int, int]:
    """Row and column offset that aligns chunks of a grid with the blocks of the files.

    If it is one chunk, it reads each block once wherever it begins. Files that begin elsewhere (other tiles)
    may have their blocks read by several chunks.
    """
    grids = (s.grids["default"] for s in scenes)
    like = next((g for g in grids if g.crs == geobox.crs and g.resolution == geobox.resolution), None)
    if like is None:
        return 0, 0
    column, row = ~like.transform @ (geobox.transform.c, geobox.transform.f)
    height, width = geobox.shape.yx
    return (round(row) % BLOCK if height > CHUNK else 0), (round(column) % BLOCK if width > CHUNK else 0)
