"""Write Python source: literals, names, calls. User input gets into programs through here only."""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

WIDTH: Final = 100
INDENT: Final = "    "
LONGEST_NAME: Final = 40
_ATOMS: Final = (
    ast.Name,
    ast.Call,
    ast.Attribute,
    ast.Subscript,
    ast.Constant,
    ast.List,
    ast.Dict,
    ast.Tuple,
    ast.Set,
    ast.ListComp,
    ast.DictComp,
    ast.SetComp,
)


def write_literal(value: Any) -> str:
    """Write a JSON value as Python; floats without a literal of their own are those of numpy."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else ("np.inf" if value > 0 else "-np.inf")
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return write_string(value)
    if isinstance(value, Mapping):
        items = [f"{write_literal(k)}: {write_literal(v)}" for k, v in value.items()]
        return join_items("{", items, "}")
    if isinstance(value, list | tuple):
        return join_items("[", [write_literal(v) for v in value], "]")
    raise TypeError(f"{type(value).__name__} has no literal")


def write_string(text: str) -> str:
    """Write a string in double quotes where that is as short; control characters are escaped."""
    quoted = repr(text) if text.isprintable() else ascii(text)
    if quoted.startswith("'") and '"' not in quoted and "\\" not in quoted:
        return f'"{quoted[1:-1]}"'
    return quoted


def write_comment(text: str) -> str:
    """Write text as a comment of one line."""
    return "# " + "".join(c if c.isprintable() else "?" for c in text)


def join_items(start: str, items: Iterable[str], end: str) -> str:
    """Join items in brackets on one line, or on one line each if that is too long."""
    items = list(items)
    line = f"{start}{', '.join(items)}{end}"
    if len(line) <= WIDTH and "\n" not in line:
        return line
    if items and all(_is_number(item) for item in items):
        return line
    inner = "".join(f"{indent(item)},\n" for item in items)
    return f"{start}\n{inner}{end}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.e+-]+", text) is not None


def indent(text: str, levels: int = 1) -> str:
    """Indent all lines of code."""
    return "\n".join(f"{INDENT * levels}{line}" if line else line for line in text.split("\n"))


def write_call(function: str, *arguments: str, **named: str) -> str:
    """Write a call; arguments are code."""
    items = [*arguments, *(f"{name.rstrip('_') or '_'}={code}" for name, code in named.items())]
    return join_items(f"{function}(", items, ")")


def write_by_name(method: str, codes: Mapping[str, str]) -> str:
    """Write a call with values by names of dimensions: as keywords where all are identifiers."""
    plain = all(is_identifier(name) for name in codes)
    if plain:
        return join_items(f"{method}(", [f"{name}={code}" for name, code in codes.items()], ")")
    items = join_items("{", [f"{write_string(name)}: {code}" for name, code in codes.items()], "}")
    return f"{method}({items})"


def is_identifier(name: str) -> bool:
    """Whether a name can be a keyword argument that no method of xarray takes for itself."""
    taken = {"drop", "dim", "dims", "method", "func", "self", "keep_attrs", "skipna", "data", "tolerance"}
    return (
        bool(re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII))
        and not keyword.iskeyword(name)
        and name not in taken
    )


def make_name(text: str) -> str:
    """Make a Python name of any text; empty if nothing in it can be in a name."""
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:LONGEST_NAME].strip("_")
    if plain and plain[0].isdigit():
        plain = f"n{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or keyword.issoftkeyword(plain) else plain


def wrap_atom(code: str) -> str:
    """Code in parentheses unless it binds as tightly as a name does."""
    try:
        node = ast.parse(code, mode="eval").body
    except SyntaxError:
        return f"({code})"
    is_plain = isinstance(node, _ATOMS) and not (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    )
    return code if is_plain else f"({code})"


def wrap_operand(code: str) -> str:
    """Code as an operand of arithmetic: numbers stay as they are."""
    try:
        node = ast.parse(code, mode="eval").body
    except SyntaxError:
        return f"({code})"
    return code if isinstance(node, _ATOMS) else f"({code})"
