"""Code snippets in several languages that load a small part of a collection, ready to copy and run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from flask import render_template
from odc.geo import CRS

from odc_openeo.api.pages.bands import choose_display_bands
from odc_openeo.catalog import Product, Scene

SIDE: Final = 200
"""Approximate number of pixels along a side of the loaded part."""

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
    """A code snippet and the command that installs its client library."""

    language: str
    install: str
    code: str


@dataclass(frozen=True)
class LoadExample:
    """The code snippets in all languages, and the date that they load."""

    snippets: Sequence[Snippet]
    date: str


def make_example(product: Product, scene: Scene, root: str, *, demo: bool, openid: bool) -> LoadExample:
    """Make the code snippets that load the centre of a scene."""
    day = scene.time.date()
    extent = _make_extent(scene, choose_display_bands(product.bands)[0].name)
    values: dict[str, Any] = {
        "root": root,
        "id": product.name,
        "extent": extent,
        "days": [str(day), str(day + timedelta(days=1))],
        "band_list": ", ".join(quote_value(band.name) for band in choose_display_bands(product.bands)),
        "user": "demo" if demo else "USER",
        "password": "demo" if demo else "PASSWORD",
        "openid": openid and not demo,
        "file": FILE,
        "quoted": quote_value,
    }
    snippets = [
        Snippet(title, INSTALL[name], render_template(f"snippets/{name}.txt", **values).strip())
        for name, title in LANGUAGES.items()
    ]
    return LoadExample(snippets, str(day))


def quote_value(value: Any) -> str:
    """Format a string or number as a literal, which is the same in all three languages."""
    return json.dumps(value, ensure_ascii=False)


def _make_extent(scene: Scene, band: str) -> dict[str, float]:
    """Make a box of a few hundred pixels at the centre of the scene, in degrees."""
    grid = scene.find_grid(band) or next(iter(scene.grids.values()))
    pixel = max(abs(grid.resolution.x), abs(grid.resolution.y))
    degrees = pixel if scene.crs.geographic else pixel / METRES_PER_DEGREE
    point = scene.footprint.geom.representative_point()
    lon, lat = _to_degrees(point.x, point.y, scene.crs)
    north_south = SIDE / 2 * degrees
    east_west = north_south / max(math.cos(math.radians(lat)), 0.1)
    digits = max(1, 1 - math.floor(math.log10(north_south)))
    corners = (lon - east_west, lat - north_south, lon + east_west, lat + north_south)
    return dict(zip(("west", "south", "east", "north"), (round(v, digits) for v in corners), strict=True))


def _to_degrees(x: float, y: float, crs: CRS) -> tuple[float, float]:
    lon, lat = crs.transformer_to_crs(CRS("EPSG:4326"))(x, y)
    return float(lon), float(lat)
