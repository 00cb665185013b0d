"""The preview scene of a product: a recent one, with little cloud and few gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from odc_openeo.catalog.scene_search import Query
from odc_openeo.catalog.scenes import Scene
from odc_openeo.errors import ProcessGraphComplexity

Search = Callable[[Query, int], Sequence[Scene]]

MOST_CANDIDATES: Final = 200
MONTH: Final = timedelta(days=31)
LONGER: Final = (timedelta(days=400), timedelta(days=4000))
SHORTER: Final = (timedelta(days=3), timedelta(hours=6), timedelta(minutes=10))


def find_preview_scene(search: Search, end: datetime | None) -> Scene | None:
    """Find the best scene of the last month before ``end``; of a longer period if that has none, of a
    shorter one if it has too many."""
    if end is None:
        return None
    try:
        scenes = _search_period(search, end, MONTH)
    except ProcessGraphComplexity:
        scenes = _search_shorter(search, end)
    else:
        scenes = scenes or _search_longer(search, end)
    return max(scenes, key=lambda scene: (_visible_share(scene), scene.time), default=None)


def _search_period(search: Search, end: datetime, period: timedelta | None) -> Sequence[Scene]:
    start = None if period is None else end - period
    return search(Query(start=start, end=end + timedelta(seconds=1)), MOST_CANDIDATES)


def _search_shorter(search: Search, end: datetime) -> Sequence[Scene]:
    for period in SHORTER:
        try:
            return _search_period(search, end, period)
        except ProcessGraphComplexity:
            continue
    return ()


def _search_longer(search: Search, end: datetime) -> Sequence[Scene]:
    # The nominal time of a long interval, such as a year, lies well before its end.
    for period in (*LONGER, None):
        try:
            scenes = _search_period(search, end, period)
        except ProcessGraphComplexity:
            return ()
        if scenes:
            return scenes
    return ()


def _visible_share(scene: Scene) -> float:
    """Compute the share of the image that shows the ground."""
    cover = scene.properties.get("eo:cloud_cover")
    clear = 1 - cover / 100 if isinstance(cover, int | float) else 1.0
    whole = scene.outline.area
    return float(clear * min(scene.footprint.area / whole, 1.0) if whole else clear)
