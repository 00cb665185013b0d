"""PNG and JPEG: values are shades as they are, from 0 (black) to 255 (white); nothing is stretched."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from PIL import Image

from odc_openeo.cube import valid
from odc_openeo.errors import FormatUnsuitable, ProcessParameterInvalid
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.colors import make_color_table, put_on_white
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.raster import (
    Raster,
    check_files,
    check_raster,
    describe_placement,
    find_band_dimension,
    find_layer_time,
)

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


def _write_pictures(
    data: xr.DataArray, target: Target, options: Options, *, extension: str, media_type: str
) -> list[Asset]:
    """Write one picture per date and label of further dimensions."""
    raster = Raster.from_cube(data)
    palette = _make_palette(options["colormap"], len(raster.names))
    assets = []
    for index, labels, slug in raster.layers():
        layer = raster.data.isel(dict(zip(raster.outer, index, strict=True)))
        path = target.path(extension, *([slug] if slug else []))
        shades, has_data = _compute_shades(layer, target)
        _save_image(_make_image(shades, has_data, palette), path, options)
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


def _compute_shades(layer: xr.DataArray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Compute the shades from 0 to 255 (y, x, bands), and where all bands have data (y, x)."""
    bands, height, width = layer.shape
    shades = np.zeros((height, width, bands), np.uint8)
    has_data = np.ones((height, width), bool)

    def consume(region: Any, values: np.ndarray) -> None:
        band, y, x = region
        piece = layer.isel(dict(zip(layer.dims, region, strict=True))).copy(data=values)
        good = valid(piece).values
        whole = np.clip(np.rint(np.where(good, values, 0)), 0, 255).astype(np.uint8)
        shades[y, x, band] = np.moveaxis(whole, 0, -1)
        has_data[y, x] &= good.all(axis=0)

    stream_batches(layer, target.compute, consume)
    return shades, has_data


def _make_image(shades: np.ndarray, has_data: np.ndarray, palette: np.ndarray | None) -> Image.Image:
    if palette is not None:
        shades = palette[shades[..., 0]]
    if shades.shape[-1] == 4:
        shades[..., 3][~has_data] = 0
    elif not has_data.all():
        shades = np.dstack([shades, np.where(has_data, 255, 0).astype(np.uint8)])
    return Image.fromarray(shades[..., 0] if shades.shape[-1] == 1 else shades)


def _make_palette(colors: list[str] | None, bands: int) -> np.ndarray | None:
    """256 colours (RGB or RGBA) blended between ``colors``, which are evenly spaced from 0 to 255."""
    if colors is None:
        return None
    if bands != 1:
        raise _invalid_colormap(f"it needs a cube with one band; this one has {bands}.")
    try:
        table = make_color_table(colors, 256)
    except ValueError as error:
        raise _invalid_colormap(str(error)) from error
    return table[:, :3] if (table[:, 3] == 255).all() else table


def _invalid_colormap(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(
        process="save_result", parameter="options", reason=f"option 'colormap': {reason}"
    )


def _save_image(image: Image.Image, path: Path, options: Options) -> None:
    if "quality" in options:
        put_on_white(image).save(path, format="JPEG", quality=options["quality"])
    else:
        image.save(path, format="PNG", compress_level=options["compress_level"])


def _describe_pictures(bands: str, missing: str) -> str:
    return (
        f"Raster cubes as pictures, one per date. {bands} Values are taken as shades from 0 to 255, rounded, "
        f"and clipped to that range; use linear_scale_range to scale values first. {missing}"
    )


_COLORMAP: Final[dict[str, Any]] = {
    "type": ["array", "null"],
    "description": (
        "Colours for a single band, evenly spaced from 0 to 255 and blended in between: names or #rrggbb, "
        "e.g. ['brown', 'yellow', 'green']."
    ),
    "items": {"type": "string"},
    "minItems": 2,
    "maxItems": 256,
    "default": None,
}

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
        "colormap": _COLORMAP,
        "compress_level": {
            "type": "integer",
            "description": "The compression level, from 0 (fast) to 9 (small).",
            "minimum": 0,
            "maximum": 9,
            "default": 6,
        },
    },
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
        "colormap": _COLORMAP,
        "quality": {
            "type": "integer",
            "description": "The quality, from 1 (small files) to 95 (good).",
            "minimum": 1,
            "maximum": 95,
            "default": 85,
        },
    },
)
