"""The options of GTiff, those of other back-ends included: their schemas, checks and effects on bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo.cube import labels
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.colors import Rgba
from odc_openeo.formats.model import Options
from odc_openeo.formats.options import MERGE, make_option_error
from odc_openeo.formats.palettes import COLORMAP, make_blended_table, make_colormap_error, parse_palette
from odc_openeo.formats.pieces import SPLITTING
from odc_openeo.formats.raster import MAX_FILES, Raster, count_layers, find_band_dimension

MOST_BANDS: Final = 64
"""Most bands of a file that holds several dates."""
_NUMBERS: Final = ("SCALE", "OFFSET")
_COMPRESSIONS: Final = ["DEFLATE", "ZSTD", "LZW", "NONE"]
_RESAMPLINGS: Final = [
    *("AUTO", "NEAREST", "AVERAGE", "BILINEAR", "CUBIC", "CUBICSPLINE", "LANCZOS", "MODE", "RMS"),
]


def check_gtiff_options(data: xr.DataArray, options: Options) -> None:
    """Check the options that depend on the cube.

    Raises:
        ProcessParameterInvalid: the colour map or the metadata of bands don't fit the cube.
        FormatUnsuitable: there would be too many bands in a file, or too many files.
    """
    layers, bands = count_layers(data), len(_list_band_names(data))
    if options["layout"] == "bands" and layers * bands > MOST_BANDS:
        reason = f"{layers} dates of {bands} bands are more than {MOST_BANDS} bands in a file."
        raise FormatUnsuitable(format="GTiff", reason=f"{reason} Use 'layout': 'files', or netCDF.")
    if options["separate_asset_per_band"] and layers * bands > MAX_FILES:
        reason = f"it would become {layers * bands} files, one per date and band. Use netCDF or Zarr."
        raise FormatUnsuitable(format="GTiff", reason=reason)
    if options["bands_metadata"] is not None:
        _check_bands_metadata(data, options["bands_metadata"])
    if options["colormap"] is not None:
        _check_colormap(data, options)


def _list_band_names(data: xr.DataArray) -> list[str]:
    band = find_band_dimension(data)
    return [""] if band is None else list(map(str, labels(data, band)))


def _check_bands_metadata(data: xr.DataArray, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    names = _list_band_names(data)
    for name, tags in metadata.items():
        if name not in names:
            listed = ", ".join(names[:50])
            reason = f"there is no band '{name[:100]}'. The bands are: {listed}"
            raise make_option_error(f"option 'bands_metadata': {reason}.")
        for key, value in tags.items():
            if key.upper() in _NUMBERS and not _is_number(value):
                reason = f"{key} of band '{name}' must be a number, not {str(value)[:60]!r}"
                raise make_option_error(f"option 'bands_metadata': {reason}.")


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and bool(np.isfinite(float(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def _check_colormap(data: xr.DataArray, options: Options) -> None:
    bands = 1 if options["separate_asset_per_band"] else len(_list_band_names(data))
    if bands != 1 or (joins_layers(data, options) and count_layers(data) > 1):
        raise make_colormap_error("it needs files with one band. Choose one with filter_bands.")
    stored = np.dtype("uint8") if data.dtype == bool else data.dtype
    if str(stored) not in ("uint8", "uint16"):
        reason = f"a GeoTIFF has colours for values of type uint8 and uint16, but these are {data.dtype}"
        raise make_colormap_error(f"{reason}. Use PNG, or leave it out.")
    make_palette(stored, options)


def joins_layers(data: xr.DataArray, options: Options) -> bool:
    """Whether all dates are bands of one file: asked for, or implied by metadata of bands."""
    if options["layout"] == "auto":
        layers = count_layers(data)
        has_room = layers * len(_list_band_names(data)) <= MOST_BANDS
        return options["bands_metadata"] is not None and layers > 1 and has_room
    return bool(options["layout"] == "bands")


def make_palette(dtype: np.dtype[Any], options: Options) -> dict[int, Rgba] | None:
    """Make the colours by value of a file; None if there are none.

    Raises:
        ProcessParameterInvalid: a value or colour is not valid.
    """
    colormap = options["colormap"]
    if colormap is None:
        return None
    levels = 2 ** (8 * dtype.itemsize)
    palette = parse_palette(colormap)
    if palette is None:
        table = make_blended_table(colormap, levels)
        return {i: (r, g, b, a) for i, (r, g, b, a) in enumerate(table.tolist())}
    highest = max(palette)
    if highest >= levels:
        raise make_colormap_error(f"the value {highest} is above {levels - 1}, the highest of {dtype}.")
    return palette


def select_band_tags(raster: Raster, options: Options) -> list[dict[str, str]]:
    """Select the metadata of each band of a file; bands of several dates are named by band and date."""
    metadata = options["bands_metadata"] or {}
    tags = {name: {key: _to_text(value) for key, value in entry.items()} for name, entry in metadata.items()}
    names = sorted(tags, key=len, reverse=True)

    def find_band(label: str) -> str | None:
        return next((n for n in names if label == n or label.startswith(f"{n} ")), None)

    return [tags.get(find_band(label) or label, {}) for label in raster.names]


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def write_band_tags(file: Any, band: int, tags: Mapping[str, str]) -> None:
    """Write the metadata of a band into an open file; scale, offset and unit where readers look for them."""
    for key, value in tags.items():
        upper = key.upper()
        if upper in _NUMBERS:
            attribute = f"{upper.lower()}s"
            numbers = list(getattr(file, attribute))
            numbers[band - 1] = float(value)
            setattr(file, attribute, numbers)
        elif upper in ("UNIT", "UNITS", "UNITTYPE"):
            file.set_band_unit(band, value)
        else:
            file.update_tags(band, **{key: value})


_TEXT: Final = {"pattern": r"^[^\x00-\x1f\x7f]*$", "maxLength": 1000}

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "compress": {
        "type": "string",
        "description": "The compression (also 'compression'); all of them keep values exactly.",
        "enum": _COMPRESSIONS,
        "default": "DEFLATE",
    },
    "level": {
        "type": ["integer", "null"],
        "description": "The level of DEFLATE or ZSTD, from 1 (fast) to 9 (small); also 'ZLEVEL'. DEFLATE "
        "has 6 by default, and 3 for integers of 16 bits.",
        "minimum": 1,
        "maximum": 9,
        "default": None,
    },
    "predictor": {
        "type": "string",
        "description": "Whether to compress differences of neighbouring pixels, mostly to smaller files.",
        "enum": ["YES", "NO"],
        "default": "YES",
    },
    "blocksize": {
        "type": "integer",
        "description": (
            "Width and height of the tiles inside a file in pixels (also 'tile_size'); smaller images get "
            "smaller tiles."
        ),
        "enum": [128, 256, 512, 1024, 2048],
        "default": 512,
    },
    "split_size": {
        "type": "integer",
        "description": (
            "Images with a longer side are split into several files of at most this many pixels per side; "
            "_r0_c0 and so on in their names are row and column, counted from the north and the west."
        ),
        "minimum": 256,
        "maximum": 1_000_000,
        "default": 32_768,
    },
    "merge": MERGE,
    "overviews": {
        "type": "string",
        "description": "AUTO (or ALL): images larger than a tile get overviews, NONE (or OFF): no overviews.",
        "enum": ["AUTO", "NONE"],
        "default": "AUTO",
    },
    "overview_resampling": {
        "type": "string",
        "description": (
            "How overviews are made (also 'overview_method'). AUTO: AVERAGE for floats, NEAREST for integers."
        ),
        "enum": _RESAMPLINGS,
        "default": "AUTO",
    },
    "layout": {
        "type": "string",
        "description": (
            "'files': a file for each date. 'bands': one file, whose bands are all bands of each date, e.g. "
            f"'B04 2022-06-01', at most {MOST_BANDS}. 'auto': bands if there is bands_metadata and they are "
            "not too many, else files."
        ),
        "enum": ["auto", "files", "bands"],
        "default": "auto",
    },
    "separate_asset_per_band": {
        "type": "boolean",
        "description": "Write a file for each band, with its name at the end of the file's.",
        "default": False,
    },
    "bands_metadata": {
        "type": ["object", "null"],
        "description": (
            "Metadata of bands by name: objects of names and values, which become items of GDAL's metadata. "
            "SCALE, OFFSET and UNIT become those of the band; values stay as they are."
        ),
        "maxProperties": 1000,
        "additionalProperties": {
            "type": "object",
            "maxProperties": 100,
            "propertyNames": {"pattern": r"^[A-Za-z_][\w.:-]{0,99}$"},
            "additionalProperties": {"type": ["string", "number", "boolean"], **_TEXT},
        },
        "default": None,
    },
    "colormap": COLORMAP,
    **SPLITTING,
}

SYNONYMS: Final = {
    "compression": "compress",
    "zlevel": "level",
    "compression_level": "level",
    "compress_level": "level",
    "tile_size": "blocksize",
    "overview_method": "overview_resampling",
}
_AVERAGES: Final = {"mean": "AVERAGE", "near": "NEAREST", "cubic_spline": "CUBICSPLINE", "default": "AUTO"}
VALUE_SYNONYMS: Final = {
    "compress": {"packbits": "DEFLATE", "lzma": "DEFLATE", "zip": "DEFLATE", "no": "NONE", "off": "NONE"},
    "predictor": {"true": "YES", "false": "NO", "1": "NO", "2": "YES", "3": "YES"},
    "overviews": {"off": "NONE", "all": "AUTO", "on": "AUTO", "no": "NONE"},
    "overview_resampling": _AVERAGES,
}
