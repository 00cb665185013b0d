"""Read what STAC declares about the bands of an asset with odc-stac."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import odc.stac
import pystac
from odc.loader.types import RasterBandMetadata

_TEMPLATE: Final[Mapping[str, Any]] = {
    "type": "Feature",
    "stac_version": "1.1.0",
    "stac_extensions": [],
    "id": "asset",
    "geometry": None,
    "links": [],
    "bbox": None,
    "properties": {"datetime": "1970-01-01T00:00:00Z"},
}


def read_band_metadata(asset: Mapping[str, Any]) -> list[RasterBandMetadata]:
    """Return data type, no-data value and unit of each band of an asset, in the order of its file.

    Members of ``bands``, of ``raster:bands`` and of the asset itself are known; those that the properties of
    an Item share with its assets are to be among the latter.

    Raises:
        TypeError, ValueError, AttributeError, LookupError: members have values that STAC does not define.
    """
    document = {
        **_TEMPLATE,
        "assets": {"asset": {**asset, "type": "image/tiff", "roles": ["data"]}},
    }
    try:
        parsed = odc.stac.parse_item(pystac.Item.from_dict(document), asset_absolute_paths=False)
    except pystac.STACError as error:
        raise ValueError(str(error)) from error
    bands = parsed.collection.meta.bands
    metadata = [bands[key] for key in sorted(bands, key=lambda key: key[1])]
    return [band for band in metadata if isinstance(band, RasterBandMetadata)]
