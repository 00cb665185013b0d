"""Media types of the request and response bodies of views, declared for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

JSON: Final = "application/json"
GEOJSON: Final = "application/geo+json"
JSON_SCHEMA: Final = "application/schema+json"
HTML: Final = "text/html"
MULTIPART: Final = "multipart/form-data"
PARQUET: Final = "application/vnd.apache.parquet"
BINARY: Final = "application/octet-stream"
ANY: Final = "*/*"

ACCEPTED: Final = "accepted_media_type"
ANSWER: Final = "declared_answer"


class Answer(NamedTuple):
    """The status and media type of a successful response; no media type if it has no body."""

    status: int
    media_type: str | None


def answers(status: int = 200, media_type: str | None = None) -> Callable[[View], View]:
    """Declare the response of a view; undeclared views respond with status 200 and JSON, pages with HTML."""

    def declare(view: View) -> View:
        setattr(view, ANSWER, Answer(status, media_type))
        return view

    return declare


def accepts(media_type: str | None) -> Callable[[View], View]:
    """Declare the request body of a view, None for no body; undeclared views accept JSON, pages forms."""

    def declare(view: View) -> View:
        setattr(view, ACCEPTED, media_type)
        return view

    return declare
