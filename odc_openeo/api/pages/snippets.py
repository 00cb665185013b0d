"""Programs in several languages that load a small piece of one collection, ready to be copied and run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from flask import render_template
from odc.geo import CRS

from odc_openeo.api.pages.bands import shown_bands
from odc_openeo.catalog import Product, Scene

SIDE: Final = 200
"""Pixels along a side of the piece, about."""

METRES_PER_DEGREE: Final = 111_320
LANGUAGES: Final = {"python": "Python", "r": "R", "javascript": "JavaScript"}
INSTALL: Final = {
    "python": "pip install openeo",
    "r": 'install.packages("openeo")',
    "javascript": "npm install @openeo/js-client",
}
FILE: Final = "piece.nc"


@dataclass(frozen=True)
class Snippet:
    """A program, and the command that installs what it needs."""

    language: str
    install: str
    code: str


@dataclass(frozen=True)
class Ways:
    """The programs by language, and in words what they load."""

    snippets: Sequence[Snippet]
    date: str


def example(product: Product, scene: Scene, root: str, *, demo: bool, openid: bool) -> Ways:
    """Programs that load the middle of a scene."""
    day = scene.time.date()
    extent = _extent(scene, shown_bands(product.bands)[0].name)
    values: dict[str, Any] = {
        "root": root,
        "id": product.name,
        "extent": extent,
        "days": [str(day), str(day + timedelta(days=1))],
        "band_list": ", ".join(quoted(band.name) for band in shown_bands(product.bands)),
        "user": "demo" if demo else "USER",
        "password": "demo" if demo else "PASSWORD",
        "openid": openid and not demo,
        "file": FILE,
        "quoted": quoted,
    }
    made = [
        Snippet(title, INSTALL[name], render_template(f"snippets/{name}.txt", **values).strip())
        for name, title in LANGUAGES.items()
    ]
    return Ways(made, str(day))


def quoted(value: Any) -> str:
    """A text or number as all three languages write it."""
    return json.dumps(value, ensure_ascii=False)


def _extent(scene: Scene, band: str) -> dict[str, float]:
    """A box of some hundred pixels in the middle of the scene, in degrees."""
    grid = scene.grid(band) or next(iter(scene.grids.values()))
    pixel = max(abs(grid.resolution.x), abs(grid.resolution.y))
    degrees = pixel if scene.crs.geographic else pixel / METRES_PER_DEGREE
    point = scene.footprint.geom.representative_point()
    lon, lat = _degrees(point.x, point.y, scene.crs)
    north_south = SIDE / 2 * degrees
    east_west = north_south / max(math.cos(math.radians(lat)), 0.1)
    digits = max(1, 1 - math.floor(math.log10(north_south)))
    corners = (lon - east_west, lat - north_south, lon + east_west, lat + north_south)
    return dict(zip(("west", "south", "east", "north"), (round(v, digits) for v in corners), strict=True))


def _degrees(x: float, y: float, crs: CRS) -> tuple[float, float]:
    lon, lat = crs.transformer_to_crs(CRS("EPSG:4326"))(x, y)
    return float(lon), float(lat)
