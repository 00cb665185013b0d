"""GTiff: Cloud Optimized GeoTIFFs, one a date, with band names, no-data, statistics and overviews.

Chunks are streamed into a plain scratch GeoTIFF beside the result, from which GDAL's COG driver makes the
file
(overviews and compression on all cores). odc-geo's parallel writer is not used: it pads images to whole
overview steps, so that they are no longer the pixels asked for, and writes an empty tile where compression
fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.windows import Window

from odc_openeo.cube import X, Y
from odc_openeo.errors import StorageFailure
from odc_openeo.formats.blocks import Region, stream
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.raster import Raster, check_raster, layer_time, placement
from odc_openeo.formats.storing import storing

MEDIA_TYPE: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
OPEN_FILES: Final = 64
SCRATCH_BLOCK: Final = 512


def check(data: Any) -> None:
    """Raster cubes on an even grid."""
    check_raster(data, "GTiff")


def write(data: xr.DataArray, target: Target, options: Options) -> list[Asset]:
    """One COG for each date (and each label of other dimensions); the bands are the bands of the file."""
    raster, missing = Raster.of(_storable(data)).with_one_nodata("GTiff")
    assets = []
    for tile, place in _tiles(raster, options["tile_size"]):
        slugs = {index: slug for index, _, slug in raster.layers()}
        paths = {i: target.path("tif", *filter(None, (slug, place))) for i, slug in slugs.items()}
        assets += _write(tile, missing, target, options, paths)
    return assets


def _tiles(raster: Raster, side: int) -> Iterator[tuple[Raster, str]]:
    """The raster itself if it is no larger than a tile, else tiles of it with row and column as text."""
    height, width = raster.data.shape[-2:]
    if max(height, width) <= side:
        yield raster, ""
        return
    for row, top in enumerate(range(0, height, side)):
        for column, left in enumerate(range(0, width, side)):
            part = {Y: slice(top, top + side), X: slice(left, left + side)}
            yield replace(raster, data=raster.data.isel(part)), f"r{row}_c{column}"


def _storable(data: xr.DataArray) -> xr.DataArray:
    stored = {"bool": "uint8", "float16": "float32"}.get(str(data.dtype))
    return data.astype(stored, keep_attrs=True) if stored else data


def _write(
    raster: Raster, missing: Any, target: Target, options: Options, paths: Mapping[tuple[int, ...], Path]
) -> list[Asset]:
    """Write all layers side by side, or half of them after the other if there are too many."""
    if len(paths) > OPEN_FILES:
        halves = _halves(raster, paths)
        return [asset for half, of in halves for asset in _write(half, missing, target, options, of)]
    files: dict[tuple[int, ...], _File] = {}
    try:
        for index, found, _ in raster.layers():
            files[index] = _File.create(raster, missing, paths[index], found)
        stream(raster.data, target.compute, lambda region, values: _consume(files, region, values))
        return [file.finish(options) for file in files.values()]
    finally:
        for file in files.values():
            file.discard()


def _halves(
    raster: Raster, paths: Mapping[tuple[int, ...], Path]
) -> Iterator[tuple[Raster, dict[tuple[int, ...], Path]]]:
    sizes = raster.data.shape[: len(raster.others)]
    axis = int(np.argmax(sizes))
    middle = sizes[axis] // 2
    for start, stop in ((0, middle), (middle, sizes[axis])):
        half = replace(raster, data=raster.data.isel({raster.others[axis]: slice(start, stop)}))
        chosen = {
            (*index[:axis], index[axis] - start, *index[axis + 1 :]): path
            for index, path in paths.items()
            if start <= index[axis] < stop
        }
        yield half, chosen


def _consume(files: Mapping[tuple[int, ...], _File], region: Region, values: np.ndarray) -> None:
    for inner in np.ndindex(values.shape[:-3]):
        index = tuple(r.start + i for r, i in zip(region[:-3], inner, strict=True))
        files[index].add(region[-3:], values[inner])


@dataclass
class _Statistics:
    """Count, mean and spread of a band, put together from pieces (Chan et al. 1979)."""

    pixels: int = 0
    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray, missing: Any) -> None:
        """Take in more pixels of the band."""
        self.pixels += values.size
        good = values[_good(values, missing)]
        if good.size == 0:
            return
        numbers = good.astype(np.float64)
        mean, count = float(numbers.mean()), self.count + good.size
        numbers -= mean
        delta = mean - self.mean
        self.squares += float(np.dot(numbers, numbers)) + delta**2 * self.count * good.size / count
        self.mean += delta * good.size / count
        self.count = count
        self.minimum = min(self.minimum, good.min().item())
        self.maximum = max(self.maximum, good.max().item())

    def to_dict(self) -> dict[str, float]:
        """Names as in STAC; only the share of valid pixels if there are none."""
        percent = {"valid_percent": 100 * self.count / self.pixels if self.pixels else 0.0}
        if not self.count:
            return percent
        spread = math.sqrt(self.squares / self.count)
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.mean,
            "stddev": spread,
            **percent,
        }


def _good(values: np.ndarray, missing: Any) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.isfinite(values)
    return np.ones(values.shape, bool) if missing is None else values != missing


@dataclass
class _File:
    """A file in the making: the open scratch GeoTIFF and the statistics so far."""

    raster: Raster
    missing: Any
    path: Path
    labels: Mapping[str, Any]
    scratch: Any
    statistics: list[_Statistics]

    @classmethod
    def create(cls, raster: Raster, missing: Any, path: Path, found: Mapping[str, Any]) -> _File:
        count, height, width = raster.data.shape[-3:]
        tiled = min(height, width) >= SCRATCH_BLOCK
        blocks = {"tiled": True, "blockxsize": SCRATCH_BLOCK, "blockysize": SCRATCH_BLOCK} if tiled else {}
        with storing():
            scratch = rasterio.open(
                path.with_name(f".{path.name}.scratch"),
                "w",
                driver="GTiff",
                width=width,
                height=height,
                count=count,
                dtype=raster.data.dtype,
                nodata=None if raster.data.dtype.kind == "c" else missing,
                photometric="MINISBLACK",
                alpha="UNSPECIFIED",
                interleave="band",
                BIGTIFF="IF_SAFER",
                **blocks,
                **_georeference(raster.geobox),
            )
        return cls(raster, missing, path, found, scratch, [_Statistics() for _ in range(count)])

    def add(self, region: Region, values: np.ndarray) -> None:
        """Write pixels (bands, y, x) at their place."""
        bands, ys, xs = region
        window = Window(xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start)
        with storing():
            self.scratch.write(values, indexes=list(range(bands.start + 1, bands.stop + 1)), window=window)
        if values.dtype.kind != "c":
            for i, band in enumerate(values, bands.start):
                self.statistics[i].add(band, self.missing)

    def finish(self, options: Options) -> Asset:
        """Make the COG and describe it."""
        scratch = Path(self.scratch.name)
        with storing():
            self._describe()
            self.scratch.close()
        data = self.raster.data
        pixels = math.prod(data.shape[-3:]) * data.dtype.itemsize
        # GDAL only logs when the last blocks don't fit on the disk; the size tells.
        if scratch.stat().st_size < pixels:
            raise StorageFailure()
        with storing():
            rasterio.shutil.copy(scratch, self.path, driver="COG", **_creation_options(data, options))
        return self._asset()

    def discard(self) -> None:
        """Remove the scratch file."""
        self.scratch.close()
        Path(self.scratch.name).unlink(missing_ok=True)

    @property
    def _time(self) -> str | None:
        return layer_time(self.raster.data, self.labels)

    def _describe(self) -> None:
        for i, (name, statistics) in enumerate(zip(self.raster.names, self.statistics, strict=True), 1):
            if name:
                self.scratch.set_band_description(i, name)
            if statistics.pixels:
                found = statistics.to_dict()
                self.scratch.update_tags(i, **{f"STATISTICS_{k.upper()}": repr(v) for k, v in found.items()})
        tags = {str(k).upper(): str(v) for k, v in self.labels.items()}
        if self._time:
            tags["TIFFTAG_DATETIME"] = self._time[:19].replace("-", ":").replace("T", " ")
        self.scratch.update_tags(**tags)

    def _asset(self) -> Asset:
        nothing = self.missing is None or self.raster.data.dtype.kind == "c"
        missing = {} if nothing else {"nodata": "nan" if np.isnan(self.missing) else self.missing}
        bands = [
            {
                **({"name": name} if name else {}),
                "data_type": str(self.raster.data.dtype),
                **missing,
                **({"statistics": s.to_dict()} if s.pixels else {}),
            }
            for name, s in zip(self.raster.names, self.statistics, strict=True)
        ]
        title = ", ".join(map(str, self.labels.values())) or self.path.stem
        where = placement(self.raster.geobox)
        return Asset(self.path, MEDIA_TYPE, title, bands=bands, datetime=self._time, **where)


def _georeference(geobox: GeoBox | None) -> dict[str, Any]:
    if geobox is None:
        return {}
    found: dict[str, Any] = {"transform": Affine(*geobox.transform[:6])}
    if geobox.crs is not None:
        epsg = geobox.crs.to_epsg()
        found["crs"] = CRS.from_epsg(epsg) if epsg else CRS.from_wkt(geobox.crs.to_wkt())
    return found


def _creation_options(data: xr.DataArray, options: Options) -> dict[str, Any]:
    compress = options["compress"]
    height, width = data.shape[-2:]
    # A small image needs no large tile around it.
    fitting = max(128, 16 * math.ceil(max(height, width) / 16))
    found: dict[str, Any] = {
        "COMPRESS": compress,
        "BLOCKSIZE": min(options["blocksize"], fitting),
        "OVERVIEWS": options["overviews"],
        "OVERVIEW_RESAMPLING": options["overview_resampling"],
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
    }
    if options["overview_resampling"] == "AUTO":
        found["OVERVIEW_RESAMPLING"] = "AVERAGE" if data.dtype.kind in "fc" else "NEAREST"
    if compress != "NONE" and data.dtype.kind != "c":
        found["PREDICTOR"] = options["predictor"]
    if options["level"] is not None and compress in ("DEFLATE", "ZSTD"):
        found["LEVEL"] = options["level"]
    return found


GTIFF: Final = Format(
    name="GTiff",
    title="GeoTIFF (cloud optimized)",
    description=(
        "Raster cubes as Cloud Optimized GeoTIFFs. The bands of the cube are the bands of the file, named "
        "in their "
        "descriptions. Each date, and each label of any further dimension, becomes a file of its own; its "
        "name "
        "holds the date. Values keep their data type (booleans become 0 and 1 as uint8). If bands have "
        "different "
        "no-data values, all are stored in the next wider integer type with one no-data value. Statistics of "
        "all pixels and overviews are included."
    ),
    gis_data_types=["raster"],
    media_type=MEDIA_TYPE,
    extension="tif",
    write=write,
    check=check,
    parameters={
        "compress": {
            "type": "string",
            "description": "The compression; all of them keep values exactly.",
            "enum": ["DEFLATE", "ZSTD", "LZW", "NONE"],
            "default": "DEFLATE",
        },
        "level": {
            "type": "integer",
            "description": "How hard DEFLATE or ZSTD compress, from 1 (quick) to 9 (small).",
            "minimum": 1,
            "maximum": 9,
        },
        "predictor": {
            "type": "string",
            "description": "Whether differences of neighbouring pixels are compressed, which mostly is "
            "smaller.",
            "enum": ["YES", "NO"],
            "default": "YES",
        },
        "blocksize": {
            "type": "integer",
            "description": "Width and height of the tiles in pixels; images smaller than that get a "
            "smaller one.",
            "enum": [128, 256, 512, 1024, 2048],
            "default": 512,
        },
        "tile_size": {
            "type": "integer",
            "description": "Images with a longer side are written as several files of at most so many "
            "pixels a side; _r0_c0 and so on in their names are row and column, from the north and the west.",
            "minimum": 256,
            "maximum": 1_000_000,
            "default": 32_768,
        },
        "overviews": {
            "type": "string",
            "description": "AUTO: images larger than a tile get overviews, NONE: no overviews.",
            "enum": ["AUTO", "NONE"],
            "default": "AUTO",
        },
        "overview_resampling": {
            "type": "string",
            "description": "How overviews are made. AUTO: AVERAGE for floats, NEAREST for integers.",
            "enum": ["AUTO", "NEAREST", "AVERAGE", "BILINEAR", "CUBIC", "MODE", "RMS"],
            "default": "AUTO",
        },
    },
    links=[{"rel": "about", "href": "https://gdal.org/drivers/raster/cog.html", "title": "GDAL on COG"}],
)
