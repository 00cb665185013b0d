"""Attributes of the GeoZarr conventions: the place of a grid, its reference system, and levels of a pyramid.

Zarr conventions are declared in ``zarr_conventions`` of a node, by an identifier and the address of their
schema. See https://github.com/zarr-conventions (spatial, proj and multiscales, each version 0.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from odc.geo.geobox import GeoBox

_HOST: Final = "github.com/zarr-conventions"
_RAW: Final = "raw.githubusercontent.com/zarr-conventions"
VERSION: Final = "v0.1"
LEVEL_SCALE: Final = 2
"""How many pixels of a level make one of the next, along each side."""


def _declare_convention(name: str, uuid: str, description: str) -> dict[str, str]:
    return {
        "uuid": uuid,
        "schema_url": f"https://{_RAW}/{name}/refs/tags/{VERSION}/schema.json",
        "spec_url": f"https://{_HOST}/{name}/blob/{VERSION}/README.md",
        "name": name,
        "description": description,
    }


SPATIAL: Final = _declare_convention(
    "spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"
)
PROJ: Final = _declare_convention(
    "proj",
    "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "Coordinate reference system information for geospatial data",
)
MULTISCALES: Final = _declare_convention(
    "multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"
)


def make_grid_attributes(geobox: GeoBox, dimensions: Sequence[str] = ("y", "x")) -> dict[str, Any]:
    """Make the attributes of a group whose arrays lie on a grid.

    ``dimensions`` are the names of the vertical and the horizontal one. The transform has the order of
    affine: pixel width, rotation, left edge, rotation, pixel height, top edge.
    """
    box = geobox.extent.boundingbox
    attributes: dict[str, Any] = {
        "zarr_conventions": [SPATIAL],
        "spatial:dimensions": list(dimensions),
        "spatial:bbox": [float(edge) for edge in box.bbox],
        "spatial:transform_type": "affine",
        "spatial:transform": [float(term) for term in geobox.affine[:6]],
        "spatial:shape": [int(size) for size in geobox.shape],
        "spatial:registration": "pixel",
    }
    return attributes if geobox.crs is None else _add_reference_system(attributes, geobox)


def _add_reference_system(attributes: dict[str, Any], geobox: GeoBox) -> dict[str, Any]:
    crs = geobox.crs
    assert crs is not None
    code = crs.proj.to_authority()
    fields = {"proj:wkt2": crs.proj.to_wkt()} if code is None else {"proj:code": ":".join(code)}
    return {**attributes, "zarr_conventions": [*attributes["zarr_conventions"], PROJ], **fields}


def make_levels_attributes(count: int, resampling: str) -> dict[str, Any]:
    """Make the attributes of the group above ``count`` levels named ``0`` (full resolution), ``1`` and so on.

    Each level has pixels of twice the size of those of the one before, with the same upper left corner.
    """
    layout: list[Mapping[str, Any]] = [
        {"asset": "0", "transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]}}
    ]
    for level in range(1, count):
        scale = [float(LEVEL_SCALE), float(LEVEL_SCALE)]
        layout.append(
            {
                "asset": str(level),
                "derived_from": str(level - 1),
                "transform": {"scale": scale, "translation": [0.0, 0.0]},
                "resampling_method": resampling,
            }
        )
    return {
        "zarr_conventions": [MULTISCALES],
        "multiscales": {"layout": layout, "resampling_method": resampling},
    }
