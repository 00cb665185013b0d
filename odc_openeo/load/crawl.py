"""STAC Items behind an address: an Item, a list, a static catalogue, or a collection of a STAC API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from odc_openeo.catalog import Query
from odc_openeo.errors import ProcessGraphComplexity, UrlUnreachable

PAGE: Final = 250
MOST_DOCUMENTS: Final = 2000
"""Documents of a static catalogue that are read."""
THREADS: Final = 8

Item = Mapping[str, Any]
Fetch = Callable[[str], Any]
"""Gives the JSON document at an address."""


def find_items(fetch: Fetch, url: str, query: Query, limit: int) -> list[Item]:
    """The Items at an address, each with the address that its links are relative to as ``base``.

    A STAC API is asked only for what is in the query's area and interval; others give all they have.

    Raises:
        ProcessGraphComplexity: more than ``limit`` Items, or too many documents.
        UrlUnreachable: what is there is no STAC.
    """
    found: list[Item] = []
    for item in _items(fetch, url, query):
        found.append(item)
        if len(found) > limit:
            raise ProcessGraphComplexity(
                reason=f"more than {limit} STAC Items are at that address in the given extents. Choose a "
                "smaller spatial_extent or temporal_extent."
            )
    return found


def _items(fetch: Fetch, url: str, query: Query) -> Iterator[Item]:
    document = fetch(url)
    kind = document.get("type") if isinstance(document, Mapping) else None
    if kind == "Feature":
        yield {**document, "base": url}
    elif kind == "FeatureCollection":
        yield from _pages(fetch, document, url)
    elif kind in ("Collection", "Catalog") and (listing := _link(document, "items", url)):
        place = _with_query(listing, query)
        yield from _pages(fetch, fetch(place), place)
    elif kind in ("Collection", "Catalog"):
        yield from _static(fetch, document, url)
    else:
        raise UrlUnreachable(host=urlsplit(url).hostname or "", reason="its answer is no STAC.")


def _link(document: Mapping[str, Any], rel: str, base: str) -> str | None:
    return next(iter(_links(document, rel, base)), None)


def _links(document: Mapping[str, Any], rel: str, base: str) -> list[str]:
    links = document.get("links") or ()
    return [urljoin(base, link["href"]) for link in links if link.get("rel") == rel and link.get("href")]


# --- STAC API ------------------------------------------------------------------------------------


def _with_query(url: str, query: Query) -> str:
    parts = urlsplit(url)
    asked = {"limit": str(PAGE), **_box(query), **_interval(query)}
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *asked.items()])))


def _box(query: Query) -> dict[str, str]:
    if query.area is None:
        return {}
    box = query.area.to_crs("EPSG:4326", resolution="auto").boundingbox
    return {"bbox": ",".join(f"{edge:.9g}" for edge in box.bbox)}


def _interval(query: Query) -> dict[str, str]:
    if query.start is None and query.end is None:
        return {}
    return {"datetime": f"{_instant(query.start)}/{_instant(query.end)}"}


def _instant(time: datetime | None) -> str:
    return ".." if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _pages(fetch: Fetch, page: Any, url: str) -> Iterator[Item]:
    seen = {url}
    while True:
        for item in page.get("features") or ():
            yield {**item, "base": _link(item, "self", url) or url}
        following = _link(page, "next", url)
        if following is None or following in seen:
            return
        seen.add(following)
        page, url = fetch(following), following


# --- Static catalogues ---------------------------------------------------------------------------


def _static(fetch: Fetch, document: Mapping[str, Any], url: str) -> Iterator[Item]:
    waiting: list[tuple[Mapping[str, Any], str]] = [(document, url)]
    read = 0
    while waiting:
        catalogue, base = waiting.pop(0)
        items, children = _links(catalogue, "item", base), _links(catalogue, "child", base)
        read += len(items) + len(children)
        if read > MOST_DOCUMENTS:
            raise ProcessGraphComplexity(
                reason=f"the catalogue at that address has more than {MOST_DOCUMENTS} documents. "
                "Name a part of it."
            )
        if not items and not children and catalogue.get("assets"):
            yield _as_item(catalogue, base)
        for href, item in zip(items, _all(fetch, items), strict=True):
            yield {**item, "base": href}
        waiting += zip(_all(fetch, children), children, strict=True)


def _all(fetch: Fetch, urls: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(fetch, urls))


def _as_item(collection: Mapping[str, Any], base: str) -> Item:
    """A Collection that has its files as assets of its own."""
    intervals = ((collection.get("extent") or {}).get("temporal") or {}).get("interval") or [[None, None]]
    start, end = intervals[0]
    times = {"start_datetime": start or end, "end_datetime": end or start}
    return {**collection, "properties": {"datetime": None, **times}, "geometry": None, "base": base}
