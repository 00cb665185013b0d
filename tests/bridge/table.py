"""The table of operations in the documentation, made of the expressions that the tests compute.

`python -m tests.bridge.table` writes it anew.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bridge.expressions import EXPRESSIONS
from tests.bridge.offline import make_offline_dataset
from tests.bridge.processes import list_child_processes, list_processes
from tests.bridge.refusals import REFUSED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "openeo-xarray.md"
BEGIN, END = "<!-- table of operations -->", "<!-- end of the table -->"
ROUTINE = {"load_collection", "drop_dimension", "filter_bands", "rename_dimension"}


def read_sources(module: str) -> dict[str, str]:
    """The code of the functions of a module by their names."""
    path = Path(__file__).with_name(module)
    text = path.read_text(encoding="utf-8")
    sources = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("section", "refused"):
            for keyword in node.keywords:
                if keyword.arg and isinstance(keyword.value, ast.Lambda):
                    sources[keyword.arg] = ast.unparse(keyword.value.body)
    return sources


def describe_processes(data: Any) -> str:
    """The processes that an expression becomes, each once."""
    names = dict.fromkeys(p for p in list_processes(data) if p not in ROUTINE)
    children = sorted(list_child_processes(data) - set(names))
    inner = f" ({', '.join(children[:6])}{', …' if len(children) > 6 else ''})" if children else ""
    return ", ".join(names) + inner or "–"


def list_rows() -> Iterator[str]:
    """The lines of the table, section after section."""
    dataset, sources = make_offline_dataset(), read_sources("expressions.py")
    for section in dict.fromkeys(e.section for e in EXPRESSIONS):
        yield from ("", f"### {section.capitalize()}", "", "| xarray | openEO |", "|---|---|")
        for expression in (e for e in EXPRESSIONS if e.section == section):
            try:
                processes = describe_processes(expression.function(dataset))
            except ValueError:
                processes = "none: there are no pixels in it"
            yield f"| {quote(sources[expression.code])} | {processes} |"


def list_refusals() -> Iterator[str]:
    """The lines of the table of what is refused."""
    dataset, sources = make_offline_dataset(), read_sources("refusals.py")
    yield from ("", "### Refused", "", "| xarray or NumPy | what the error says to do |", "|---|---|")
    for refused in REFUSED:
        try:
            refused.function(dataset)
        except NotImplementedError as error:
            code = sources.get(refused.code, "if (ds.red > 0).any(): ...")
            yield f"| {quote(code)} | {error.advice} |"  # type: ignore[attr-defined]


def quote(code: str) -> str:
    """Code for a cell of a table."""
    return "`" + code.replace("|", "\\|") + "`"


def make_table() -> str:
    """The tables as Markdown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = [*list_rows(), *list_refusals()]
    count = f"{len(EXPRESSIONS)} expressions are computed and {len(REFUSED)} are refused."
    return "\n".join([count, *lines, ""])


def insert_table(text: str) -> str:
    """The page with the table of today."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{make_table()}\n{END}{after}"


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1] / "openeo_xarray"))
    PAGE.write_text(insert_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
