"""PNG and JPEG: values are shades as they are, from 0 (black) to 255 (white); nothing is stretched."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import xarray as xr
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from odc_openeo.cube import valid
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.colors import put_on_white
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.palettes import (
    COLORMAP,
    MOST_VALUES,
    make_blended_table,
    make_colormap_error,
    parse_palette,
)
from odc_openeo.formats.pieces import SPLITTING
from odc_openeo.formats.raster import (
    Raster,
    check_files,
    check_raster,
    describe_placement,
    find_band_dimension,
    find_layer_time,
)
from odc_openeo.formats.write_errors import as_storage_failure

PIXELS: Final = 64 * 2**20
"""Most pixels of a picture, which is assembled in memory."""


def check_picture(data: Any, format_: str, bands: tuple[int, ...]) -> None:
    """Raise `FormatUnsuitable` for a wrong number of bands, or a cube that is too large or not a raster."""
    check_raster(data, format_)
    check_files(data, format_)
    band = find_band_dimension(data)
    count = data.sizes[band] if band else 1
    if count not in bands:
        band_counts = ", ".join(map(str, bands))
        reason = f"it has {count} bands; {band_counts} are possible. Choose bands with filter_bands."
        raise FormatUnsuitable(format=format_, reason=reason)
    if data.dtype.kind == "c":
        raise FormatUnsuitable(format=format_, reason="its values are complex numbers.")
    height, width = data.sizes["y"], data.sizes["x"]
    if height * width > PIXELS:
        reason = f"{width} x {height} pixels are too many. Use GTiff, or resample_spatial to coarser pixels."
        raise FormatUnsuitable(format=format_, reason=reason)


@dataclass(frozen=True)
class _Style:
    """How values become colours: the type of the shades, and the colours of a single band by shade.

    With ``only_listed`` other values than those of the table are transparent; else values beyond the range
    of the type are cut off.
    """

    dtype: np.dtype[Any]
    table: np.ndarray | None = None
    only_listed: bool = False

    @property
    def highest(self) -> int:
        """The highest shade."""
        return int(np.iinfo(self.dtype).max)


def _make_style(data: xr.DataArray, options: Options) -> _Style:
    """Make the style of options.

    Raises:
        ProcessParameterInvalid: a colour is not valid, or the cube has several bands to colour.
    """
    dtype, colormap = np.dtype(options.get("datatype", "uint8")), options["colormap"]
    if colormap is None:
        return _Style(dtype)
    if dtype != np.uint8:
        raise make_colormap_error("it needs the datatype uint8: a colour has 8 bits per channel.")
    band = find_band_dimension(data)
    if band and data.sizes[band] != 1:
        raise make_colormap_error(f"it needs a cube with one band; this one has {data.sizes[band]}.")
    palette = parse_palette(colormap)
    if palette is None:
        return _Style(dtype, make_blended_table(colormap, 256))
    table = np.zeros((MOST_VALUES, 4), np.uint8)
    table[list(palette)] = list(palette.values())
    return _Style(np.dtype("uint16"), table, only_listed=True)


def check_picture_options(data: xr.DataArray, options: Options) -> None:
    """Check that the colour map is valid and the cube has one band for it."""
    _make_style(data, options)


def _write_pictures(
    data: xr.DataArray, target: Target, options: Options, *, extension: str, media_type: str
) -> list[Asset]:
    """Write one picture per date and label of further dimensions."""
    raster = Raster.from_cube(data)
    style = _make_style(data, options)
    assets = []
    for index, labels, slug in raster.layers():
        layer = raster.data.isel(dict(zip(raster.outer, index, strict=True)))
        path = target.path(extension, *([slug] if slug else []))
        shades, has_data = _compute_shades(layer, target, style)
        _save_channels(_make_channels(shades, has_data, style), path, options)
        title = ", ".join(map(str, labels.values())) or path.stem
        assets.append(
            Asset(
                path,
                media_type,
                title,
                roles=("visual",),
                bands=[{"name": n} for n in raster.names if n],
                datetime=find_layer_time(raster.data, labels),
                **describe_placement(raster.geobox),
            )
        )
    return assets


def _compute_shades(layer: xr.DataArray, target: Target, style: _Style) -> tuple[np.ndarray, np.ndarray]:
    """Compute the shades (y, x, bands), and where all bands have data (y, x)."""
    bands, height, width = layer.shape
    shades = np.zeros((height, width, bands), style.dtype)
    has_data = np.ones((height, width), bool)

    def consume(region: Any, values: np.ndarray) -> None:
        band, y, x = region
        piece = layer.isel(dict(zip(layer.dims, region, strict=True))).copy(data=values)
        good = valid(piece).values
        rounded = np.rint(np.where(good, values, 0))
        whole = np.clip(rounded, 0, style.highest)
        if style.only_listed:
            good = good & (rounded == whole)
        shades[y, x, band] = np.moveaxis(whole.astype(style.dtype), 0, -1)
        has_data[y, x] &= good.all(axis=0)

    stream_batches(layer, target.compute, consume)
    return shades, has_data


def _make_channels(shades: np.ndarray, has_data: np.ndarray, style: _Style) -> np.ndarray:
    """Make grey or colours, and opacity unless all is opaque: the channels of a picture (y, x, channels)."""
    if style.table is not None:
        shades = style.table[shades[..., 0]]
        if has_data.all() and (shades[..., 3] == 255).all():
            shades = shades[..., :3]
    opaque = np.iinfo(shades.dtype).max
    if shades.shape[-1] == 4:
        shades[..., 3][~has_data] = 0
    elif not has_data.all():
        shades = np.dstack([shades, np.where(has_data, opaque, 0).astype(shades.dtype)])
    return shades


def _save_channels(channels: np.ndarray, path: Path, options: Options) -> None:
    if channels.dtype == np.uint16:
        _save_deep_png(channels, path, options["compress_level"])
        return
    image = Image.fromarray(channels[..., 0] if channels.shape[-1] == 1 else channels)
    if "quality" in options:
        put_on_white(image).save(path, format="JPEG", quality=options["quality"])
    else:
        image.save(path, format="PNG", compress_level=options["compress_level"])


def _save_deep_png(channels: np.ndarray, path: Path, level: int) -> None:
    """Save a PNG of 16 bits per channel, which Pillow has for grey pictures only."""
    height, width, count = channels.shape
    profile = {"width": width, "height": height, "count": count, "dtype": "uint16", "zlevel": level}
    with warnings.catch_warnings(), as_storage_failure():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="PNG", **profile) as file:
            file.write(np.moveaxis(channels, -1, 0))


def _describe_pictures(bands: str, missing: str) -> str:
    return (
        f"Raster cubes as pictures, one per date. {bands} Values are taken as shades from 0 to 255, rounded, "
        f"and clipped to that range; use linear_scale_range to scale values first. {missing}"
    )


PNG: Final = Format(
    name="PNG",
    title="Portable Network Graphics",
    description=_describe_pictures(
        "One band is grey (or has a colormap), three bands are red, green and blue, a fourth is opacity.",
        "Pixels without data are transparent.",
    ),
    gis_data_types=["raster"],
    media_type="image/png",
    extension="png",
    write=partial(_write_pictures, extension="png", media_type="image/png"),
    check=partial(check_picture, format_="PNG", bands=(1, 3, 4)),
    parameters={
        "colormap": COLORMAP,
        "compress_level": {
            "type": "integer",
            "description": "The compression level, from 0 (fast) to 9 (small: about a sixth smaller than 1).",
            "minimum": 0,
            "maximum": 9,
            "default": 1,
        },
        "datatype": {
            "type": "string",
            "description": (
                "uint8 (also 'byte'): values are shades from 0 to 255. uint16: from 0 to 65535, with 16 bits "
                "per channel."
            ),
            "enum": ["uint8", "uint16"],
            "default": "uint8",
        },
        **SPLITTING,
    },
    check_options=check_picture_options,
    synonyms={"zlevel": "compress_level", "level": "compress_level", "data_type": "datatype"},
    value_synonyms={"datatype": {"byte": "uint8"}},
)

JPEG: Final = Format(
    name="JPEG",
    title="JPEG",
    description=_describe_pictures(
        "One band is grey (or has a colormap), three bands are red, green and blue.",
        "Pixels without data are white. JPEG does not keep values exactly.",
    ),
    gis_data_types=["raster"],
    media_type="image/jpeg",
    extension="jpg",
    write=partial(_write_pictures, extension="jpg", media_type="image/jpeg"),
    check=partial(check_picture, format_="JPEG", bands=(1, 3)),
    parameters={
        "colormap": COLORMAP,
        "quality": {
            "type": "integer",
            "description": "The quality, from 1 (small files) to 95 (good).",
            "minimum": 1,
            "maximum": 95,
            "default": 85,
        },
        **SPLITTING,
    },
    check_options=check_picture_options,
)
