"""Query parameters of views, declared once for checking requests and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from flask import request

from odc_openeo.errors import RequestInvalid

P = ParamSpec("P")
R = TypeVar("R")

STRING: Final = {"type": "string"}
COUNT: Final = {"type": "integer", "minimum": 1}
NUMBERS: Final = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6}

PARAMETERS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "limit": (
        COUNT,
        "Maximum number of elements in the response; the link `next` leads to the others.",
    ),
    "after": (STRING, "The position at which a page starts, as given in `next` links."),
    "token": (STRING, "The position at which a page starts, as given in `next` links."),
    "offset": (STRING, "Id of the last log entry that the client has already received."),
    "level": (
        {"type": "string", "enum": ["debug", "info", "warning", "error"]},
        "Minimum severity of the log entries.",
    ),
    "partial": ({"type": "boolean"}, "Whether to include results of an unfinished job."),
    "bbox": (NUMBERS, "West, south, east, north in degrees; west > east crosses the antimeridian."),
    "intersects": (STRING, "A GeoJSON geometry that the footprints of items must intersect."),
    "datetime": (STRING, "An RFC 3339 time or a closed interval; `..` denotes an open end."),
    "ids": ({"type": "array", "items": STRING}, "Ids of items."),
    "collections": ({"type": "array", "items": STRING}, "Ids of collections."),
    "fields": ({"type": "array", "items": STRING}, "Members to include, or with the prefix `-` to exclude."),
    "sortby": (
        {"type": "array", "items": STRING},
        "Properties to sort by; with the prefix `-` in descending order.",
    ),
    "filter": (STRING, "A CQL2 filter."),
    "filter-lang": ({"type": "string", "enum": ["cql2-text", "cql2-json"]}, "The encoding of the filter."),
    "filter-crs": (
        STRING,
        "Reference system of the geometries in the filter; only CRS84 is supported.",
    ),
}
"""JSON Schema and description of every query parameter by name."""


def takes(*names: str, exclusively: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare the query parameters of a view; with ``exclusively``, requests with others are rejected.

    Searches reject them, as ignoring a misspelt or unknown parameter would silently return too much.
    """
    for name in names:
        assert name in PARAMETERS, name

    def declare(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            unknown = sorted(set(request.args) - set(names)) if exclusively else []
            if unknown:
                raise RequestInvalid(
                    f"Unknown query parameter '{unknown[0]}'. Supported are: {', '.join(sorted(names))}."
                )
            return view(*args, **kwargs)

        checked.parameters = names  # type: ignore[attr-defined]
        return checked

    return declare
