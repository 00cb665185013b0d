"""The locked versions are all that is needed, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# Tools of the virtual environment itself, which come with it.
GIVEN = {"pip", "setuptools"}
# Imported only in environments of their own, by `make notebooks`, in tests/field_tools and as user code, by
# job workers that leave parts to Prefect, and by benchmarks, for which `make bench` installs it.
ELSEWHERE = {
    "intake",
    "nbclient",
    "nbformat",
    "numbagg",
    "onnxruntime",
    "prefect",
    "qgis",
    "skimage",
    "skl2onnx",
    "xcube",
}
# For environments of user code, and a server with a hundred packages that few services run.
UNLOCKED = {"udf", "prefect"}


def locked() -> dict[str, str]:
    """Versions by name."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==(\S+)(?: ;.*)?", line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin is not None}


def declared() -> list[Requirement]:
    """What pyproject.toml asks for, with all extras but those that are not locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (texts for name, texts in project["optional-dependencies"].items() if name not in UNLOCKED)
    return [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]


def requirements(name: str, extra: str) -> Iterator[Requirement]:
    """What an installed package needs here, with one of its extras."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def needed() -> dict[str, list[Requirement]]:
    """All requirements that follow from pyproject.toml, by name."""
    entries: dict[str, list[Requirement]] = {}
    todo = declared()
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        entries.setdefault(name, []).append(requirement)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += requirements(name, extra)
    return entries


def test_every_line_is_a_pin() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert len(locked()) == sum(not line.startswith("#") for line in lines if line)


def test_lock_has_all_requirements() -> None:
    lock = locked()
    missing = {name for name in needed() if name not in lock} - GIVEN
    assert missing == set()
    wrong = [
        f"{requirement} but {lock[name]} is locked"
        for name, requirements in needed().items()
        for requirement in requirements
        if name in lock and not requirement.specifier.contains(lock[name], prereleases=True)
    ]
    assert wrong == []


def test_the_lock_has_nothing_else() -> None:
    # On other versions of Python other back-ports are needed.
    conditional = {"tomli", "exceptiongroup", "importlib-metadata", "backports-asyncio-runner", "zipp"}
    assert set(locked()) - set(needed()) - conditional == set()


@pytest.mark.parametrize("name", ["numpy", "xarray", "dask"])
def test_the_environment_is_the_locked_one(name: str) -> None:
    assert metadata.version(name) == locked()[name]


def imported(folder: str) -> Iterator[str]:
    """Top-level modules that the files of a folder import."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", ["odc_openeo", "tests", "benchmarks"])
def test_all_that_is_imported_is_locked(folder: str) -> None:
    first_party = {"odc_openeo", "openeo_xarray", "tests", "benchmarks"}
    modules = set(imported(folder)) - first_party - set(sys.stdlib_module_names)
    providers = metadata.packages_distributions()
    assert modules
    unlocked = {
        module
        for module in modules
        if not {canonicalize_name(name) for name in providers.get(module, ())} & set(locked())
    }
    assert unlocked - GIVEN - ELSEWHERE == set()
