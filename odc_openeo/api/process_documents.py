"""User-defined processes as the API has them: checked by models where it is strict; they may hold more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from odc_openeo.api.body import check_numbers
from odc_openeo.errors import ProcessGraphInvalid, ProcessGraphMissing, RequestInvalid

MOST_FAULTS: Final = 3
"""Faults that an error tells of."""


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return text


def _unique(values: Sequence[str]) -> Sequence[str]:
    if len(set(values)) < len(values):
        raise ValueError("holds a type twice")
    return values


Word = Annotated[str, Field(pattern=r"^\w+$")]
Uri = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-\[\]_a-z~%]*$")]
Pattern = Annotated[str, AfterValidator(_regex)]
TypeName = Literal["array", "boolean", "integer", "null", "number", "object", "string"]
TypeNames = Annotated[list[TypeName], Field(min_length=1), AfterValidator(_unique)]


class Model(BaseModel):
    """Values are of exactly the type that is named; what is not named is kept as it is."""

    model_config = ConfigDict(strict=True, extra="allow")


class Schema(Model):
    """The part of JSON Schema that the API describes."""

    schema_: Uri | None = Field(None, alias="$schema")
    id_: Uri | None = Field(None, alias="$id")
    subtype: str = ""
    deprecated: bool = False
    type: TypeName | TypeNames | None = None
    pattern: Pattern = ""
    enum: list[Any] = []
    minimum: float = 0
    maximum: float = 0
    minItems: float = Field(0, ge=0)  # noqa: N815  (as JSON Schema has it)
    maxItems: float = Field(0, ge=0)  # noqa: N815
    items: Schema | Annotated[list[Schema], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _not_null(self) -> Schema:
        for name in ("schema_", "id_", "type", "items"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"'{name.rstrip('_')}' is null")
        return self


Schemas = Schema | Annotated[list[Schema], Field(min_length=1)]


class Parameter(Model):
    """A parameter of a process."""

    name: Word
    description: str
    schema_: Schemas = Field(alias="schema")
    optional: bool = False
    deprecated: bool = False
    experimental: bool = False


class Returns(Model):
    """What a process gives."""

    description: str = ""
    schema_: Schemas = Field(alias="schema")


class Fault(Model):
    """An exception that a process may end with."""

    description: str = ""
    message: str
    http: int = 400


class Link(Model):
    """A link to another resource."""

    rel: str
    href: Uri
    type: str = ""
    title: str = ""


class Node(Model):
    """A node of a process graph; its arguments are checked where it is evaluated."""

    process_id: Word
    arguments: dict[str, Any]
    namespace: str | None = None
    result: bool = False
    description: str | None = None


class Process(Model):
    """All but the graph. Null stands for nothing, as clients send it for what they do not know."""

    id: str | None = None
    summary: str | None = None
    description: str | None = None
    categories: list[str] | None = None
    parameters: list[Parameter] | None = None
    returns: Returns | None = None
    deprecated: bool | None = None
    experimental: bool | None = None
    exceptions: dict[str, Fault] | None = None
    examples: list[dict[str, Any]] | None = None
    links: list[Link] | None = None
    public: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _distinct(cls, parameters: list[Parameter] | None) -> list[Parameter] | None:
        names = [each.name for each in parameters or ()]
        if len(set(names)) < len(names):
            raise ValueError("two parameters have the same name")
        return parameters


class Graph(Model):
    """The nodes of a process graph by id."""

    process_graph: dict[str, Node]


def check_process(process: Mapping[str, Any]) -> None:
    """Check the form of a process and of the nodes of its graph; not whether it can run.

    Raises:
        ProcessGraphMissing: it has no graph.
        ProcessGraphInvalid: a node of the graph is none.
        RequestInvalid: something else in it is not as the API has it.
    """
    check_numbers(process)
    if not isinstance(process.get("process_graph"), dict):
        raise ProcessGraphMissing
    try:
        Graph.model_validate({"process_graph": process["process_graph"]})
    except ValidationError as error:
        raise ProcessGraphInvalid(reason=_faults(error)) from None
    try:
        Process.model_validate(dict(process))
    except ValidationError as error:
        raise RequestInvalid(reason=_faults(error)) from None


def _faults(error: ValidationError) -> str:
    told = [f"'{'.'.join(map(str, each['loc']))}': {each['msg']}" for each in error.errors()[:MOST_FAULTS]]
    return f"{'; '.join(told)}."
