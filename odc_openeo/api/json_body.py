"""JSON request bodies: parsing within limits of size and depth, and validation with models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Final, TypeVar

from flask import request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from werkzeug.exceptions import RequestEntityTooLarge

from odc_openeo.errors import ContentTypeInvalid, OpenEOError, ProcessInvalid, RequestInvalid
from odc_openeo.untrusted.model_messages import describe_model_faults
from odc_openeo.untrusted.strict_json import parse_json

MAX_DEPTH: Final = 600
"""Maximum nesting of arrays and objects: every level of child processes takes four levels."""


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
    """Base of the models: values are not coerced to other types, and additional members are allowed.

    Clients send null for what they do not set: optional members that are null count as absent.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    member_errors: ClassVar[Mapping[str, Callable[[], OpenEOError]]] = {}
    """The errors for invalid members that have an error code of their own."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, members: Any) -> Any:
        if not isinstance(members, Mapping):
            return members
        return {
            name: value for name, value in members.items() if value is not None or not cls._has_default(name)
        }

    @classmethod
    def _has_default(cls, member: str) -> bool:
        """Whether a member that is absent has another value than null."""
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        field = fields.get(member)
        return field is not None and not field.is_required() and field.default is not None


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
        return model.model_validate(body)
    except ValidationError as error:
        member = error.errors()[0]["loc"][:1]
        make_error = model.member_errors.get(str(member[0])) if member else None
        reason = f"{describe_model_faults(error, body)}."
        raise make_error() if make_error else RequestInvalid(reason=reason) from None


def remove_nulls(model: Any, raw: Any) -> Any:
    """Return a validated JSON value without the optional members that are null, in it and in its parts.

    Members that the model does not declare stay as they are.
    """
    if isinstance(model, BaseModel):
        names = {field.alias or name: name for name, field in type(model).model_fields.items()}
        return {
            member: remove_nulls(getattr(model, names[member]), value) if member in names else value
            for member, value in raw.items()
            if member not in names or value is not None
        }
    if isinstance(model, list):
        return [remove_nulls(item, value) for item, value in zip(model, raw, strict=True)]
    if isinstance(model, dict):
        return {name: remove_nulls(item, raw[name]) for name, item in model.items()}
    return raw


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


def read_process(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the process from the body of a request that runs or explains it; other members are ignored.

    Raises:
        ProcessInvalid: there is none.
    """
    process = body.get("process")
    if isinstance(process, Mapping):
        return process
    reason = "the body must have a member 'process', an object that contains 'process_graph'."
    if "process_graph" in body:
        reason = "'process_graph' must be a member of the object 'process', not of the body itself."
    raise ProcessInvalid(reason=reason)
