"""STAC Items behind an address: an Item, a list, a static catalogue, or a collection of a STAC API."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urldefrag, urlencode, urljoin, urlsplit, urlunsplit

from odc_openeo.catalog import Query
from odc_openeo.errors import ProcessGraphComplexity, UrlUnreachable
from odc_openeo.spatial.globe import locate, normalise_interval, wrap_longitude

PAGE: Final = 250
MOST_DOCUMENTS: Final = 2000
"""Documents that are read for one load: of a static catalogue, or pages of a STAC API."""
MOST_BYTES: Final = 256 * 2**20
"""Size of those documents together."""
MOST_SECONDS: Final = 120.0
"""Time in which they must be there."""
THREADS: Final = 8

Item = Mapping[str, Any]
Fetch = Callable[[str], Any]
"""Fetches the JSON document at an address."""


class _CrawlBudget:
    """Fetches documents until there are too many, they are too large together, or it takes too long."""

    def __init__(self, fetch: Fetch, seconds: float) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._documents = self._bytes = 0
        self._deadline = time.monotonic() + seconds

    def fetch(self, url: str) -> Any:
        """Fetch a document; ProcessGraphComplexity beyond the limits."""
        self._count(1, 0)
        document = self._fetch(url)
        self._count(0, _measure_json(document))
        return document

    def _count(self, documents: int, size: int) -> None:
        with self._lock:
            self._documents += documents
            self._bytes += size
            exceeded = [
                (self._documents > MOST_DOCUMENTS, f"{MOST_DOCUMENTS} documents"),
                (self._bytes > MOST_BYTES, f"{MOST_BYTES} bytes"),
                (time.monotonic() > self._deadline, f"{MOST_SECONDS:g} s"),
            ]
        for is_exceeded, limit in exceeded:
            if is_exceeded:
                raise ProcessGraphComplexity(
                    reason=f"reading the STAC documents at that address takes more than {limit}. "
                    "Name a part of it, or choose smaller extents."
                )


def _measure_json(document: Any) -> int:
    """The size of a document as JSON, about."""
    return len(json.dumps(document))


def find_items(fetch: Fetch, url: str, query: Query, limit: int) -> list[Item]:
    """The Items at an address, each with the address that its links are relative to as ``base``.

    A STAC API is asked only for what is in the query's area and interval; others give all they have.

    Raises:
        ProcessGraphComplexity: more than ``limit`` Items, or too many documents.
        UrlUnreachable: the response is not a STAC document.
    """
    items: list[Item] = []
    for item in _iterate_items(_CrawlBudget(fetch, MOST_SECONDS).fetch, url, query):
        items.append(item)
        if len(items) > limit:
            raise ProcessGraphComplexity(
                reason=f"more than {limit} STAC Items are at that address in the given extents. Choose a "
                "smaller spatial_extent or temporal_extent."
            )
    return items


def _iterate_items(fetch: Fetch, url: str, query: Query) -> Iterator[Item]:
    document = fetch(url)
    kind = document.get("type") if isinstance(document, Mapping) else None
    if kind == "Feature":
        yield {**document, "base": url}
    elif kind == "FeatureCollection":
        yield from _iterate_pages(fetch, document, url)
    elif kind in ("Collection", "Catalog") and (listing := _find_link(document, "items", url)):
        place = _add_query(listing, query)
        for item in _iterate_pages(fetch, fetch(place), place):
            yield _add_declarations(item, document)
    elif kind in ("Collection", "Catalog"):
        yield from _iterate_catalogue(fetch, document, url)
    else:
        raise UrlUnreachable(host=urlsplit(url).hostname or "", reason="the response is not a STAC document.")


def _check_object(document: Any, url: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise UrlUnreachable(host=urlsplit(url).hostname or "", reason="the response is not a STAC document.")
    return document


def _add_declarations(item: Item, collection: Mapping[str, Any]) -> Item:
    """Add to the assets of an Item what their Collection declares of them, where they say nothing."""
    declared, assets = collection.get("item_assets"), item.get("assets")
    if not isinstance(declared, Mapping) or not isinstance(assets, Mapping):
        return item
    completed = {key: _complete_asset(asset, declared.get(key)) for key, asset in assets.items()}
    return {**item, "assets": completed}


def _complete_asset(asset: Any, declared: Any) -> Any:
    if not isinstance(asset, Mapping) or not isinstance(declared, Mapping):
        return asset
    # Both list the bands: those of the Item count, in whichever of the two it has them.
    listed = {"bands", "eo:bands"} if asset.keys() & {"bands", "eo:bands"} else set()
    return {**{name: value for name, value in declared.items() if name not in listed}, **asset}


def _find_link(document: Mapping[str, Any], rel: str, base: str) -> str | None:
    return next(iter(_list_links(document, rel, base)), None)


def _list_links(document: Mapping[str, Any], rel: str, base: str) -> list[str]:
    links = document.get("links")
    objects = [link for link in links if isinstance(link, Mapping)] if isinstance(links, list) else []
    hrefs = [link.get("href") for link in objects if link.get("rel") == rel]
    return [_join_url(base, href) for href in hrefs if href and isinstance(href, str)]


def _join_url(base: str, href: str) -> str:
    try:
        return urljoin(base, href)
    except ValueError as error:
        raise UrlUnreachable(
            host=urlsplit(base).hostname or "", reason="it contains an invalid link."
        ) from error


# --- STAC API ------------------------------------------------------------------------------------


def _add_query(url: str, query: Query) -> str:
    parts = urlsplit(url)
    search_parameters = {"limit": str(PAGE), **_make_bbox_query(query), **_make_time_query(query)}
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *search_parameters.items()])))


def _make_bbox_query(query: Query) -> dict[str, str]:
    if query.area is None:
        return {}
    located = locate(query.area)
    if located.is_empty:
        return {}
    west, south, east, north = located.bounds
    west, east = normalise_interval(west, east)
    # As RFC 7946 has it: east of the antimeridian longitudes begin anew.
    box = (west, max(south, -90.0), wrap_longitude(east), min(north, 90.0))
    return {"bbox": ",".join(f"{edge:.9g}" for edge in box)}


def _make_time_query(query: Query) -> dict[str, str]:
    if query.start is None and query.end is None:
        return {}
    return {"datetime": f"{_format_instant(query.start)}/{_format_instant(query.end)}"}


def _format_instant(time: datetime | None) -> str:
    return ".." if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _iterate_pages(fetch: Fetch, page: Any, url: str) -> Iterator[Item]:
    seen = {url}
    while True:
        for item in _check_object(page, url).get("features") or ():
            yield {**_check_object(item, url), "base": _find_link(item, "self", url) or url}
        following = _find_link(page, "next", url)
        if following is None or following in seen:
            return
        seen.add(following)
        page, url = fetch(following), following


# --- Static catalogues ---------------------------------------------------------------------------


def _iterate_catalogue(fetch: Fetch, document: Mapping[str, Any], url: str) -> Iterator[Item]:
    waiting: deque[tuple[Mapping[str, Any], str]] = deque([(document, url)])
    visited = {_without_fragment(url)}
    while waiting:
        catalogue, base = waiting.popleft()
        items = _new_addresses(_list_links(catalogue, "item", base), visited)
        children = _new_addresses(_list_links(catalogue, "child", base), visited)
        if len(visited) > MOST_DOCUMENTS:
            raise ProcessGraphComplexity(
                reason=f"the catalogue at that address has more than {MOST_DOCUMENTS} documents. "
                "Name a part of it."
            )
        has_links = any(_list_links(catalogue, rel, base) for rel in ("item", "child"))
        if not has_links and catalogue.get("assets"):
            yield _make_item(catalogue, base)
        for href, item in zip(items, _fetch_all(fetch, items), strict=True):
            yield _add_declarations({**_check_object(item, href), "base": href}, catalogue)
        for href, child in zip(children, _fetch_all(fetch, children), strict=True):
            waiting.append((_check_object(child, href), href))


def _new_addresses(urls: Sequence[str], visited: set[str]) -> list[str]:
    """Addresses that were not visited yet, which they are then: catalogues may link in circles."""
    addresses = [url for url in dict.fromkeys(map(_without_fragment, urls)) if url not in visited]
    visited.update(addresses)
    return addresses


def _without_fragment(url: str) -> str:
    return urldefrag(url).url


def _fetch_all(fetch: Fetch, urls: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(fetch, urls))


def _make_item(collection: Mapping[str, Any], base: str) -> Item:
    """A Collection that has its files as assets of its own."""
    intervals = ((collection.get("extent") or {}).get("temporal") or {}).get("interval") or [[None, None]]
    start, end = intervals[0]
    times = {"start_datetime": start or end, "end_datetime": end or start}
    return {**collection, "properties": {"datetime": None, **times}, "geometry": None, "base": base}
