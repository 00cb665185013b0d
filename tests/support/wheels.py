"""Small wheels and indexes of them, made in the test."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    requires: Iterable[str] = (),
    files: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel of a module with the name of the package and the constant ``VERSION``."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    members = {
        f"{name}.py": f"VERSION = '{version}'\n",
        **(files or {}),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in [*members, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


def write_index(folder: Path, wheels: Iterable[Path]) -> None:
    """Lay out a simple index (PEP 503) of wheels in a folder that a web server serves."""
    for wheel in wheels:
        page = folder / "simple" / wheel.name.partition("-")[0] / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        (page.parent / wheel.name).write_bytes(wheel.read_bytes())
        old = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
        page.write_text(f'{old}<a href="{wheel.name}">{wheel.name}</a>\n')


def declare(*requirements: str, code: str, more: str = "") -> str:
    """Write a block of script metadata in front of code."""
    lines = "".join(f"#   {requirement!r},\n" for requirement in requirements)
    return f"# /// script\n{more}# dependencies = [\n{lines}# ]\n# ///\n{code}"
