"""GTiff: Cloud Optimized GeoTIFFs, one per date, with band names, no-data, statistics and overviews.

Layers of moderate size are encoded where their pixels are computed, so that only compressed files are
transferred. Chunks of large layers are streamed into a plain scratch GeoTIFF next to the result, from which
GDAL's COG driver makes the file (overviews and compression on all cores). odc-geo's parallel writer is not
used: it pads images to whole overview steps, so that they have more pixels than the cube, and writes an empty
tile where compression fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.windows import Window

from odc_openeo.cube import X, Y
from odc_openeo.cube.packing import Packing
from odc_openeo.errors import StorageFailure
from odc_openeo.formats import gtiff_options
from odc_openeo.formats.assets import describe_packing
from odc_openeo.formats.blocks import BATCH_BYTES, Region, stream_batches
from odc_openeo.formats.colors import Rgba
from odc_openeo.formats.file_names import make_safe_names
from odc_openeo.formats.gtiff_options import check_gtiff_options, joins_layers, make_palette, select_band_tags
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.raster import (
    Raster,
    check_files,
    check_raster,
    describe_placement,
    describe_times,
    find_layer_time,
)
from odc_openeo.formats.statistics import Statistics
from odc_openeo.formats.write_errors import as_storage_failure

MEDIA_TYPE: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
OPEN_FILES: Final = 64
SCRATCH_BLOCK: Final = 512
LAYER_BYTES: Final = 64 * 2**20
"""Largest layer that is encoded where it is computed: its worker holds about four copies of it."""
TOGETHER_BYTES: Final = 512 * 2**20
"""Most bytes of pixels, in all layers together, whose encoded files are held in memory here."""


def check_gtiff(data: Any) -> None:
    """Raise `FormatUnsuitable` unless it is a raster cube on an even grid, for not too many files."""
    check_raster(data, "GTiff")
    check_files(data, "GTiff")


def write_gtiff(data: xr.DataArray, target: Target, options: Options) -> list[Asset]:
    """Write one COG per date (and label of further dimensions) with all bands, or as the options say."""
    if options["separate_asset_per_band"] and data.nbytes <= BATCH_BYTES:
        (data,) = target.compute(data)
    whole, missing = Raster.from_cube(_cast_storable(data)).with_one_nodata("GTiff")
    rasters = _split_bands(whole) if options["separate_asset_per_band"] else [(whole, "")]
    assets: list[Asset] = []
    for raster, band in rasters:
        joined = raster.join_layers() if joins_layers(data, options) else raster
        for tile, number in _split_tiles(joined, options["split_size"]):
            suffix = "_".join(filter(None, (band, number)))
            written = _write_tile(tile, suffix, missing, target, options)
            assets += [replace(a, title=f"{band}: {a.title}") for a in written] if band else written
    if joins_layers(data, options):
        return [replace(asset, **describe_times(data)) for asset in assets]
    return assets


def _split_bands(raster: Raster) -> list[tuple[Raster, str]]:
    """Split a raster into single bands with their names for files."""
    names = make_safe_names([name or f"band-{i}" for i, name in enumerate(raster.names, 1)])
    return [
        (replace(raster, data=raster.data.isel({raster.band: [i]}), names=(raster.names[i],)), name)
        for i, name in enumerate(names)
    ]


def _split_tiles(raster: Raster, side: int) -> Iterator[tuple[Raster, str]]:
    """Yield tiles of the raster with row and column for their names; the raster itself if it is no larger."""
    height, width = raster.data.shape[-2:]
    if max(height, width) <= side:
        yield raster, ""
        return
    for row, top in enumerate(range(0, height, side)):
        for column, left in enumerate(range(0, width, side)):
            part = {Y: slice(top, top + side), X: slice(left, left + side)}
            yield replace(raster, data=raster.data.isel(part)), f"r{row}_c{column}"


def _write_tile(
    raster: Raster, tile_name: str, missing: Any, target: Target, options: Options
) -> list[Asset]:
    files = {
        index: _OutputFile(
            _LayerSpec.from_raster(raster, missing, labels, options),
            target.path("tif", *filter(None, (slug, tile_name))),
        )
        for index, labels, slug in raster.layers()
    }
    layer = math.prod(raster.data.shape[-3:]) * raster.data.dtype.itemsize
    if layer <= LAYER_BYTES and raster.data.nbytes <= TOGETHER_BYTES:
        _write_whole(raster, files, target)
    else:
        _write_streamed(raster, files, target)
    placement_fields = describe_placement(raster.geobox)
    return [file.make_asset(placement_fields) for file in files.values()]


def _cast_storable(data: xr.DataArray) -> xr.DataArray:
    stored = {"bool": "uint8", "float16": "float32"}.get(str(data.dtype))
    return data.astype(stored, keep_attrs=True) if stored else data


# --- Content of a file ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _LayerSpec:
    """The pixels of one file without their values: all that a worker needs to encode it.

    ``georeference`` and ``creation`` are options of rasterio and of GDAL's COG driver.
    """

    names: tuple[str, ...]
    packings: tuple[Packing, ...]
    shape: tuple[int, ...]
    dtype: str
    missing: Any
    labels: Mapping[str, Any]
    time: str | None
    georeference: Mapping[str, Any]
    creation: Mapping[str, Any]
    band_tags: Sequence[Mapping[str, str]] = ()
    palette: Mapping[int, Rgba] | None = None

    @classmethod
    def from_raster(
        cls, raster: Raster, missing: Any, labels: Mapping[str, Any], options: Options
    ) -> _LayerSpec:
        data = raster.data
        return cls(
            raster.names,
            tuple(raster.packings),
            data.shape[-3:],
            str(data.dtype),
            missing,
            labels,
            find_layer_time(data, labels),
            _describe_georeference(raster.geobox),
            _make_creation_options(data, options),
            select_band_tags(raster, options),
            make_palette(data.dtype, options),
        )

    @property
    def is_complex(self) -> bool:
        """Whether the pixels are complex numbers, which have neither no-data nor statistics."""
        return np.dtype(self.dtype).kind == "c"

    def profile(self) -> dict[str, Any]:
        """Make rasterio's options for a plain file."""
        count, height, width = self.shape
        return {
            "width": width,
            "height": height,
            "count": count,
            "dtype": self.dtype,
            "nodata": None if self.is_complex else self.missing,
            "photometric": "MINISBLACK",
            "alpha": "UNSPECIFIED",
            "interleave": "band",
            **self.georeference,
        }

    def write_metadata(self, file: Any, statistics: list[Statistics]) -> None:
        """Name the bands and write units, statistics and times into an open file."""
        for i, (name, band_statistics) in enumerate(zip(self.names, statistics, strict=True), 1):
            if name:
                file.set_band_description(i, name)
            if band_statistics.pixels:
                tags = {f"STATISTICS_{k.upper()}": repr(v) for k, v in band_statistics.to_dict().items()}
                file.update_tags(i, **tags)
        if not all(packing.is_empty for packing in self.packings):
            file.scales = [packing.scale or 1.0 for packing in self.packings]
            file.offsets = [packing.offset or 0.0 for packing in self.packings]
            file.units = [packing.unit or "" for packing in self.packings]
        self._write_options(file)
        tags = {str(k).upper(): str(v) for k, v in self.labels.items()}
        if self.time:
            tags["TIFFTAG_DATETIME"] = self.time[:19].replace("-", ":").replace("T", " ")
        file.update_tags(**tags)

    def _write_options(self, file: Any) -> None:
        """Write what options say about the bands: their metadata and their colours."""
        for i, tags in enumerate(self.band_tags, 1):
            gtiff_options.write_band_tags(file, i, tags)
        if self.palette is not None:
            file.write_colormap(1, self.palette)

    def statistics(self) -> list[Statistics]:
        """Make statistics for each band, of no pixels yet."""
        return [Statistics() for _ in self.names]

    def encode(self, values: np.ndarray) -> tuple[bytes, list[Statistics]]:
        """Encode pixels (bands, y, x) as a whole file, and compute their statistics."""
        statistics = self.statistics()
        if not self.is_complex:
            for band_statistics, band in zip(statistics, values, strict=True):
                band_statistics.add(band, self.missing)
        with MemoryFile() as scratch, MemoryFile() as cog:
            # GDAL's in-memory format loses the no-data value of large integers.
            with scratch.open(driver="GTiff", BIGTIFF="IF_SAFER", **self.profile()) as plain:
                plain.write(values)
                self.write_metadata(plain, statistics)
            _copy_as_cog(scratch.name, cog.name, self.creation)
            return bytes(cog.getbuffer()), statistics


def _copy_as_cog(plain: str | Path, target: str | Path, creation: Mapping[str, Any]) -> None:
    # GDAL would compress the overviews twice, the first time only to read them again at once.
    with rasterio.Env(COG_TMP_COMPRESSION="NONE"):
        rasterio.shutil.copy(plain, target, driver="COG", **creation)


def _describe_georeference(geobox: GeoBox | None) -> dict[str, Any]:
    if geobox is None:
        return {}
    georeference: dict[str, Any] = {"transform": Affine(*geobox.transform[:6])}
    if geobox.crs is not None:
        epsg = geobox.crs.to_epsg()
        georeference["crs"] = CRS.from_epsg(epsg) if epsg else CRS.from_wkt(geobox.crs.to_wkt())
    return georeference


def _make_creation_options(data: xr.DataArray, options: Options) -> dict[str, Any]:
    compress = options["compress"]
    height, width = data.shape[-2:]
    # A small image needs no large tiles.
    fitting = max(128, 16 * math.ceil(max(height, width) / 16))
    creation: dict[str, Any] = {
        "COMPRESS": compress,
        "BLOCKSIZE": min(options["blocksize"], fitting),
        "OVERVIEWS": options["overviews"],
        "OVERVIEW_RESAMPLING": options["overview_resampling"],
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
    }
    if options["overview_resampling"] == "AUTO":
        creation["OVERVIEW_RESAMPLING"] = "AVERAGE" if data.dtype.kind in "fc" else "NEAREST"
    if compress != "NONE" and data.dtype.kind != "c":
        creation["PREDICTOR"] = options["predictor"]
    level = options["level"]
    if level is None and compress == "DEFLATE" and data.dtype.kind in "iu" and data.dtype.itemsize == 2:
        # Their lower bits are noise: GDAL's default takes twice the time and saves 0.2 %.
        level = 3
    if level is not None and compress in ("DEFLATE", "ZSTD"):
        creation["LEVEL"] = level
    return creation


@dataclass
class _OutputFile:
    """A file to be written: its content, its path, and its statistics once they have been computed."""

    layer: _LayerSpec
    path: Path
    statistics: list[Statistics] = field(default_factory=list)

    def make_asset(self, placement_fields: Mapping[str, Any]) -> Asset:
        """Describe the file; ``placement_fields`` come from `describe_placement`."""
        layer = self.layer
        has_no_nodata = layer.missing is None or layer.is_complex
        missing = {} if has_no_nodata else {"nodata": "nan" if np.isnan(layer.missing) else layer.missing}
        bands = [
            {
                **({"name": name} if name else {}),
                "data_type": layer.dtype,
                **missing,
                **describe_packing(packing),
                **({"statistics": s.to_dict()} if s.pixels else {}),
            }
            for name, packing, s in zip(layer.names, layer.packings, self.statistics, strict=True)
        ]
        title = ", ".join(map(str, layer.labels.values())) or self.path.stem
        return Asset(self.path, MEDIA_TYPE, title, bands=bands, datetime=layer.time, **placement_fields)


Files = Mapping[tuple[int, ...], _OutputFile]
"""Files by the index of their layer: one number for each dimension except band, y and x."""

# --- Layers of moderate size ---------------------------------------------------------------------


def _write_whole(raster: Raster, files: Files, target: Target) -> None:
    """Encode the layers wherever they are computed."""
    # Layers encoded in parallel would only compete for cores with threads of their own.
    threads = {} if len(files) == 1 else {"NUM_THREADS": "1"}
    layers = {
        index: replace(file.layer, creation={**file.layer.creation, **threads})
        for index, file in files.items()
    }
    array = raster.data.data
    if dask.is_dask_collection(array):
        chunks = (*[(1,) * n for n in array.shape[:-3]], *[(n,) for n in array.shape[-3:]])
        encoded_blocks = array.rechunk(chunks, method="tasks").map_blocks(
            _encode_block,
            layers,
            dtype=object,
            chunks=tuple((1,) * len(c) for c in chunks),
            meta=np.empty(0, object),
        )
        (encoded,) = target.compute(encoded_blocks)
    else:
        encoded = {(*index, 0, 0, 0): layer.encode(array[index]) for index, layer in layers.items()}
    for index, file in files.items():
        content, file.statistics = encoded[(*index, 0, 0, 0)]
        file.path.write_bytes(content)


def _encode_block(
    block: np.ndarray, layers: Mapping[tuple[int, ...], _LayerSpec], block_id: tuple[int, ...] = ()
) -> np.ndarray:
    """Encode the single layer of a block; the file is in an object array with as many dimensions."""
    encoded = np.empty((1,) * block.ndim, object)
    encoded[(0,) * block.ndim] = layers[block_id[:-3]].encode(block[(0,) * (block.ndim - 3)])
    return encoded


# --- Large layers --------------------------------------------------------------------------------


def _write_streamed(raster: Raster, files: Files, target: Target) -> None:
    """Write all layers in parallel, or one half after the other if there are too many."""
    if len(files) > OPEN_FILES:
        for half, half_files in _split_half(raster, files):
            _write_streamed(half, half_files, target)
        return
    scratches: dict[tuple[int, ...], _Scratch] = {}
    try:
        for index, file in files.items():
            scratches[index] = _Scratch.create(file)
        stream_batches(
            raster.data, target.compute, lambda region, values: _write_region(scratches, region, values)
        )
        for scratch in scratches.values():
            scratch.finish()
    finally:
        for scratch in scratches.values():
            scratch.discard()


def _split_half(raster: Raster, files: Files) -> Iterator[tuple[Raster, dict[tuple[int, ...], _OutputFile]]]:
    sizes = raster.data.shape[: len(raster.outer)]
    axis = int(np.argmax(sizes))
    middle = sizes[axis] // 2
    for start, stop in ((0, middle), (middle, sizes[axis])):
        half = replace(raster, data=raster.data.isel({raster.outer[axis]: slice(start, stop)}))
        chosen = {
            (*index[:axis], index[axis] - start, *index[axis + 1 :]): file
            for index, file in files.items()
            if start <= index[axis] < stop
        }
        yield half, chosen


def _write_region(files: Mapping[tuple[int, ...], _Scratch], region: Region, values: np.ndarray) -> None:
    for inner in np.ndindex(values.shape[:-3]):
        index = tuple(r.start + i for r, i in zip(region[:-3], inner, strict=True))
        files[index].add(region[-3:], values[inner])


@dataclass
class _Scratch:
    """The open scratch GeoTIFF of a file to be written."""

    file: _OutputFile
    plain: Any

    @classmethod
    def create(cls, file: _OutputFile) -> _Scratch:
        _, height, width = file.layer.shape
        tiled = min(height, width) >= SCRATCH_BLOCK
        blocks = {"tiled": True, "blockxsize": SCRATCH_BLOCK, "blockysize": SCRATCH_BLOCK} if tiled else {}
        path = file.path.with_name(f".{file.path.name}.scratch")
        profile = file.layer.profile()
        with as_storage_failure():
            plain = rasterio.open(path, "w", driver="GTiff", BIGTIFF="IF_SAFER", **blocks, **profile)
        file.statistics = file.layer.statistics()
        return cls(file, plain)

    def add(self, region: Region, values: np.ndarray) -> None:
        """Write pixels (bands, y, x) to their window."""
        bands, ys, xs = region
        window = Window(xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start)
        with as_storage_failure():
            self.plain.write(values, indexes=list(range(bands.start + 1, bands.stop + 1)), window=window)
        if not self.file.layer.is_complex:
            for i, band in enumerate(values, bands.start):
                self.file.statistics[i].add(band, self.file.layer.missing)

    def finish(self) -> None:
        """Make the COG."""
        layer = self.file.layer
        scratch = Path(self.plain.name)
        with as_storage_failure():
            layer.write_metadata(self.plain, self.file.statistics)
            self.plain.close()
        # If the last blocks don't fit on the disk, GDAL only logs it; the file is too small then.
        if scratch.stat().st_size < math.prod(layer.shape) * np.dtype(layer.dtype).itemsize:
            raise StorageFailure()
        with as_storage_failure():
            _copy_as_cog(scratch, self.file.path, layer.creation)

    def discard(self) -> None:
        """Remove the scratch file."""
        self.plain.close()
        Path(self.plain.name).unlink(missing_ok=True)


GTIFF: Final = Format(
    name="GTiff",
    title="GeoTIFF (cloud optimized)",
    description=(
        "Raster cubes as Cloud Optimized GeoTIFFs. The bands of the cube are the bands of the file, named in "
        "their descriptions. Each date, and each label of any further dimension, becomes a file of its own; "
        "its name holds the date. Values keep their data type (booleans become 0 and 1 as uint8). If bands "
        "have different no-data values, all are stored in the next wider integer type with one no-data "
        "value. Statistics of all pixels and overviews are included."
    ),
    gis_data_types=["raster"],
    media_type=MEDIA_TYPE,
    extension="tif",
    write=write_gtiff,
    check=check_gtiff,
    check_options=check_gtiff_options,
    parameters=gtiff_options.PARAMETERS,
    synonyms=gtiff_options.SYNONYMS,
    value_synonyms=gtiff_options.VALUE_SYNONYMS,
    links=[{"rel": "about", "href": "https://gdal.org/drivers/raster/cog.html", "title": "GDAL on COG"}],
)
