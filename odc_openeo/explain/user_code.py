"""User code as a part of a program: beside its own functions, or in a function if names would clash."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

from odc_openeo.explain.calls import NoProgram
from odc_openeo.explain.code import INDENT
from odc_openeo.explain.program import IMPORTS, Program

ENTRIES: Final = ("apply_datacube", "apply_timeseries", "apply_udf_data")
"""Functions that a program can call."""
UNKNOWN: Final = ("apply_hypercube", "apply_vectorcube", "transform")
_FUTURE: Final = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)


def find_entry(source: str) -> tuple[str, str]:
    """The name of the function that is called, and the annotation of its first parameter.

    Raises:
        NoProgram: the code has none of those that are written, or is not valid.
    """
    functions = {n.name: n for n in _parse(source).body if isinstance(n, ast.FunctionDef)}
    name = next((name for name in ENTRIES if name in functions), None)
    if name is None or any(other in functions for other in UNKNOWN):
        raise NoProgram("its function is none of those that programs call; call it here.")
    arguments = functions[name].args
    first = next(iter([*arguments.posonlyargs, *arguments.args]), None)
    return name, ast.unparse(first.annotation) if first is not None and first.annotation else ""


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoProgram("its code is not valid Python.") from error


def include_source(program: Program, source: str, entry: str) -> str:
    """Put user code into a program once; return the name of its function there.

    Raises:
        NoProgram: it can neither be beside the program's own functions nor in a function.
    """
    text = _FUTURE.sub("", source.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")
    for name, included in program.user_code.items():
        if included == text:
            return name
    names = set(_list_names(_parse(text)))
    clashing = names & program.names
    if not clashing:
        program.names |= names
        program.functions[entry] = text
        program.user_code[entry] = text
        return entry
    name = program.take_name(entry)
    maker = program.take_name(f"make_{entry}")
    body = [
        f"def {maker}():",
        indent_code(text),
        "",
        f"{INDENT}return {entry}",
        "",
        "",
        f"{name} = {maker}()",
    ]
    program.functions[maker] = "\n".join(body)
    program.user_code[name] = text
    return name


def _list_names(module: ast.Module) -> Iterator[str]:
    """The global names that a module binds, but for imports that the program has as well."""
    for node in ast.walk(module):
        if isinstance(node, ast.Global) or (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"):
            raise NoProgram("its code has global statements or imports everything; call it here.")
    for node in module.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name, line in _list_imports(node) if IMPORTS.get(name) != line)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        else:
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            yield from (n.id for n in stored)


def _list_imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for alias in node.names:
        name = alias.asname or alias.name.partition(".")[0]
        single = type(node)(**{**vars(node), "names": [alias]})
        yield name, ast.unparse(single)


def indent_code(source: str) -> str:
    """Indent code, but not the lines within strings."""
    within: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING:
            within |= set(range(token.start[0] + 1, token.end[0] + 1))
    return "\n".join(
        line if not line or number in within else f"{INDENT}{line}"
        for number, line in enumerate(source.split("\n"), 1)
    )
