"""A small picture of a collection, rendered as a user would: load, resample, scale, save as PNG.

Its cost is bounded: one scene, or a piece of at most `MOST_PIXELS` squared, read from overviews where the
files have them; one picture at a time in each process, kept while the same scene shows the collection best.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from cachetools import TTLCache
from flask import render_template
from odc.geo.geobox import GeoBox

from odc_openeo.api.backend import Backend
from odc_openeo.api.pages.bands import shown_bands
from odc_openeo.api.runs import run_for_view
from odc_openeo.catalog import Product, Scene
from odc_openeo.errors import OpenEOError
from odc_openeo.evaluation.previews import SECONDS, draw_preview

log = logging.getLogger(__name__)

MOST_PIXELS: Final = 12_288
"""Pixels of the files along a side that are looked at."""

SIDE: Final = 512
"""Pixels along the longer side of the picture, at most."""

WAIT_SECONDS: Final = 20
LIFETIME_S: Final = 24 * 3600
BAD_LIFETIME_S: Final = 120
MOST_KEPT: Final = 200


@dataclass(frozen=True)
class Picture:
    """A picture and how long browsers may keep it."""

    data: bytes
    media_type: str
    seconds: int


_good: TTLCache[tuple[Any, ...], Picture] = TTLCache(MOST_KEPT, LIFETIME_S)
_bad: TTLCache[tuple[Any, ...], Picture] = TTLCache(MOST_KEPT, BAD_LIFETIME_S)
_kept = threading.Lock()
_one_at_a_time = threading.Lock()


def preview_of(backend: Backend, id_: str) -> Picture:
    """The picture of a collection, made at the first call; CollectionNotFound if there is no such one."""
    product = backend.catalog.product(id_)
    if not backend.config.collection_previews:
        return _none("Previews are switched off")
    scene = _scene(backend, id_)
    if scene is None:
        return _none("There is no scene to be shown")
    names = tuple(band.name for band in shown_bands(product.bands))
    key = (id_, scene.id, *(scene.files.get(name) for name in names))
    known = _look_up(key)
    if known is not None:
        return known
    if not _one_at_a_time.acquire(timeout=WAIT_SECONDS):
        return _none("Busy: try again in a minute", seconds=10)
    try:
        return _look_up(key) or _keep(key, _make(product, scene))
    finally:
        _one_at_a_time.release()


def _look_up(key: tuple[Any, ...]) -> Picture | None:
    with _kept:
        return _good.get(key) or _bad.get(key)


def _keep(key: tuple[Any, ...], picture: Picture) -> Picture:
    with _kept:
        (_good if picture.media_type == "image/png" else _bad)[key] = picture
    return picture


def _none(reason: str, seconds: int = BAD_LIFETIME_S) -> Picture:
    drawing = render_template("no_preview.svg", reason=reason)
    return Picture(drawing.encode(), "image/svg+xml", seconds)


def _scene(backend: Backend, id_: str) -> Scene | None:
    try:
        return backend.catalog.specimen(id_)
    except OpenEOError as error:
        log.info("No preview of %s: %s", id_, error)
        return None


def _make(product: Product, scene: Scene) -> Picture:
    try:
        process = {"process_graph": process_graph(product, scene)}
        # Previews are nobody's: they count together.
        picture = run_for_view(draw_preview, process, user="previews", seconds=SECONDS)
        return Picture(picture, "image/png", 3600)
    except OpenEOError as error:
        log.info("No preview of %s: %s", product.name, error)
        return _none("A scene could not be shown")
    except Exception:
        # Whatever is wrong with a file must not take the page along; the log has the details.
        log.exception("No preview of %s", product.name)
        return _none("A scene could not be read")


def process_graph(product: Product, scene: Scene) -> dict[str, Any]:
    """The process graph that loads one date of the middle of a scene, on coarse pixels."""
    bands = [b for b in shown_bands(product.bands) if scene.grid(b.name) is not None]
    names = [b.name for b in bands] or [next(iter(scene.files))]
    piece = _piece(scene, names[0])
    step = max(max(piece.shape) / SIDE, 1.0)
    load = {
        "id": product.name,
        "spatial_extent": _box(piece),
        "temporal_extent": [scene.time.isoformat(), (scene.time + timedelta(seconds=1)).isoformat()],
        "bands": names,
    }
    first = {"process_id": "first", "arguments": {"data": {"from_parameter": "data"}}, "result": True}
    reduce = {
        "data": {"from_node": "resample"},
        "dimension": "t",
        "reducer": {"process_graph": {"first": first}},
    }
    resolution = [abs(piece.resolution.x) * step, abs(piece.resolution.y) * step]
    resample = {"data": {"from_node": "load"}, "resolution": resolution}
    return {
        "load": {"process_id": "load_collection", "arguments": load},
        "resample": {"process_id": "resample_spatial", "arguments": resample},
        "reduce": {"process_id": "reduce_dimension", "arguments": reduce, "result": True},
    }


def _piece(scene: Scene, band: str) -> GeoBox:
    """The middle of what the scene covers, at most `MOST_PIXELS` wide and high."""
    grid = scene.grid(band)
    assert grid is not None
    left, bottom, right, top = scene.footprint.boundingbox.bbox
    x, y = ~grid.transform * ((left + right) / 2, (bottom + top) / 2)
    height, width = grid.shape.yx
    rows, columns = min(height, MOST_PIXELS), min(width, MOST_PIXELS)
    row = int(min(max(y - rows / 2, 0), height - rows))
    column = int(min(max(x - columns / 2, 0), width - columns))
    return grid[row : row + rows, column : column + columns]


def _box(grid: GeoBox) -> dict[str, Any]:
    west, south, east, north = grid.boundingbox.bbox
    assert grid.crs is not None
    crs = grid.crs.epsg or grid.crs.to_wkt()
    return {"west": west, "south": south, "east": east, "north": north, "crs": crs}
