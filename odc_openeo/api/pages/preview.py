"""Preview picture of a collection, rendered by a process graph: load, resample, scale, save as PNG.

The cost is bounded: a single scene, cropped to at most `MAX_PIXELS` squared and read from overviews if the
files have them; one picture at a time per process, cached as long as the preview scene stays the same.
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

from odc_openeo.api.pages.bands import choose_display_bands
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.catalog import Catalog, Product, Scene
from odc_openeo.errors import OpenEOError
from odc_openeo.evaluation.previews import SECONDS, draw_preview

log = logging.getLogger(__name__)

MAX_PIXELS: Final = 12_288
"""Maximum number of source pixels along a side."""

SIDE: Final = 512
"""Maximum number of pixels along the longer side of the picture."""

WAIT_SECONDS: Final = 20
MAX_WAITING: Final = 4
"""Requests that wait while a picture is rendered; each of them holds a thread of the server."""

LIFETIME_S: Final = 24 * 3600
PLACEHOLDER_LIFETIME_S: Final = 120
MAX_KEPT: Final = 200


@dataclass(frozen=True)
class Picture:
    """A picture and how long browsers may cache it."""

    data: bytes
    media_type: str
    seconds: int


_previews: TTLCache[tuple[Any, ...], Picture] = TTLCache(MAX_KEPT, LIFETIME_S)
_placeholders: TTLCache[tuple[Any, ...], Picture] = TTLCache(MAX_KEPT, PLACEHOLDER_LIFETIME_S)
_cache_lock = threading.Lock()
_render_lock = threading.Lock()
_waiting = threading.BoundedSemaphore(MAX_WAITING)


def get_preview(catalog: Catalog, id_: str) -> Picture:
    """Return the picture of a collection, rendered on the first call.

    Raises:
        CollectionNotFound: there is no such collection.
    """
    product = catalog.get_product(id_)
    if not catalog.config.collection_previews:
        return _draw_placeholder("Previews are disabled")
    scene = _find_scene(catalog, id_)
    if scene is None:
        return _draw_placeholder("There is no scene to show")
    names = tuple(band.name for band in choose_display_bands(product.bands))
    key = (id_, scene.id, *(scene.files.get(name) for name in names))
    picture = _find_picture(key)
    if picture is not None:
        return picture
    if not _acquire_turn():
        return _draw_placeholder("Busy: try again in a minute", seconds=10)
    try:
        return _find_picture(key) or _keep_picture(key, _render_picture(product, scene))
    finally:
        _render_lock.release()


def _acquire_turn() -> bool:
    """Wait for the turn to render; False at once if enough others wait: cards must not fill the server."""
    if not _waiting.acquire(blocking=False):
        return False
    try:
        return _render_lock.acquire(timeout=WAIT_SECONDS)
    finally:
        _waiting.release()


def _find_picture(key: tuple[Any, ...]) -> Picture | None:
    with _cache_lock:
        return _previews.get(key) or _placeholders.get(key)


def _keep_picture(key: tuple[Any, ...], picture: Picture) -> Picture:
    with _cache_lock:
        (_previews if picture.media_type == "image/png" else _placeholders)[key] = picture
    return picture


def _draw_placeholder(reason: str, seconds: int = PLACEHOLDER_LIFETIME_S) -> Picture:
    drawing = render_template("no_preview.svg", reason=reason)
    return Picture(drawing.encode(), "image/svg+xml", seconds)


def _find_scene(catalog: Catalog, id_: str) -> Scene | None:
    try:
        return catalog.find_preview_scene(id_)
    except OpenEOError as error:
        log.info("No preview of %s: %s", id_, error)
        return None


def _render_picture(product: Product, scene: Scene) -> Picture:
    try:
        process = {"process_graph": make_process_graph(product, scene)}
        # Previews belong to no user: they share one quota.
        picture = run_for_view(draw_preview, process, user="previews", seconds=SECONDS)
        return Picture(picture, "image/png", 3600)
    except OpenEOError as error:
        log.info("No preview of %s: %s", product.name, error)
        return _draw_placeholder("The scene could not be rendered")
    except Exception:
        # A damaged file must not break the page; the log has the details.
        log.exception("No preview of %s", product.name)
        return _draw_placeholder("The scene could not be read")


def make_process_graph(product: Product, scene: Scene) -> dict[str, Any]:
    """Make the process graph that loads the centre of a scene at a coarse resolution."""
    bands = [b for b in choose_display_bands(product.bands) if scene.find_grid(b.name) is not None]
    names = [b.name for b in bands] or [next(iter(scene.files))]
    grid = _crop_grid(scene, names[0])
    step = max(max(grid.shape) / SIDE, 1.0)
    load = {
        "id": product.name,
        "spatial_extent": _make_extent(grid),
        "temporal_extent": [scene.time.isoformat(), (scene.time + timedelta(seconds=1)).isoformat()],
        "bands": names,
    }
    first = {"process_id": "first", "arguments": {"data": {"from_parameter": "data"}}, "result": True}
    reduce = {
        "data": {"from_node": "resample"},
        "dimension": "t",
        "reducer": {"process_graph": {"first": first}},
    }
    resolution = [abs(grid.resolution.x) * step, abs(grid.resolution.y) * step]
    resample = {"data": {"from_node": "load"}, "resolution": resolution}
    return {
        "load": {"process_id": "load_collection", "arguments": load},
        "resample": {"process_id": "resample_spatial", "arguments": resample},
        "reduce": {"process_id": "reduce_dimension", "arguments": reduce, "result": True},
    }


def _crop_grid(scene: Scene, band: str) -> GeoBox:
    """Crop the scene's grid to the centre of its footprint, at most `MAX_PIXELS` wide and high."""
    grid = scene.find_grid(band)
    assert grid is not None
    left, bottom, right, top = scene.footprint.boundingbox.bbox
    x, y = ~grid.transform @ ((left + right) / 2, (bottom + top) / 2)
    height, width = grid.shape.yx
    rows, columns = min(height, MAX_PIXELS), min(width, MAX_PIXELS)
    row = int(min(max(y - rows / 2, 0), height - rows))
    column = int(min(max(x - columns / 2, 0), width - columns))
    return grid[row : row + rows, column : column + columns]


def _make_extent(grid: GeoBox) -> dict[str, Any]:
    west, south, east, north = grid.boundingbox.bbox
    assert grid.crs is not None
    crs = grid.crs.epsg or grid.crs.to_wkt()
    return {"west": west, "south": south, "east": east, "north": north, "crs": crs}
