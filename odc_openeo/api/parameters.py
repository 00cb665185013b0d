"""Query parameters of views: named once, for the checks of a request and for the description of the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from flask import request

from odc_openeo.errors import RequestInvalid

P = ParamSpec("P")
R = TypeVar("R")

TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer", "minimum": 1}
NUMBERS: Final = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6}

PARAMETERS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "limit": (COUNT, "Most elements in the answer; the link `next` leads to the others."),
    "after": (TEXT, "Where a page begins, as in links `next`."),
    "token": (TEXT, "Where a page begins, as in links `next`."),
    "offset": (TEXT, "Id of the last log entry that is known already."),
    "level": (
        {"type": "string", "enum": ["debug", "info", "warning", "error"]},
        "Least severe level wanted.",
    ),
    "partial": ({"type": "boolean"}, "Whether unfinished results are wanted."),
    "bbox": (NUMBERS, "West, south, east, north in degrees; west > east crosses the antimeridian."),
    "intersects": (TEXT, "A GeoJSON geometry, as JSON, that outlines must share a point with."),
    "datetime": (TEXT, "A time or an interval of RFC 3339, both ends included; `..` is open."),
    "ids": ({"type": "array", "items": TEXT}, "Ids of items."),
    "collections": ({"type": "array", "items": TEXT}, "Ids of collections."),
    "fields": ({"type": "array", "items": TEXT}, "Members wanted, or with `-` in front not wanted."),
    "sortby": (
        {"type": "array", "items": TEXT},
        "Properties to order by, with `-` in front from high to low.",
    ),
    "filter": (TEXT, "A filter in CQL2."),
    "filter-lang": ({"type": "string", "enum": ["cql2-text", "cql2-json"]}, "What the filter is written in."),
    "filter-crs": (TEXT, "Reference system of geometries in the filter: only degrees, CRS84."),
}
"""JSON Schema and description of every query parameter by its name."""


def takes(*names: str, only: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare the query parameters of a view; with ``only``, others are refused.

    Refusing is for searches, where a parameter that is misspelt or unknown would give too much unnoticed.
    """
    for name in names:
        assert name in PARAMETERS, name

    def declare(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            unknown = sorted(set(request.args) - set(names)) if only else []
            if unknown:
                raise RequestInvalid(
                    f"There is no parameter '{unknown[0]}' here. There are: {', '.join(sorted(names))}."
                )
            return view(*args, **kwargs)

        checked.parameters = names  # type: ignore[attr-defined]
        return checked

    return declare
