"""Labels of dimensions from metadata, for back-ends without the process `dimension_labels`.

x and y are a grid of the declared step, whose pixels have their centres in the bounding box; times are the
declared ones, regular ones, or those of the Items of the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urljoin

import numpy as np

from openeo_xarray.errors import LabelsUnknown

MOST_PAGES = 200
SIDES = {"x": ("west", "east"), "y": ("south", "north")}
DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
SLACK = 1e-6
"""Pixels by which a centre may be off the edge of a bounding box."""


class Extents(Protocol):
    """The part of a `Source` that labels depend on."""

    @property
    def connection(self) -> Any: ...
    @property
    def collection(self) -> str: ...
    @property
    def spatial_extent(self) -> dict[str, Any] | None: ...
    @property
    def temporal_extent(self) -> tuple[str | None, str | None] | None: ...
    @property
    def finest_resolution(self) -> float | None: ...


def find_declared_labels(
    source: Extents, metadata: Mapping[str, Any], dimension: str, kind: str
) -> np.ndarray:
    """The labels of a dimension by the metadata of the collection.

    Raises:
        LabelsUnknown: the metadata do not say them.
    """
    declared = metadata.get("cube:dimensions", {}).get(dimension, {})
    if kind == "time":
        return find_times(source, metadata, declared, dimension)
    if declared.get("values"):
        return np.asarray(declared["values"])
    if kind in SIDES:
        return find_coordinates(source, declared, dimension, kind)
    raise LabelsUnknown(dimension, "the metadata list no values")


# --- Pixels --------------------------------------------------------------------------------------


def find_coordinates(source: Extents, declared: Mapping[str, Any], dimension: str, kind: str) -> np.ndarray:
    """The centres of pixels in the bounding box, or in the whole extent: y from north to south."""
    box, declared_crs = source.spatial_extent, read_code(declared.get("reference_system", 4326))
    crs = declared_crs if box is None else read_code(box.get("crs", 4326))
    step = declared.get("step") if crs == declared_crs else None
    if not step and crs not in (None, 4326):
        step = source.finest_resolution
    if not step:
        reason = f"neither a step of it nor a resolution of the bands is declared in EPSG:{crs}"
        raise LabelsUnknown(dimension, reason)
    step = abs(float(step))
    # Pixels are counted from the edge of the collection; of grids in metres, usually from 0.
    origin = float(declared["extent"][0]) if crs == declared_crs and declared.get("extent") else 0.0
    if box is not None:
        low, high = (float(box[side]) for side in SIDES[kind])
    elif declared.get("extent"):
        low, high = map(float, declared["extent"])
    else:
        raise LabelsUnknown(dimension, "no extent of it is declared: pass bbox as well")
    first = int(np.ceil((low - origin) / step - 0.5 - SLACK))
    last = int(np.floor((high - origin) / step - 0.5 + SLACK))
    if last < first:
        raise LabelsUnknown(dimension, "no pixel has its centre in the bounding box")
    labels = origin + (np.arange(first, last + 1) + 0.5) * step
    return labels[::-1].copy() if kind == "y" else labels


def read_code(crs: Any) -> int | None:
    """The EPSG code of a reference system in metadata; None for others."""
    if isinstance(crs, Mapping):
        crs = crs.get("id", {}).get("code")
    match = re.search(r"(\d+)$", str(crs))
    return int(match[1]) if match else None


# --- Times ---------------------------------------------------------------------------------------


def find_times(
    source: Extents, metadata: Mapping[str, Any], declared: Mapping[str, Any], dimension: str
) -> np.ndarray:
    """The times in the temporal extent, ascending."""
    if declared.get("values"):
        times = read_times(declared["values"])
    elif declared.get("step"):
        times = make_regular_times(source, declared, dimension)
    else:
        times = read_times(list_item_times(source, metadata, dimension))
    start, end = read_limits(source)
    inside = np.ones(times.shape, bool)
    if start is not None:
        inside &= times >= start
    if end is not None:
        inside &= times < end
    if not inside.any():
        raise LabelsUnknown(dimension, "no time of it is in the temporal extent")
    return np.unique(times[inside])


def read_times(texts: Any) -> np.ndarray:
    """Times as datetime64, whatever their zone is."""
    return np.array([read_time(text) for text in texts], "datetime64[ns]")


def read_time(text: str) -> np.datetime64:
    """A time of RFC 3339 in UTC."""
    match = re.fullmatch(r"(.+T.+?)(?:Z|([+-])(\d\d):(\d\d))", str(text))
    if match is None:
        return np.datetime64(str(text), "ns")
    time = np.datetime64(match[1], "ns")
    if match[2] is None:
        return time
    shift = np.timedelta64(int(match[3]) * 60 + int(match[4]), "m")
    return time - shift if match[2] == "+" else time + shift


def read_limits(source: Extents) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """The temporal extent, whose end does not belong to it."""
    start, end = source.temporal_extent or (None, None)
    return (None if start is None else read_time(start), None if end is None else read_time(end))


def make_regular_times(source: Extents, declared: Mapping[str, Any], dimension: str) -> np.ndarray:
    """Times from the start of the collection on, with the declared step between them."""
    match = DURATION.fullmatch(str(declared["step"]))
    extent = declared.get("extent") or (None, None)
    if match is None or not any(match.groups()) or extent[0] is None:
        raise LabelsUnknown(dimension, f"its step {declared['step']!r} or its start cannot be read")
    years, months, weeks, days, hours, minutes, seconds = (int(n or 0) for n in match.groups())
    first, limit = read_time(extent[0]), read_limits(source)[1]
    last = read_time(extent[1]) if extent[1] is not None else None
    end = min([t for t in (limit, None if last is None else last + 1) if t is not None], default=None)
    if end is None:
        raise LabelsUnknown(dimension, "neither the collection nor `time` has an end")
    if years or months:
        month = first.astype("datetime64[M]")
        count = int((end.astype("datetime64[M]") - month).astype(int)) // (12 * years + months) + 1
        starts = month + np.arange(count) * (12 * years + months)
        times = starts.astype("datetime64[ns]") + (first - month.astype("datetime64[ns]"))
    else:
        length = ((((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**9
        times = np.arange(first, end, np.timedelta64(length, "ns"))
    return times[times < end]


def list_item_times(source: Extents, metadata: Mapping[str, Any], dimension: str) -> list[str]:
    """The times of the Items of a collection, by its STAC API."""
    link = next((link for link in metadata.get("links", ()) if link.get("rel") == "items"), None)
    if link is None:
        raise LabelsUnknown(dimension, "the metadata list no values, no step and no Items")
    parameters: dict[str, Any] = {"limit": 100}
    box, (start, end) = source.spatial_extent, source.temporal_extent or (None, None)
    if box is not None and read_code(box.get("crs", 4326)) == 4326:
        parameters["bbox"] = ",".join(str(box[side]) for side in ("west", "south", "east", "north"))
    elif box is not None:
        raise LabelsUnknown(dimension, "Items are searched in degrees: pass bbox in degrees")
    if start is not None or end is not None:
        parameters["datetime"] = "/".join(".." if t is None else complete_time(t) for t in (start, end))
    features = iterate_items(source.connection, urljoin(source.connection.root_url, link["href"]), parameters)
    times = [properties.get("datetime") or properties.get("start_datetime") for properties in features]
    return [time for time in times if time is not None]


def complete_time(time: str) -> str:
    return f"{time}T00:00:00Z" if "T" not in time else time


def iterate_items(connection: Any, url: str, parameters: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The properties of all Items, page by page."""
    page = connection.get(url, params=parameters).json()
    for _ in range(MOST_PAGES):
        yield from (item.get("properties", {}) for item in page.get("features", ()))
        following = next((link for link in page.get("links", ()) if link.get("rel") == "next"), None)
        if following is None or following.get("method", "GET") != "GET":
            return
        page = connection.get(urljoin(url, following["href"])).json()
