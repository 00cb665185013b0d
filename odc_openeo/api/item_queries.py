"""Searches for STAC Items as requests write them, in a query string or as JSON; and parts of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import request

from odc_openeo.catalog import ItemQuery, SortKey, box, geometry, parse, parse_interval
from odc_openeo.errors import RequestInvalid
from odc_openeo.strict_json import parse_json

DEFAULT_LIMIT: Final = 10
MOST: Final = 1000
"""Most items on a page; a greater limit gives as many."""

SEARCH: Final = (
    "bbox",
    "collections",
    "datetime",
    "fields",
    "filter",
    "filter-crs",
    "filter-lang",
    "ids",
    "intersects",
    "limit",
    "sortby",
    "token",
)
CRS84: Final = (
    "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
    "https://www.opengis.net/def/crs/OGC/1.3/CRS84",
)
MOST_LISTED: Final = {"collections": 1000, "ids": 1000, "sortby": 20, "fields": 200}
"""Most elements of lists in a search."""
ALWAYS: Final = frozenset({"type", "stac_version", "id", "collection"})
"""Members that an item keeps if it is not asked for without them."""


def invalid(reason: str) -> RequestInvalid:
    """The error for a search that can't be understood."""
    return RequestInvalid(f"The search is invalid: {reason}")


@dataclass(frozen=True)
class Fields:
    """Which members of items are wanted: paths with dots. Without ``include`` all but ``exclude``."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def of(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The parts of an item that are wanted; the longer path decides."""
        wanted = {*self.include, *(ALWAYS - set(self.exclude))} if self.include else set()
        return _parts(item, "", wanted, set(self.exclude), not self.include)


def _parts(
    value: Mapping[str, Any], path: str, include: set[str], exclude: set[str], wanted: bool
) -> dict[str, Any]:
    found = {}
    for key, member in value.items():
        own = f"{path}{key}"
        here = own in include or (wanted and own not in exclude)
        deeper = any(name.startswith(f"{own}.") for name in include | exclude)
        if isinstance(member, Mapping) and deeper:
            inner = _parts(member, f"{own}.", include, exclude, here)
            if inner or here:
                found[key] = inner
        elif here:
            found[key] = member
    return found


# --- Requests ------------------------------------------------------------------------------------


def body_of_query() -> dict[str, Any]:
    """The parameters of a GET request as the body that a POST request would have."""
    args = request.args
    body: dict[str, Any] = {name: args[name] for name in ("datetime", "token") if name in args}
    lists = {"bbox": _numbers, "ids": _texts, "collections": _texts, "fields": _fields, "sortby": _order}
    body |= {name: read(args[name]) for name, read in lists.items() if name in args}
    body |= {name: args[name] for name in ("filter-lang", "filter-crs") if name in args}
    if "limit" in args:
        body["limit"] = int(args["limit"]) if args["limit"].isdecimal() and len(args["limit"]) < 20 else -1
    if "intersects" in args:
        body["intersects"] = _json(args["intersects"], "intersects")
    if "filter" in args:
        is_json = args.get("filter-lang") == "cql2-json"
        body["filter"] = _json(args["filter"], "filter") if is_json else args["filter"]
        body.setdefault("filter-lang", "cql2-text")
    return body


def item_query(body: Mapping[str, Any], collection: str | None = None) -> tuple[ItemQuery, Fields]:
    """The search that a body asks for, in one collection or all; RequestInvalid says what to change."""
    for name in sorted(body.keys() - set(SEARCH)):
        raise invalid(f"there is no member '{name}'. There are: {', '.join(SEARCH)}.")
    if body.get("bbox") is not None and body.get("intersects") is not None:
        raise invalid("give 'bbox' or 'intersects', not both.")
    start, end = _interval(body.get("datetime"))
    token = body.get("token")
    if token is not None and not isinstance(token, str):
        raise invalid("'token' must be a string.")
    asked = _names(body, "collections")
    if collection is not None and asked not in (None, (collection,)):
        raise invalid(f"'collections' can only be {collection} here.")
    query = ItemQuery(
        limit=_limit(body.get("limit")),
        collections=(collection,) if collection is not None else asked,
        ids=_names(body, "ids"),
        area=_area(body),
        start=start,
        end=end,
        filter=_filter(body),
        sort=tuple(_sort_key(key) for key in _list(body, "sortby") or ()),
        token=token,
    )
    return query, _wanted(body.get("fields"))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise invalid(
            "'bbox' must be 4 or 6 numbers separated by commas: west, south, east, north."
        ) from error


def _texts(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _fields(text: str) -> dict[str, list[str]]:
    parts = _texts(text)
    return {
        "include": [part.lstrip("+ ") for part in parts if not part.startswith("-")],
        "exclude": [part[1:] for part in parts if part.startswith("-")],
    }


def _order(text: str) -> list[dict[str, str]]:
    # A plus sign in a query string means a space.
    return [
        {"field": part.lstrip("+- "), "direction": "desc" if part.startswith("-") else "asc"}
        for part in _texts(text)
    ]


def _json(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except RequestInvalid as error:
        raise invalid(f"'{name}' is no JSON: {error.message}") from error


def _limit(value: Any) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise invalid(f"'limit' must be a whole number from 1 to {MOST}.")
    return min(value, MOST)


def _list(body: Mapping[str, Any], name: str) -> list[Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise invalid(f"'{name}' must be an array.")
    most = MOST_LISTED[name]
    if value is not None and len(value) > most:
        raise invalid(f"'{name}' may have at most {most} elements. Send several searches.")
    return value


def _names(body: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = _list(body, name)
    if value is None or (name == "collections" and not value):
        return None
    if not all(isinstance(each, str) for each in value):
        raise invalid(f"'{name}' must be an array of strings.")
    return tuple(value)


def _interval(value: Any) -> Any:
    if value is None:
        return None, None
    if not isinstance(value, str):
        raise invalid("'datetime' must be a string.")
    return parse_interval(value)


def _area(body: Mapping[str, Any]) -> Any:
    if body.get("bbox") is not None:
        return box(body["bbox"])
    return geometry(body["intersects"]) if body.get("intersects") is not None else None


def _filter(body: Mapping[str, Any]) -> Any:
    if body.get("filter-crs", CRS84[0]) not in CRS84:
        raise invalid(f"'filter-crs' can only be {CRS84[0]}.")
    given = body.get("filter")
    return None if given is None else parse(given, body.get("filter-lang", "cql2-json"))


def _sort_key(value: Any) -> SortKey:
    if not isinstance(value, Mapping) or not isinstance(value.get("field"), str):
        raise invalid("'sortby' must be an array of objects with 'field' and 'direction'.")
    direction = value.get("direction", "asc")
    if direction not in ("asc", "desc"):
        raise invalid("the direction in 'sortby' must be asc or desc.")
    return SortKey(value["field"].removeprefix("properties."), direction == "desc")


def _wanted(value: Any) -> Fields:
    if value is None:
        return Fields()
    known = isinstance(value, Mapping) and not value.keys() - {"include", "exclude"}
    lists = [value.get(name) or [] for name in ("include", "exclude")] if known else None
    if lists is None or not all(isinstance(v, list) and all(isinstance(p, str) for p in v) for v in lists):
        raise invalid("'fields' must be an object with the arrays of strings 'include' and 'exclude'.")
    if sum(map(len, lists)) > MOST_LISTED["fields"]:
        raise invalid(f"'fields' may name at most {MOST_LISTED['fields']} members.")
    return Fields(tuple(lists[0]), tuple(lists[1]))
