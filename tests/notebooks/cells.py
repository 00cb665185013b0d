"""The notebooks of the documentation, their code, and the packages that it imports."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"
TOOLS = sorted((DOCS / "notebooks").glob("*.ipynb"))
TUTORIALS = sorted((DOCS / "tutorials").glob("*.ipynb"))
NOTEBOOKS = [*TUTORIALS, *TOOLS]


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, with their source as one string."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def list_missing_packages(path: Path) -> list[str]:
    """The imported packages that are not installed."""
    code = "\n".join(cell["source"] for cell in read_cells(path) if cell["cell_type"] == "code")
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return sorted(name for name in names if find_spec(name) is None)
