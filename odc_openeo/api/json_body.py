"""JSON request bodies: parsing within limits of size and depth, and validation with models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Final, TypeVar

from flask import request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from odc_openeo.errors import ContentTypeInvalid, OpenEOError, RequestInvalid
from odc_openeo.untrusted.strict_json import parse_json

MAX_DEPTH: Final = 600
"""Maximum nesting of arrays and objects: every level of child processes takes four levels."""

MAX_FAULTS: Final = 3
"""Maximum number of faults that an error message reports."""


# --- Parsing -------------------------------------------------------------------------------------


def read_json_object() -> dict[str, Any]:
    """Read the request body as a JSON object within the limits of depth and size; NaN is allowed.

    Raises:
        ContentTypeInvalid: the declared content type is not JSON.
        RequestInvalid: the body is missing, not valid JSON, not an object, or nested too deeply.
        werkzeug.exceptions.RequestEntityTooLarge: it exceeds the limit, in which case it is not read.
    """
    if request.mimetype and not (request.is_json or request.mimetype == "text/plain"):
        raise ContentTypeInvalid(types="application/json")
    raw = request.get_data(cache=False)
    # A body of unknown length is silently truncated at the limit.
    if request.content_length is None and len(raw) >= (request.max_content_length or math.inf):
        raise RequestEntityTooLarge
    if not raw.strip():
        raise RequestInvalid(reason="it is empty. Send a JSON object.")
    value = _decode_json(raw)
    if not isinstance(value, dict):
        raise RequestInvalid(reason=f"it is {_describe_json_type(value)}. Send a JSON object.")
    _check_depth(value)
    return value


def _decode_json(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestInvalid(reason=f"it is not valid UTF-8: byte {error.start} is wrong.") from error
    return parse_json(text)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise RequestInvalid(reason=f"arrays and objects are nested more than {MAX_DEPTH} deep. Flatten them.")


def _describe_json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


# --- Validation ----------------------------------------------------------------------------------


class StrictModel(BaseModel):
    """Base of the models: values are not coerced to other types, and additional members are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")

    member_errors: ClassVar[Mapping[str, Callable[[], OpenEOError]]] = {}
    """The errors for invalid members that have an error code of their own."""


class TitledModel(StrictModel):
    """A resource with a title and a description."""

    title: Annotated[str, Field(max_length=500)] | None = None
    description: Annotated[str, Field(max_length=100_000)] | None = None


Body = TypeVar("Body", bound=StrictModel)


def validate_body(model: type[Body], body: Mapping[str, Any]) -> Body:
    """Validate a request body.

    Raises:
        RequestInvalid: it does not conform to the model.
        OpenEOError: its first invalid member has an error code of its own.
    """
    try:
        return model.model_validate(dict(body))
    except ValidationError as error:
        member = error.errors()[0]["loc"][:1]
        make_error = model.member_errors.get(str(member[0])) if member else None
        raise make_error() if make_error else RequestInvalid(reason=describe_faults(error)) from None


def describe_faults(error: ValidationError) -> str:
    """Describe the first faults that a model has found, with their locations."""
    descriptions = [
        f"'{'.'.join(map(str, fault['loc']))}': {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()[:MAX_FAULTS]
    ]
    return f"{'; '.join(descriptions)}."


def check_numbers(body: Mapping[str, Any]) -> None:
    """Reject NaN and Infinity: they can be used in computations, but not be returned in JSON responses."""
    pending: list[Any] = [body]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise RequestInvalid(
                reason="NaN and Infinity are not valid JSON numbers. Use the process 'nan' instead."
            )
