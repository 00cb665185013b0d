"""Requirements that user code declares in a block of inline script metadata (PEP 723)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from odc_openeo.errors import ProcessParameterInvalid, UdfUnavailable
from odc_openeo.udf.runtimes import Interpreter

START: Final = "# /// script"
END: Final = "# ///"
MOST_REQUIREMENTS: Final = 50
LONGEST_REQUIREMENT: Final = 300
_FOREIGN: Final = re.compile(
    r"^\s*(-|[./~]|[a-z+]+://|(git|hg|svn|bzr)\+|file:|[A-Za-z]:\\)|\.(whl|zip|tar|gz|bz2|xz)\s*$",
    re.IGNORECASE,
)
"""Options, paths, addresses and files, which pip takes besides names of packages."""
_UV_SOURCES: Final = ("sources", "index", "index-url", "extra-index-url", "find-links")


@dataclass(frozen=True)
class ScriptMetadata:
    """The dependencies that code declares, and the versions of Python that it runs with, if it says so."""

    dependencies: tuple[Requirement, ...] = ()
    python: SpecifierSet | None = None


def find_missing_requirements(source: str, interpreter: Interpreter) -> list[Requirement]:
    """Return all requirements of code, without their markers, unless a runtime satisfies them all.

    Raises:
        ProcessParameterInvalid: its block of script metadata is not valid.
        UdfUnavailable: it needs another version of Python.
    """
    metadata = read_script_metadata(source)
    if metadata.python is not None and not metadata.python.contains(interpreter.release, prereleases=True):
        reason = (
            f"the code requires Python {metadata.python}, and the runtime has {interpreter.release}. "
            "GET /udf_runtimes lists the versions; name one in 'version'."
        )
        raise UdfUnavailable(reason=reason)
    requirements = [r for r in metadata.dependencies if _applies(r, interpreter)]
    missing = [r for r in requirements if find_problem(r, interpreter) is not None]
    return [_drop_marker(r) for r in requirements] if missing else []


def _applies(requirement: Requirement, interpreter: Interpreter) -> bool:
    if requirement.marker is None:
        return True
    try:
        return requirement.marker.evaluate({**interpreter.markers, "extra": ""})
    except (UndefinedEnvironmentName, InvalidVersion) as error:
        raise _make_error(f"the condition of '{requirement}' cannot be evaluated.") from error


def _drop_marker(requirement: Requirement) -> Requirement:
    plain = Requirement(str(requirement))
    plain.marker = None
    return plain


def find_problem(requirement: Requirement, interpreter: Interpreter) -> str | None:
    """Return why a runtime does not satisfy a requirement, None if it does."""
    version = interpreter.versions.get(canonicalize_name(requirement.name))
    if version is None:
        return "its runtime does not have it"
    try:
        fits = requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        fits = False
    return None if fits else f"its runtime has version {version}"


def read_script_metadata(source: str) -> ScriptMetadata:
    """Read what user code declares; nothing without a block.

    Raises:
        ProcessParameterInvalid: there are several blocks, it is not valid, or it names anything but packages
            of the index.
    """
    blocks = list(_iterate_blocks(source))
    if not blocks:
        return ScriptMetadata()
    if len(blocks) > 1:
        raise _make_error("it has several blocks of script metadata.")
    try:
        document = tomllib.loads(blocks[0])
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _make_error(f"its block of script metadata is not valid: {error}.") from error
    _check_tools(document)
    return ScriptMetadata(_parse_dependencies(document), _parse_python(document))


def _parse_dependencies(document: Mapping[str, Any]) -> tuple[Requirement, ...]:
    entries = document.get("dependencies", [])
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise _make_error("'dependencies' in its block of script metadata must be a list of strings.")
    if len(entries) > MOST_REQUIREMENTS or any(len(entry) > LONGEST_REQUIREMENT for entry in entries):
        reason = (
            f"its block of script metadata may have {MOST_REQUIREMENTS} dependencies of "
            f"{LONGEST_REQUIREMENT} characters at most."
        )
        raise _make_error(reason)
    return tuple(map(_parse_requirement, entries))


def _parse_requirement(text: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError) as error:
        if _FOREIGN.search(text):
            raise _make_foreign_error(text) from error
        reason = f"the dependency '{text}' in its block of script metadata is not valid: name a package."
        raise _make_error(reason) from error
    # Names of files are valid names of packages, too.
    if requirement.url is not None or _FOREIGN.search(requirement.name):
        raise _make_foreign_error(text)
    return requirement


def _make_foreign_error(text: str) -> ProcessParameterInvalid:
    return _make_error(
        f"the dependency '{text}' in its block of script metadata is not possible: URLs, paths, repositories "
        "and options of pip are refused. Name a package, such as 'scikit-image>=0.22', or put the files into "
        "an archive of the job option 'udf-dependency-archives'."
    )


def _parse_python(document: Mapping[str, Any]) -> SpecifierSet | None:
    text = document.get("requires-python")
    if text is None:
        return None
    try:
        return SpecifierSet(text)
    except (InvalidSpecifier, TypeError, AttributeError) as error:
        reason = "'requires-python' in its block of script metadata is not valid; use, for example, '>=3.11'."
        raise _make_error(reason) from error


def _check_tools(document: Mapping[str, Any]) -> None:
    tool = document.get("tool")
    uv = tool.get("uv") if isinstance(tool, Mapping) else None
    for name in _UV_SOURCES:
        if isinstance(uv, Mapping) and name in uv:
            place = f"'tool.uv.{name}' in its block of script metadata"
            raise _make_error(f"{place} is not possible: packages come from the index of the operator.")


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
