"""The shape of the project: short functions, and a README whose tree is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from odc_openeo.indexing.datacube_command import build_datacube_command

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 60
HEAVY = {"numpy", "pandas", "xarray", "dask", "distributed", "datacube", "flask"}
CODE = ("odc_openeo", "openeo_xarray", "indexing", "migrations", "tests", "benchmarks")


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
    parents, items = [""], set()
    for line in block.group(1).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in takewhile(lambda word: word.endswith((".py", "/")), line.split()):
            items.add(("".join(parents[: depth + 1]) + name).rstrip("/"))
            if name.endswith("/"):
                parents[depth + 1 :] = [name]
    return items


def test_the_tree_in_the_readme_is_true() -> None:
    listed = tree()
    assert {path for path in listed if not (ROOT / path).exists()} == set()
    parts = (ROOT / "odc_openeo").iterdir()
    there = {
        f"odc_openeo/{path.name}"
        for path in parts
        if path.name[0] not in "_." and not path.is_symlink() and (path.is_dir() or path.suffix == ".py")
    }
    assert there - listed == set()


def read_floors() -> list[set[str]]:
    """The rooms of each floor in pyproject.toml, from the top."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [set(layer.replace("|", " ").split()) for layer in layers]


def test_the_floors_in_the_documentation_are_those_of_the_linter() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (`.*`) \|$", text, re.MULTILINE)
    floors = read_floors()
    assert [set(re.findall(r"`(\w+)`", rooms)) for _, rooms in rows] == floors
    assert [int(number) for number, _ in rows] == list(range(len(floors), 0, -1))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("odc_openeo.cli", {*HEAVY, "sqlalchemy"}),
        ("odc_openeo.worker", HEAVY),
        ("odc_openeo.users.accounts", HEAVY),
        ("odc_openeo.app", {"cmap", "lightgbm", "openeo", "s2cloudless", "scipy.optimize", "sklearn"}),
    ],
)
def test_small_programs_import_no_heavy_libraries(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    imported = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert imported & heavy == set()


def test_the_datacube_command_does_not_compile_the_grammar_of_uris() -> None:
    python, *program = build_datacube_command(["system", "--help"])
    done = subprocess.run([python, "-X", "importtime", *program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: datacube system")
    assert "datacube.scripts.system" in done.stderr
    assert "rfc3987_syntax.syntax_helpers" not in done.stderr


def test_processes_start_without_compiling_the_grammar_of_uris() -> None:
    code = (
        "import sys, odc_openeo.app, odc_openeo.processes; "
        "print([name in sys.modules for name in ('jsonschema', 'rfc3987_syntax')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[True, False]\n"
