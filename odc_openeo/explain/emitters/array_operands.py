"""openEO arrays as operands: lists and dictionaries of JSON, dimensions of cubes, lists of cubes."""

from __future__ import annotations

from typing import Any

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray, is_cube
from odc_openeo.explain.calls import ELEMENT, Call, Operand
from odc_openeo.explain.code import join_items, write_literal, write_string


def needs_json(operand: Operand) -> bool:
    """Whether an array is JSON: nothing in it comes from a cube."""
    value = operand.value
    if isinstance(value, LabeledArray):
        value = list(value.values)
    return not is_cube(value) and not (isinstance(value, list | tuple) and any(map(is_cube, value)))


def list_values(call: Call, operand: Operand) -> str:
    """The elements of a JSON array as a list: a labelled array is a dictionary in the program."""
    return f"list({operand.atom}.values())" if operand.is_labeled else operand.code


def get_json_values(operand: Operand) -> list[Any]:
    """The elements of a JSON array."""
    value = operand.value
    return list(value.values) if isinstance(value, LabeledArray) else list(value or [])


def write_array(call: Call, operand: Operand, like: Operand | None = None) -> Operand:
    """An array as a cube along a dimension; cubes and numbers in a list are put beside each other."""
    value = operand.value
    if isinstance(value, xr.DataArray):
        return operand if operand.dimension else Operand(operand.code, value, ELEMENT)
    elements = list(value.values) if isinstance(value, LabeledArray) else list(value)
    codes = split_list(operand.code)
    cubes = [code for code, element in zip(codes, elements, strict=True) if is_cube(element)]
    first = cubes[0] if cubes else (like.code if like else "")
    parts = [
        _write_element(call, code, element, first) for code, element in zip(codes, elements, strict=True)
    ]
    items = join_items("[", parts, "]")
    stacked = cube.stack(elements)
    return Operand(f"xr.concat({items}, dim={write_string(ELEMENT)})", stacked, ELEMENT)


def _write_element(call: Call, code: str, element: Any, first: str) -> str:
    if is_cube(element):
        return code
    if element is None:
        code = "np.nan"
    return f"xr.full_like({first}, {code}{', dtype=bool' if isinstance(element, bool) else ''})"


def split_list(code: str) -> list[str]:
    """The code of the elements of a list or the values of a dictionary that is written as one."""
    import ast

    node = ast.parse(code, mode="eval").body
    if isinstance(node, ast.List):
        return [ast.unparse(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        return [ast.unparse(element) for element in node.values]
    raise ValueError("not a list")


def write_labels(operand: Operand) -> str:
    """The labels of an array as a list."""
    return write_literal(cube.labels(operand.value, ARRAY))
