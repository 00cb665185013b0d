"""Models that check user-defined processes against the API; additional members are allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator

from odc_openeo.api.json_body import StrictModel, check_numbers, remove_nulls, validate_body
from odc_openeo.errors import ProcessGraphInvalid, ProcessGraphMissing
from odc_openeo.untrusted.model_messages import describe_model_faults


def _check_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a valid regular expression: {error}") from error
    return text


def _check_unique(values: Sequence[str]) -> Sequence[str]:
    if len(set(values)) < len(values):
        raise ValueError("contains duplicate types")
    return values


Word = Annotated[str, Field(pattern=r"^\w+$")]
Uri = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-\[\]_a-z~%]*$")]
Pattern = Annotated[str, AfterValidator(_check_regex)]
TypeName = Literal["array", "boolean", "integer", "null", "number", "object", "string"]
TypeNames = Annotated[list[TypeName], Field(min_length=1), AfterValidator(_check_unique)]


class SchemaModel(StrictModel):
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
    items: SchemaModel | Annotated[list[SchemaModel], Field(min_length=1)] | None = None


SchemaModels = SchemaModel | Annotated[list[SchemaModel], Field(min_length=1)]


class ParameterModel(StrictModel):
    """A parameter of a process."""

    name: Word
    description: str
    schema_: SchemaModels = Field(alias="schema")
    optional: bool = False
    deprecated: bool = False
    experimental: bool = False


class ReturnsModel(StrictModel):
    """The return value of a process."""

    description: str = ""
    schema_: SchemaModels = Field(alias="schema")


class ExceptionModel(StrictModel):
    """An exception that a process may raise."""

    description: str = ""
    message: str
    http: int = 400


class LinkModel(StrictModel):
    """A link to another resource."""

    rel: str
    href: Uri
    type: str = ""
    title: str = ""


class NodeModel(StrictModel):
    """A node of a process graph; its arguments are checked where it is evaluated."""

    process_id: Word
    arguments: dict[str, Any]
    namespace: str | None = None
    result: bool = False
    description: str | None = None


class ProcessModel(StrictModel):
    """A process without its graph. Clients send null for members that they do not know."""

    id: str | None = None
    summary: str | None = None
    description: str | None = None
    categories: list[str] | None = None
    parameters: list[ParameterModel] | None = None
    returns: ReturnsModel | None = None
    deprecated: bool | None = None
    experimental: bool | None = None
    exceptions: dict[str, ExceptionModel] | None = None
    examples: list[dict[str, Any]] | None = None
    links: list[LinkModel] | None = None
    public: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _check_parameter_names(cls, parameters: list[ParameterModel] | None) -> list[ParameterModel] | None:
        names = [parameter.name for parameter in parameters or ()]
        if len(set(names)) < len(names):
            raise ValueError("two parameters have the same name")
        return parameters


class GraphModel(StrictModel):
    """The nodes of a process graph by id."""

    process_graph: dict[str, NodeModel]


def parse_process(process: Mapping[str, Any]) -> dict[str, Any]:
    """Check the structure of a process and of the nodes of its graph, not whether it can be evaluated.

    Returns the process without the optional members that are null.

    Raises:
        ProcessGraphMissing: there is no process graph.
        ProcessGraphInvalid: a node of the graph is not a valid node.
        RequestInvalid: another member does not conform to the API.
    """
    check_numbers(process)
    if not isinstance(process.get("process_graph"), dict):
        raise ProcessGraphMissing
    graph = {"process_graph": process["process_graph"]}
    try:
        nodes = GraphModel.model_validate(graph)
    except ValidationError as error:
        raise ProcessGraphInvalid(reason=f"{describe_model_faults(error, graph)}.") from None
    members = validate_body(ProcessModel, process)
    return {**remove_nulls(members, process), **remove_nulls(nodes, graph)}
