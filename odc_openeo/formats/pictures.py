"""PNG and JPEG: values are shown as they are, 0 is black and 255 is white; nothing is stretched unasked."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from PIL import Image, ImageColor

from odc_openeo.cube import valid
from odc_openeo.errors import FormatUnsuitable, ProcessParameterInvalid
from odc_openeo.formats.blocks import stream
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.raster import Raster, band_dimension, check_files, check_raster, layer_time, placement

PIXELS: Final = 64 * 2**20
"""Pictures are put together in memory; this many pixels are the limit."""


def check_picture(data: Any, format_: str, bands: tuple[int, ...]) -> None:
    """Raster cubes with a number of bands that has colours, not too large."""
    check_raster(data, format_)
    check_files(data, format_)
    band = band_dimension(data)
    count = data.sizes[band] if band else 1
    if count not in bands:
        wanted = ", ".join(map(str, bands))
        reason = f"it has {count} bands; {wanted} are possible. Choose bands with filter_bands."
        raise FormatUnsuitable(format=format_, reason=reason)
    if data.dtype.kind == "c":
        raise FormatUnsuitable(format=format_, reason="its values are complex numbers.")
    height, width = data.sizes["y"], data.sizes["x"]
    if height * width > PIXELS:
        reason = f"{width} x {height} pixels are too many. Use GTiff, or resample_spatial to coarser pixels."
        raise FormatUnsuitable(format=format_, reason=reason)


def _write(
    data: xr.DataArray, target: Target, options: Options, *, extension: str, media_type: str
) -> list[Asset]:
    """One picture for each date and each label of other dimensions."""
    raster = Raster.of(data)
    palette = _palette(options["colormap"], len(raster.names))
    assets = []
    for index, found, slug in raster.layers():
        layer = raster.data.isel(dict(zip(raster.others, index, strict=True)))
        path = target.path(extension, *([slug] if slug else []))
        shades, shown = _pixels(layer, target)
        _save(_image(shades, shown, palette), path, options)
        title = ", ".join(map(str, found.values())) or path.stem
        assets.append(
            Asset(
                path,
                media_type,
                title,
                roles=("visual",),
                bands=[{"name": n} for n in raster.names if n],
                datetime=layer_time(raster.data, found),
                **placement(raster.geobox),
            )
        )
    return assets


def _pixels(layer: xr.DataArray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Shades 0 … 255 (y, x, bands) and where all bands have data (y, x)."""
    bands, height, width = layer.shape
    shades = np.zeros((height, width, bands), np.uint8)
    shown = np.ones((height, width), bool)

    def consume(region: Any, values: np.ndarray) -> None:
        band, y, x = region
        piece = layer.isel(dict(zip(layer.dims, region, strict=True))).copy(data=values)
        good = valid(piece).values
        whole = np.clip(np.rint(np.where(good, values, 0)), 0, 255).astype(np.uint8)
        shades[y, x, band] = np.moveaxis(whole, 0, -1)
        shown[y, x] &= good.all(axis=0)

    stream(layer, target.compute, consume)
    return shades, shown


def _image(shades: np.ndarray, shown: np.ndarray, palette: np.ndarray | None) -> Image.Image:
    if palette is not None:
        shades = palette[shades[..., 0]]
    if shades.shape[-1] == 4:
        shades[..., 3][~shown] = 0
    elif not shown.all():
        shades = np.dstack([shades, np.where(shown, 255, 0).astype(np.uint8)])
    return Image.fromarray(shades[..., 0] if shades.shape[-1] == 1 else shades)


def _palette(colors: list[str] | None, bands: int) -> np.ndarray | None:
    """256 colours (RGB or RGBA) blended between those given, which are evenly spaced from 0 to 255."""
    if colors is None:
        return None
    if bands != 1:
        reason = f"option 'colormap' needs a cube with one band, this one has {bands}."
        raise ProcessParameterInvalid(process="save_result", parameter="options", reason=reason)
    try:
        stops = np.array([ImageColor.getcolor(c, "RGBA") for c in colors], float)
    except ValueError as error:
        raise ProcessParameterInvalid(
            process="save_result", parameter="options", reason=f"option 'colormap': {error}."
        ) from error
    at = np.linspace(0, 255, len(stops))
    table = np.stack([np.interp(np.arange(256), at, channel) for channel in stops.T], axis=-1)
    table = np.rint(table).astype(np.uint8)
    return table[:, :3] if (table[:, 3] == 255).all() else table


def _save(image: Image.Image, path: Path, options: Options) -> None:
    if "quality" not in options:
        image.save(path, format="PNG", compress_level=options["compress_level"])
        return
    if image.mode in ("RGBA", "LA"):
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image.convert("RGBA"))
        image = background.convert("L" if image.mode == "LA" else "RGB")
    image.save(path, format="JPEG", quality=options["quality"])


def _mode_text(bands: str, missing: str) -> str:
    return (
        f"Raster cubes as pictures, one for each date. {bands} Values are taken as shades from 0 to 255, "
        f"rounded, and "
        f"cut off beyond; use linear_scale_range to bring values into that range first. {missing}"
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
    description=_mode_text(
        "One band is grey (or has a colormap), three bands are red, green and blue, a fourth is opacity.",
        "Pixels without data are transparent.",
    ),
    gis_data_types=["raster"],
    media_type="image/png",
    extension="png",
    write=partial(_write, extension="png", media_type="image/png"),
    check=partial(check_picture, format_="PNG", bands=(1, 3, 4)),
    parameters={
        "colormap": _COLORMAP,
        "compress_level": {
            "type": "integer",
            "description": "From 0 (quick) to 9 (small).",
            "minimum": 0,
            "maximum": 9,
            "default": 6,
        },
    },
)

JPEG: Final = Format(
    name="JPEG",
    title="JPEG",
    description=_mode_text(
        "One band is grey (or has a colormap), three bands are red, green and blue.",
        "Pixels without data are white. JPEG does not keep values exactly.",
    ),
    gis_data_types=["raster"],
    media_type="image/jpeg",
    extension="jpg",
    write=partial(_write, extension="jpg", media_type="image/jpeg"),
    check=partial(check_picture, format_="JPEG", bands=(1, 3)),
    parameters={
        "colormap": _COLORMAP,
        "quality": {
            "type": "integer",
            "description": "From 1 (small) to 95 (good).",
            "minimum": 1,
            "maximum": 95,
            "default": 85,
        },
    },
)
