"""Strings and dates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.emitters.array_operands import list_values
from odc_openeo.explain.snippets import dates, texts

SEARCHES: Final = {"text_begins": "startswith", "text_ends": "endswith"}


@emits(*SEARCHES, "text_contains")
def write_search(call: Call) -> str:
    data, pattern, name = call["data"], call["pattern"], call.node.process_id
    fold = call.json("case_sensitive") is False
    if call.is_cube:
        cubes = f"{data.atom}.str.casefold()" if fold else data.atom
        sought = f"{pattern.atom}.casefold()" if fold else pattern.code
        method = SEARCHES.get(name, "contains")
        regex = ", regex=False" if name == "text_contains" else ""
        return f"{cubes}.str.{method}({sought}{regex})"
    text, sought = (f"{o.atom}.casefold()" if fold else o.atom for o in (data, pattern))
    code = f"{sought} in {text}" if name == "text_contains" else f"{text}.{SEARCHES[name]}({sought})"
    if isinstance(data.value, str) and not data.is_nullable:
        return code
    return f"{code} if isinstance({data.code}, str) else None"


@emits("text_find")
def write_find(call: Call) -> str:
    data, pattern = call["data"], call["pattern"]
    if call.is_cube:
        raise NoProgram("it searches in the labels of a cube.")
    helper = texts.find_folded if call.json("case_sensitive") is False else texts.find
    return f"{call.helper(helper)}({data.code}, {pattern.code})"


@emits("text_concat")
def write_concat(call: Call) -> str:
    data, separator = call["data"], call["separator"]
    values = list_values(call, data)
    if isinstance(data.value, list) and all(isinstance(v, str) for v in [*data.value, separator.value]):
        return f"{separator.atom}.join({values})"
    helper = call.helper(texts.write_json)
    joint = separator.atom if isinstance(separator.value, str) else f"{helper}({separator.code})"
    return f"{joint}.join({helper}(value) for value in {values})"


HELPERS: Final[Mapping[str, tuple[Callable[..., Any], Sequence[str]]]] = {
    "date_shift": (dates.shift_date, ("date", "value", "unit")),
    "date_between": (dates.is_date_between, ("x", "min", "max", "exclude_max")),
    "date_difference": (dates.subtract_dates, ("date1", "date2", "unit")),
    "date_replace_component": (dates.replace_component, ("date", "value", "component")),
}


@emits(*HELPERS)
def write_date(call: Call) -> Operand | str:
    """A function of the program; on the labels of a cube, on each of them."""
    function, names = HELPERS[call.node.process_id]
    helper = call.helper(function)
    operands = [call[name] for name in names]
    codes = ", ".join(operand.code for operand in operands)
    if not call.is_cube:
        return f"{helper}({codes})"
    return f"xr.apply_ufunc({helper}, {codes}, vectorize=True)"
