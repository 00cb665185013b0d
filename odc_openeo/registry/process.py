"""The registry of openEO processes, and the description that is published for each.

A process is a Python function decorated with `process`. Its name is the process id, its signature gives
names, order, optionality and defaults of the parameters, `Schema` annotations give their JSON Schema, its
docstring gives the prose. `GET /processes` is derived from nothing else, so what is listed is what runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import xarray as xr

from odc_openeo.cube.packing import carry_packing
from odc_openeo.registry.demand import Needs
from odc_openeo.registry.environment import Environment
from odc_openeo.untrusted.json_schemas import Draft7Validator, Match, compile_match, make_validator


class _Omitted:
    """Default of a parameter that is optional and has no default value in the specification."""

    def __repr__(self) -> str:
        return "OMITTED"

    def __bool__(self) -> bool:
        return False


OMITTED: Final = _Omitted()


@dataclass(frozen=True)
class Schema:
    """The JSON Schema of a parameter or return value: an object, or a list of alternatives.

    ``accepts`` is checked instead where a process accepts more than it publishes (the logarithm of a negative
    number is NaN, though its schema says "minimum 0").
    """

    json: Any
    accepts: Any = None
    deprecated: bool = False


class _Deferred:
    """Marker of a parameter whose value arrives as a function without arguments, evaluated only if called."""


DEFERRED: Final = _Deferred()

ChildProcess = Callable[..., Any]
"""A child process graph as a callable: takes its parameters by keyword and returns its result."""


Skips = Callable[[Mapping[str, Any]], bool]
"""Tests by the arguments of a node whether its process skips no-data."""


Check = Callable[[Mapping[str, Any]], None]
"""Raises the error of arguments, of which those are missing that are not constant."""


Foreign = Mapping[str, str | None]
"""Arguments of other back-ends: what to do instead, or None for those that are ignored with a warning."""


@dataclass(frozen=True)
class Example:
    """An example of a process, published with it and run as a test."""

    arguments: Mapping[str, Any]
    returns: Any
    title: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the example as published in the process description."""
        title = {"title": self.title} if self.title else {}
        return {**title, "arguments": dict(self.arguments), "returns": self.returns}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a process."""

    name: str
    description: str
    schema: Any
    default: Any
    optional: bool
    deferred: bool
    accepts: Any = None
    deprecated: bool = False
    takes_pixels: bool = True
    is_predefined: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the parameter as published in the process description."""
        described = {"name": self.name, "description": self.description, "schema": self.schema}
        if self.deprecated:
            described["deprecated"] = True
        if not self.optional:
            return described
        if self.default is OMITTED:
            return {**described, "optional": True}
        return {**described, "optional": True, "default": self.default}

    @cached_property
    def validator(self) -> Draft7Validator:
        """The validator of JSON values against the schema."""
        return make_validator(self._checked_schema)

    @cached_property
    def match(self) -> Match:
        """A quick test that passes most of the JSON values that the validator accepts."""
        return compile_match(self._checked_schema, exact=self.is_exact)

    @property
    def is_exact(self) -> bool:
        """Whether numbers must be finite and integers must fit into 64 bits: in all but pixels."""
        return not self.takes_pixels

    @property
    def _checked_schema(self) -> Any:
        return self.schema if self.accepts is None else self.accepts

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The schemas of accepted values as a list: those published, or wider ones."""
        return self._checked_schema if isinstance(self._checked_schema, list) else [self._checked_schema]

    @cached_property
    def takes_null(self) -> bool:
        """Whether null is a value of the parameter; if not, null stands for its default."""
        return self.validator.is_valid(None)

    @cached_property
    def is_integer(self) -> bool:
        """Whether it takes only integers as numbers; in JSON, these may be written as 2.0."""
        return _takes_integers_only(self.alternatives)

    @cached_property
    def has_integers(self) -> bool:
        """Whether the arrays that it takes hold only integers as numbers."""
        arrays = [s for s in self.alternatives if s.get("type") == "array"]
        return bool(arrays) and all(_takes_integers_only([s.get("items") or {}]) for s in arrays)

    def as_declared(self, value: Any) -> Any:
        """Convert floats such as 2.0 of a valid value to integers where only integers are accepted."""
        if type(value) is float and self.is_integer:
            return int(value)
        if type(value) is list and self.has_integers:
            return [int(item) if type(item) is float else item for item in value]
        return value

    @property
    def alternatives(self) -> list[dict[str, Any]]:
        """The schema as a list of alternatives."""
        return self.schema if isinstance(self.schema, list) else [self.schema]

    @property
    def child_schema(self) -> dict[str, Any] | None:
        """The schema of the child process that the parameter takes, if it takes one."""
        schemas = (s for s in self.alternatives if s.get("subtype") == "process-graph")
        return next(schemas, None)


def _takes_integers_only(schemas: Sequence[Mapping[str, Any]]) -> bool:
    names = [s.get("type") for s in schemas]
    types = {t for one in names for t in (one if isinstance(one, list) else [one])}
    return "integer" in types and types <= {"integer", "null"}


@dataclass(frozen=True)
class Process:
    """A registered process: the function that runs and the description derived from it."""

    id: str
    function: Callable[..., Any]
    categories: Sequence[str]
    examples: Sequence[Example]
    links: Sequence[Mapping[str, str]]
    experimental: bool
    needs: Needs | None = None
    pure: bool = True
    pointwise: bool = False
    in_view: bool = False
    skips_nodata: Skips | None = None
    former_names: Mapping[str, str] = field(default_factory=dict)
    raw_values_of: Sequence[str] | None = ()
    check: Check | None = None
    foreign: Foreign = field(default_factory=dict)
    whole_because: str | None = None

    @cached_property
    def _docstring(self) -> docstring_parser.Docstring:
        return docstring_parser.parse(
            inspect.getdoc(self.function) or "", docstring_parser.DocstringStyle.GOOGLE
        )

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def needs_environment(self) -> bool:
        """Whether the function takes the environment (``env``)."""
        return "env" in self._argument_names

    @cached_property
    def _argument_names(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.function).parameters)

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters by name, in order."""
        prose = {p.arg_name: p.description or "" for p in self._docstring.params}
        return {
            p.name.rstrip("_"): _make_parameter(p, self._hints[p.name], prose.get(p.name, ""))
            for p in inspect.signature(self.function).parameters.values()
            if p.kind is not inspect.Parameter.KEYWORD_ONLY
        }

    @cached_property
    def returns(self) -> Any:
        """The JSON Schema of the return value."""
        return _get_schema(self._hints.get("return", Any)).json

    @cached_property
    def returns_numbers(self) -> bool:
        """Whether the return value consists of numbers, never of booleans."""
        return all(map(_is_numeric, self.returns if isinstance(self.returns, list) else [self.returns]))

    @cached_property
    def makes_raster(self) -> bool:
        """Whether the return value is, or may be, a cube with pixels."""
        schemas = self.returns if isinstance(self.returns, list) else [self.returns]
        cubes = [s for s in schemas if str(s.get("subtype", "")).endswith("cube")]
        return any({"type": "geometry"} not in s.get("dimensions", ()) for s in cubes)

    def call(self, arguments: Mapping[str, Any], env: Environment) -> Any:
        """Run the process with arguments by their openEO names."""
        names = self._argument_names
        python = {name if name in names else f"{name}_": value for name, value in arguments.items()}
        value = self.function(**python, env=env) if self.needs_environment else self.function(**python)
        if self.raw_values_of is None:
            return value
        return carry_packing(value, [arguments.get(name) for name in self.raw_values_of])

    def to_dict(self) -> dict[str, Any]:
        """Return the process description for ``GET /processes``."""
        doc = self._docstring
        described: dict[str, Any] = {
            "id": self.id,
            "summary": (doc.short_description or "").rstrip("."),
            "description": doc.long_description or doc.short_description or "",
            "categories": list(self.categories),
            "parameters": [p.to_dict() for p in self.parameters.values()],
            "returns": {
                "description": doc.returns.description if doc.returns else "",
                "schema": self.returns,
            },
        }
        if self.experimental:
            described["experimental"] = True
        if doc.raises:
            described["exceptions"] = {r.type_name: {"message": r.description or ""} for r in doc.raises}
        if self.examples:
            described["examples"] = [e.to_dict() for e in self.examples]
        described["links"] = [*self.links, _specification_link(self.id)]
        return described


def _is_numeric(schema: Mapping[str, Any]) -> bool:
    types = schema.get("type", ())
    names = {types} if isinstance(types, str) else set(types)
    if names == {"array"}:
        return _is_numeric(schema.get("items", {}))
    return bool(names) and names <= {"number", "integer", "null"}


PROCESSES: dict[str, Process] = {}

F = TypeVar("F", bound=Callable[..., Any])


def process(
    *,
    categories: Sequence[str],
    examples: Sequence[Example] = (),
    links: Sequence[Mapping[str, str]] = (),
    experimental: bool = False,
    needs: Needs | None = None,
    pure: bool = True,
    pointwise: bool = False,
    in_view: bool = False,
    skips_nodata: Skips | None = None,
    former_names: Mapping[str, str] | None = None,
    raw_values_of: Sequence[str] | None = (),
    check: Check | None = None,
    foreign: Foreign | None = None,
    whole_because: str | None = None,
) -> Callable[[F], F]:
    """Register a function as the openEO process of its name.

    ``needs`` is the rule by which it passes demands on to its inputs (see `odc_openeo.registry.demand`);
    ``pure``: equal arguments give equal values without side effects, so equal nodes run once;
    ``pointwise``: each output pixel depends only on the same input pixel (except along x and y, if its rule
    says that it uses all values along them); ``in_view``: it makes its cube on the pixels of a map tile if
    these are demanded; ``skips_nodata`` decides by the arguments whether it ignores no-data in the array
    ``data``; ``former_names`` are names of parameters that older clients send, with those of today;
    ``raw_values_of`` names the arguments whose raw values the result holds, or values between them, so that
    units, scales and offsets of their bands are those of the result too. By default it has none. With None
    the process itself, or its child process, decides. ``check`` raises the errors that its constant arguments
    alone tell, defaults included; ``foreign`` has arguments that it does not take, but other back-ends do.
    ``whole_because`` says why jobs with this process are not split into parts, as the end of a sentence.
    """

    def register(function: F) -> F:
        id_ = function.__name__.rstrip("_")
        if id_ in PROCESSES:
            raise ValueError(f"process {id_!r} is registered twice")
        PROCESSES[id_] = Process(
            id_,
            function,
            categories,
            examples,
            links,
            experimental,
            needs,
            pure,
            pointwise,
            in_view,
            skips_nodata,
            former_names or {},
            raw_values_of,
            check,
            foreign or {},
            whole_because,
        )
        return function

    return register


def _specification_link(id_: str) -> dict[str, str]:
    return {
        "rel": "about",
        "href": f"https://processes.openeo.org/#{id_}",
        "type": "text/html",
        "title": "The process in the openEO specification",
    }


def _get_schema(hint: Any) -> Schema:
    schemas = (
        [m for m in get_args(hint)[1:] if isinstance(m, Schema)] if get_origin(hint) is Annotated else []
    )
    return schemas[-1] if schemas else Schema({})


def _takes_pixels(hint: Any, schema: Any) -> bool:
    """Return whether an argument may be, or contain, a DataArray: values to compute with, or a cube."""
    if any("type" not in alternative for alternative in (schema if isinstance(schema, list) else [schema])):
        return True
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return xr.DataArray in (base, *get_args(base))


def _make_parameter(p: inspect.Parameter, hint: Any, prose: str) -> Parameter:
    schema = _get_schema(hint)
    default = list(p.default) if isinstance(p.default, tuple) else p.default
    deferred = get_origin(hint) is Annotated and DEFERRED in get_args(hint)[1:]
    return Parameter(
        name=p.name.rstrip("_"),
        description=prose,
        schema=schema.json,
        default=None if default is inspect.Parameter.empty else default,
        optional=p.default is not inspect.Parameter.empty,
        deferred=deferred,
        accepts=schema.accepts,
        deprecated=schema.deprecated,
        takes_pixels=deferred or _takes_pixels(hint, schema.json),
    )
