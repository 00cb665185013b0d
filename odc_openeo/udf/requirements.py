"""Requirements that user code declares in a block of inline script metadata (PEP 723)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from odc_openeo.errors import ProcessParameterInvalid, UdfUnavailable
from odc_openeo.udf.runtimes import Interpreter

START: Final = "# /// script"
END: Final = "# ///"


def check_requirements(source: str, interpreter: Interpreter) -> None:
    """Check that a runtime has what user code requires: nothing is installed for it.

    Raises:
        ProcessParameterInvalid: the block is not valid.
        UdfUnavailable: a library is missing, or there in another version.
    """
    versions = {canonicalize_name(name): version for name, version in interpreter.libraries.items()}
    for requirement in read_requirements(source):
        problem = _find_problem(requirement, versions)
        if problem is not None:
            reason = (
                f"the code requires '{requirement}', and {problem}. Libraries are not installed here; "
                "GET /udf_runtimes lists those of each runtime."
            )
            raise UdfUnavailable(reason=reason)


def _find_problem(requirement: Requirement, versions: dict[Any, str]) -> str | None:
    if requirement.url is not None:
        return "packages from addresses or paths are not possible"
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    version = versions.get(canonicalize_name(requirement.name))
    if version is None:
        return "its runtime does not have it"
    try:
        fits = requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        fits = False
    return None if fits else f"its runtime has version {version}"


def read_requirements(source: str) -> list[Requirement]:
    """Read the dependencies that user code declares; none without a block.

    Raises:
        ProcessParameterInvalid: there are several blocks, or it is not valid.
    """
    blocks = list(_iterate_blocks(source))
    if not blocks:
        return []
    if len(blocks) > 1:
        raise _make_error("it has several blocks of script metadata.")
    try:
        entries = tomllib.loads(blocks[0]).get("dependencies", [])
        return [Requirement(entry) for entry in entries]
    except (tomllib.TOMLDecodeError, InvalidRequirement, TypeError, RecursionError) as error:
        raise _make_error(f"its block of script metadata is not valid: {error}.") from error


def _iterate_blocks(source: str) -> Iterator[str]:
    """Yield the contents of blocks, as PEP 723 defines them."""
    lines: list[str] | None = None
    for line in source.splitlines():
        if lines is None:
            lines = [] if line.rstrip() == START else None
        elif line.rstrip() == END:
            yield "\n".join(lines)
            lines = None
        elif line == "#" or line.startswith("# "):
            lines.append(line[2:])
        else:
            lines = None


def _make_error(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="run_udf", parameter="udf", reason=reason)
