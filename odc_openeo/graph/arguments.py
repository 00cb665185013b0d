"""Check the arguments of processes against the schemas of their parameters.

The same check is made when a graph is validated (of what is constant in it) and when a process is called (of
all that came from nodes, parameters and defaults). Cubes are looked at, never computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, GEOMETRY, LabeledArray
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.graph.model import Definition, Graph
from odc_openeo.registry.process import OMITTED, Parameter, Process
from odc_openeo.untrusted.json_schemas import SCALARS, is_exact
from odc_openeo.untrusted.schema_messages import describe_schema_error, shorten_value

_CONTAINERS = (list, tuple, LabeledArray, Mapping)


def check_argument(process: Process | Definition, name: str, value: Any) -> None:
    """Check the value of an argument at the time of the call.

    Raises:
        ProcessParameterInvalid: it does not fit the schema of the parameter.
    """
    reason = find_mismatch(process.parameters[name], value)
    if reason:
        raise ProcessParameterInvalid(process=process.id, parameter=name, reason=reason)


def find_mismatch(parameter: Parameter, value: Any) -> str | None:
    """Why a value does not fit the schema of a parameter, None if it does.

    The value is JSON in which labelled arrays, cubes, child processes and models may stand.
    """
    if is_child(value):
        return None if _takes_child(parameter) else "it does not take a child process."
    if parameter.match(value) and not _holds_misplaced_child(parameter, value):
        return None
    if value is OMITTED or is_default(parameter, value):
        return None
    if cube.is_cube(value):
        return _find_cube_mismatch(parameter, value)
    if not (_is_scalar(value) or isinstance(value, _CONTAINERS)):
        return _find_object_mismatch(parameter, value)
    return _find_json_mismatch(parameter, value)


def is_default(parameter: Parameter, value: Any) -> bool:
    """Whether a value stands for the default of the parameter: null, unless null is a value of its own."""
    return value is None and parameter.optional and not parameter.takes_null


def is_child(value: Any) -> bool:
    """Whether a value is a child process, as it stands in a graph or to be called."""
    return isinstance(value, Graph) or callable(value)


def list_kinds(schema: Any) -> set[str] | None:
    """The kinds of values that a schema accepts, None if any."""
    kinds: set[str] = set()
    for alternative in schema if isinstance(schema, list) else [schema]:
        types = alternative.get("type")
        if types is None:
            return None
        if str(alternative.get("subtype", "")).endswith("cube"):
            types = "datacube"
        kinds |= {types} if isinstance(types, str) else set(types)
    return kinds | {"integer"} if "number" in kinds else kinds | {"number"} if "integer" in kinds else kinds


def describe_kinds(kinds: set[str]) -> str:
    """Kinds of values as text."""
    names = {"datacube": "a data cube", "integer": None, "object": "an object", "array": "an array"}
    shown = [n for n in (names.get(k, k if k == "null" else f"a {k}") for k in sorted(kinds)) if n]
    return " or ".join(shown) or "an integer"


# --- Child processes, cubes and other objects ----------------------------------------------------


def _takes_child(parameter: Parameter) -> bool:
    return parameter.child_schema is not None or _passes_on(parameter)


def _passes_on(parameter: Parameter) -> bool:
    """Whether a parameter only hands its value on to other processes, whatever it is."""
    untyped = any("type" not in s for s in parameter.accepted)
    return untyped and (parameter.name == "context" or not parameter.is_predefined)


def _holds_misplaced_child(parameter: Parameter, value: Any) -> bool:
    """Whether a child process is inside of a value whose parameter has no place for it there."""
    if not isinstance(value, _CONTAINERS) or cube.is_cube(value) or _passes_on(parameter):
        return False
    if any(s.get("subtype") == "metadata-filter" for s in parameter.accepted):
        return False
    return any(is_child(leaf) for _, leaf in _walk_leaves(value, exact=False))


def _find_object_mismatch(parameter: Parameter, value: Any) -> str | None:
    """Why a trained model or saved data can't be the argument."""
    if any("type" not in s or s.get("subtype") in value_subtypes(value) for s in parameter.accepted):
        return None
    return f"{_describe_expected(parameter)}, not {_describe_value(value)}."


def value_subtypes(value: Any) -> frozenset[str]:
    """The subtypes of openEO that an object of ours is of."""
    return frozenset(getattr(type(value), "openeo_subtypes", ()))


def _find_cube_mismatch(parameter: Parameter, data: cube.Cube) -> str | None:
    if any("type" not in s for s in parameter.accepted):
        return None
    if isinstance(data, xr.DataArray) and ARRAY in data.dims:
        if parameter.takes_pixels and "array" in (list_kinds(parameter.accepted) or ()):
            return None
        return f"{_describe_expected(parameter)}, not an array of values of a data cube."
    cubes = [s for s in parameter.accepted if str(s.get("subtype", "")).endswith("cube")]
    if cubes:
        reasons = [_find_dimension_mismatch(s, data) for s in cubes]
        return None if None in reasons else reasons[0]
    if isinstance(data, xr.DataArray) and parameter.takes_pixels and _takes_scalar(parameter):
        return None
    advice = ""
    if "array" in (list_kinds(parameter.accepted) or ()) and parameter.takes_pixels:
        advice = " Use the process in a child process, for example of reduce_dimension."
    return f"{_describe_expected(parameter)}, not a data cube.{advice}"


def _takes_scalar(parameter: Parameter) -> bool:
    kinds = list_kinds(parameter.accepted) or set()
    return bool(kinds & {"number", "boolean", "string", "null"})


def _find_dimension_mismatch(schema: Mapping[str, Any], data: cube.Cube) -> str | None:
    """Why a cube does not have the dimensions of space that a schema names; others are up to the process."""
    types = [d.get("type") for d in schema.get("dimensions", ())]
    has = ", ".join(map(str, data.dims)) or "none"
    if "geometry" in types and "geometry" not in {cube.dimension_type(data, d) for d in data.dims}:
        return f"it must be a vector cube, but the data cube has no dimension of geometries. It has: {has}."
    if "spatial" in types and not (isinstance(data, xr.DataArray) and cube.has_raster_dimensions(data)):
        what = "is a vector cube" if GEOMETRY in data.dims else f"has the dimensions {has}"
        return f"it must be a raster cube with the dimensions x and y, but it {what}."
    return None


# --- JSON ----------------------------------------------------------------------------------------


def _find_json_mismatch(parameter: Parameter, value: Any) -> str | None:
    alternatives = parameter.accepted
    if isinstance(value, Mapping) and _only_opaque(alternatives):
        subtypes = _describe_subtypes(alternatives)
        return f"it must be {subtypes}, not a JSON object. Refer to a node with 'from_node'."
    reason = next(_find_inner_mismatches(parameter, value), None)
    if reason:
        return reason
    plain = _strip_pixels(value)
    error = next(parameter.validator.iter_errors(plain), None)
    return None if error is None else f"{describe_schema_error(error)}."


def _find_inner_mismatches(parameter: Parameter, value: Any) -> Iterator[str]:
    """Find what a JSON value must not contain, whatever its schema: cubes, child processes, infinities."""
    untyped = any("type" not in s for s in parameter.accepted)
    if parameter.takes_pixels and not untyped and not _is_uniform(value):
        yield "an array mixes values of data cubes with strings or objects. Combine them with numbers only."
    filters = any(s.get("subtype") == "metadata-filter" for s in parameter.accepted)
    for depth, inner in _walk_leaves(value, parameter.is_exact):
        if is_child(inner) and not (filters and depth == 1 and isinstance(value, Mapping)):
            yield "a child process can't be an element of a value. Give it as the argument itself."
        elif cube.is_cube(inner) and not (parameter.takes_pixels and isinstance(inner, xr.DataArray)):
            yield f"{_describe_expected(parameter)}, but it contains a data cube."
        elif parameter.is_exact and not is_exact(inner):
            shown = shorten_value(inner)
            yield f"{shown} is not allowed: numbers must be finite, and integers fit into 64 bits."
        elif not (_is_scalar(inner) or untyped or is_child(inner) or cube.is_cube(inner)):
            yield f"{_describe_expected(parameter)}, but it contains {_describe_value(inner)}."


def _walk_leaves(value: Any, exact: bool) -> Iterator[tuple[int, Any]]:
    """Iterate over the leaves of a JSON value, each with its depth.

    Arrays of plain scalars only are skipped unless ``exact``: there is nothing to find in them.
    """
    waiting = [(0, value)]
    while waiting:
        level, one = waiting.pop()
        if cube.is_cube(one):
            yield level, one
        elif isinstance(one, Mapping):
            waiting.extend((level + 1, v) for v in one.values())
        elif isinstance(one, LabeledArray) and not (exact and level):
            waiting.extend((level + 1, v) for v in (*one.values, *one.labels))
        elif isinstance(one, list | tuple):
            if exact or not _is_flat(one):
                waiting.extend((level + 1, v) for v in one)
        else:
            yield level, one


def _is_uniform(value: Any) -> bool:
    """Whether an array with values of a cube otherwise has numbers, booleans and nulls only."""
    elements = value.values if isinstance(value, LabeledArray) else value
    if not (isinstance(elements, list | tuple) and any(map(cube.is_cube, elements))):
        return True
    return all(map(_may_join_pixels, elements))


def _may_join_pixels(value: Any) -> bool:
    if isinstance(value, xr.DataArray):
        return ARRAY not in value.dims and value.dtype.kind in "biuf"
    return type(value) in SCALARS and not isinstance(value, str)


def _is_flat(values: Any) -> bool:
    return set(map(type, values)) <= SCALARS


def _is_scalar(value: Any) -> bool:
    return type(value) in SCALARS or isinstance(value, np.generic)


def _strip_pixels(value: Any) -> Any:
    """Return a value as jsonschema knows JSON: labelled arrays as lists, without cubes."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, LabeledArray):
        value = value.values
    if type(value) is list and _is_flat(value):
        return value
    if isinstance(value, list | tuple):
        return [v if type(v) in SCALARS else _strip_pixels(v) for v in value if not cube.is_cube(v)]
    if isinstance(value, Mapping):
        return {k: _strip_pixels(v) for k, v in value.items() if not (cube.is_cube(v) or is_child(v))}
    return value


# --- Messages ------------------------------------------------------------------------------------


def _only_opaque(alternatives: list[dict[str, Any]]) -> bool:
    objects = [s for s in alternatives if _fits_type(s, "object")]
    return bool(objects) and all(_is_opaque(s) for s in objects)


def _is_opaque(schema: Mapping[str, Any]) -> bool:
    """Whether a value of this schema can come only from another process, never from JSON."""
    subtype = str(schema.get("subtype", ""))
    return subtype.endswith("cube") or subtype in {"process-graph", "ml-model"}


def _fits_type(schema: Mapping[str, Any], type_: str) -> bool:
    types = schema.get("type", type_)
    return type_ == types or (isinstance(types, list) and type_ in types)


def _describe_subtypes(alternatives: list[dict[str, Any]]) -> str:
    names = {"process-graph": "a child process", "ml-model": "a model"}
    kinds = dict.fromkeys(
        names.get(s.get("subtype", ""), "a data cube") for s in alternatives if _is_opaque(s)
    )
    return " or ".join(kinds)


def _describe_expected(parameter: Parameter) -> str:
    if _only_opaque(parameter.accepted):
        return f"it must be {_describe_subtypes(parameter.accepted)}"
    return f"it must be {describe_kinds(list_kinds(parameter.accepted) or set())}"


def _describe_value(value: Any) -> str:
    if isinstance(value, LabeledArray):
        return "an array with labels"
    names = {"ml-model": "a trained model", "stac": "what save_result returned"}
    return next((names[s] for s in value_subtypes(value) if s in names), f"a {type(value).__name__}")
