"""Parts of libraries that are not published are used in one module for each library, and are still there."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "odc_openeo"
PRIVATE = {
    "load/rio_internals.py": ("odc-loader", "0.6.5"),
    "compute/dask_internals.py": ("dask", "2026.8.0"),
    "catalog/odc_internals.py": ("datacube", "1.9.20"),
    "catalog/odc_postgis_internals.py": ("datacube", "1.9.20"),
    "untrusted/safe_http.py": ("rasterio", "1.4.4"),
    "stack/gunicorn_worker.py": ("gunicorn", "27.0.1"),
}
"""Modules with the library that they know from inside, and the version for which that was checked last."""


def list_private_imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None or node.module == "__future__":
            continue
        is_private_module = any(part.startswith("_") for part in node.module.split("."))
        for alias in node.names:
            is_private = is_private_module or (alias.name.startswith("_") and not alias.name.startswith("__"))
            if is_private and not node.module.startswith("odc_openeo"):
                yield node.module, alias.name


def test_only_these_modules_use_private_parts() -> None:
    users = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if any(list_private_imports(path))
    }
    assert users <= PRIVATE.keys()


@pytest.mark.parametrize("place", PRIVATE)
def test_private_parts_are_still_there(place: str) -> None:
    library, checked = PRIVATE[place]
    versions = f"{library} {metadata.version(library)} (checked last with {checked})"
    for module, name in list_private_imports(PACKAGE / place):
        assert hasattr(importlib.import_module(module), name), f"{versions} has no {module}.{name}"


def test_dask_sorts_layers() -> None:
    graph = importlib.import_module("dask.highlevelgraph").HighLevelGraph
    assert hasattr(graph, "_toposort_layers"), f"dask {metadata.version('dask')} sorts layers in another way"


def test_gunicorn_has_what_its_worker_overrides() -> None:
    worker = importlib.import_module("gunicorn.workers.gthread").ThreadWorker
    names = ("accept", "enqueue_req", "finish_request", "handle", "handle_request", "murder_pending")
    missing = [name for name in (*names, "set_accept_enabled") if not hasattr(worker, name)]
    assert missing == [], f"gunicorn {metadata.version('gunicorn')} lacks {missing}"
