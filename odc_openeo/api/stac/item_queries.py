"""Parsing of STAC Item searches, from a query string or JSON; and selection of members of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import request

from odc_openeo.catalog import ItemQuery, SortKey, parse_bbox, parse_filter, parse_geometry, parse_interval
from odc_openeo.errors import RequestInvalid
from odc_openeo.untrusted.strict_json import parse_json

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 1000
"""Maximum number of items per page; larger limits are reduced to it."""

SEARCH_PARAMETERS: Final = (
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
MAX_ELEMENTS: Final = {"collections": 1000, "ids": 1000, "sortby": 20, "fields": 200}
"""Maximum number of elements of the lists in a search."""
CORE_MEMBERS: Final = frozenset({"type", "stac_version", "id", "collection"})
"""Members that an item keeps unless they are excluded explicitly."""


def make_search_error(reason: str) -> RequestInvalid:
    """Make the error for an invalid search."""
    return RequestInvalid(f"The search is invalid: {reason}")


@dataclass(frozen=True)
class Fields:
    """Selected members of items as dotted paths. Without ``include``: all except ``exclude``."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def select_members(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Select the members of an item; longer paths take precedence."""
        include = {*self.include, *(CORE_MEMBERS - set(self.exclude))} if self.include else set()
        return _select_members(item, "", include, set(self.exclude), not self.include)


def _select_members(
    value: Mapping[str, Any], path: str, include: set[str], exclude: set[str], included: bool
) -> dict[str, Any]:
    members = {}
    for key, member in value.items():
        member_path = f"{path}{key}"
        is_included = member_path in include or (included and member_path not in exclude)
        has_deeper_paths = any(name.startswith(f"{member_path}.") for name in include | exclude)
        if isinstance(member, Mapping) and has_deeper_paths:
            inner = _select_members(member, f"{member_path}.", include, exclude, is_included)
            if inner or is_included:
                members[key] = inner
        elif is_included:
            members[key] = member
    return members


# --- Requests ------------------------------------------------------------------------------------


def parse_query_string() -> dict[str, Any]:
    """Convert the query parameters of a GET request to the body of the equivalent POST request."""
    args = request.args
    body: dict[str, Any] = {name: args[name] for name in ("datetime", "token") if name in args}
    lists = {
        "bbox": _parse_numbers,
        "ids": _split_list,
        "collections": _split_list,
        "fields": _parse_fields,
        "sortby": _parse_sort_order,
    }
    body |= {name: parse_list(args[name]) for name, parse_list in lists.items() if name in args}
    body |= {name: args[name] for name in ("filter-lang", "filter-crs") if name in args}
    if "limit" in args:
        body["limit"] = int(args["limit"]) if args["limit"].isdecimal() and len(args["limit"]) < 20 else -1
    if "intersects" in args:
        body["intersects"] = _parse_json_argument(args["intersects"], "intersects")
    if "filter" in args:
        is_json = args.get("filter-lang") == "cql2-json"
        body["filter"] = _parse_json_argument(args["filter"], "filter") if is_json else args["filter"]
        body.setdefault("filter-lang", "cql2-text")
    return body


def parse_search(body: Mapping[str, Any], collection: str | None = None) -> tuple[ItemQuery, Fields]:
    """Parse a search in one collection or in all; RequestInvalid says what to change."""
    for name in sorted(body.keys() - set(SEARCH_PARAMETERS)):
        raise make_search_error(f"unknown member '{name}'. Supported are: {', '.join(SEARCH_PARAMETERS)}.")
    if body.get("bbox") is not None and body.get("intersects") is not None:
        raise make_search_error("'bbox' and 'intersects' are mutually exclusive. Provide only one of them.")
    start, end = _read_interval(body.get("datetime"))
    token = body.get("token")
    if token is not None and not isinstance(token, str):
        raise make_search_error("'token' must be a string.")
    collections = _read_names(body, "collections")
    if collection is not None and collections not in (None, (collection,)):
        raise make_search_error(f"'collections' can only be {collection} here.")
    query = ItemQuery(
        limit=_read_limit(body.get("limit")),
        collections=(collection,) if collection is not None else collections,
        ids=_read_names(body, "ids"),
        area=_read_area(body),
        start=start,
        end=end,
        filter=_read_filter(body),
        sort=tuple(_read_sort_key(key) for key in _read_list(body, "sortby") or ()),
        token=token,
    )
    return query, _read_fields(body.get("fields"))


def _parse_numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise make_search_error(
            "'bbox' must be 4 or 6 numbers separated by commas: west, south, east, north."
        ) from error


def _split_list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _parse_fields(text: str) -> dict[str, list[str]]:
    parts = _split_list(text)
    return {
        "include": [part.lstrip("+ ") for part in parts if not part.startswith("-")],
        "exclude": [part[1:] for part in parts if part.startswith("-")],
    }


def _parse_sort_order(text: str) -> list[dict[str, str]]:
    # A plus sign in a query string means a space.
    return [
        {"field": part.lstrip("+- "), "direction": "desc" if part.startswith("-") else "asc"}
        for part in _split_list(text)
    ]


def _parse_json_argument(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except RequestInvalid as error:
        raise make_search_error(f"'{name}' is not valid JSON: {error.message}") from error


def _read_limit(value: Any) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise make_search_error(f"'limit' must be an integer from 1 to {MAX_LIMIT}.")
    return min(value, MAX_LIMIT)


def _read_list(body: Mapping[str, Any], name: str) -> list[Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise make_search_error(f"'{name}' must be an array.")
    max_elements = MAX_ELEMENTS[name]
    if value is not None and len(value) > max_elements:
        raise make_search_error(
            f"'{name}' must not have more than {max_elements} elements. Split the search into several."
        )
    return value


def _read_names(body: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = _read_list(body, name)
    if value is None or (name == "collections" and not value):
        return None
    if not all(isinstance(element, str) for element in value):
        raise make_search_error(f"'{name}' must be an array of strings.")
    return tuple(value)


def _read_interval(value: Any) -> Any:
    if value is None:
        return None, None
    if not isinstance(value, str):
        raise make_search_error("'datetime' must be a string.")
    return parse_interval(value)


def _read_area(body: Mapping[str, Any]) -> Any:
    if body.get("bbox") is not None:
        return parse_bbox(body["bbox"])
    return parse_geometry(body["intersects"]) if body.get("intersects") is not None else None


def _read_filter(body: Mapping[str, Any]) -> Any:
    if body.get("filter-crs", CRS84[0]) not in CRS84:
        raise make_search_error(f"'filter-crs' can only be {CRS84[0]}.")
    expression = body.get("filter")
    return None if expression is None else parse_filter(expression, body.get("filter-lang", "cql2-json"))


def _read_sort_key(value: Any) -> SortKey:
    if not isinstance(value, Mapping) or not isinstance(value.get("field"), str):
        raise make_search_error("'sortby' must be an array of objects with 'field' and 'direction'.")
    direction = value.get("direction", "asc")
    if direction not in ("asc", "desc"):
        raise make_search_error("the direction in 'sortby' must be 'asc' or 'desc'.")
    return SortKey(value["field"].removeprefix("properties."), direction == "desc")


def _read_fields(value: Any) -> Fields:
    if value is None:
        return Fields()
    is_valid = isinstance(value, Mapping) and not value.keys() - {"include", "exclude"}
    lists = [value.get(name) or [] for name in ("include", "exclude")] if is_valid else None
    if lists is None or not all(isinstance(v, list) and all(isinstance(p, str) for p in v) for v in lists):
        raise make_search_error(
            "'fields' must be an object with 'include' and 'exclude', which are arrays of strings."
        )
    if sum(map(len, lists)) > MAX_ELEMENTS["fields"]:
        raise make_search_error(f"'fields' must not contain more than {MAX_ELEMENTS['fields']} members.")
    return Fields(tuple(lists[0]), tuple(lists[1]))
