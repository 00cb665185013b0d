"""The shape of the project: short functions, and a README whose tree is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 60
CODE = ("odc_openeo", "tests", "benchmarks")


def functions() -> Iterator[tuple[str, int]]:
    """Each function's place and length in lines."""
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None
                    yield (
                        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}",
                        node.end_lineno - node.lineno + 1,
                    )


def test_no_function_is_long() -> None:
    assert {place: lines for place, lines in functions() if lines > MOST_LINES} == {}


def tree() -> set[str]:
    """The paths in README's tree."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(odc_openeo/\n.*?)```", text, re.DOTALL)
    assert block is not None
    parents, found = [""], set()
    for line in block.group(1).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in takewhile(lambda word: word.endswith((".py", "/")), line.split()):
            found.add(("".join(parents[: depth + 1]) + name).rstrip("/"))
            if name.endswith("/"):
                parents[depth + 1 :] = [name]
    return found


def test_the_tree_in_the_readme_is_true() -> None:
    listed = tree()
    assert {path for path in listed if not (ROOT / path).exists()} == set()
    parts = (ROOT / "odc_openeo").iterdir()
    there = {
        f"odc_openeo/{p.name}" for p in parts if p.name[0] not in "_." and (p.is_dir() or p.suffix == ".py")
    }
    assert there - listed == set()
