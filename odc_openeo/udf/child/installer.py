"""Install wheels with pip in the sandbox: first it decides what is missing, then it installs just that.

No code of a package runs: only wheels are taken, which are unpacked. The result is copied by the caller.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

TARGET = "content"
REPORT = "report.json"
PINS = "pins.txt"
LONGEST_OUTPUT = 20_000
OLDEST_PIP = (23, 0)
"""The first version whose reports have what is needed here."""


class PipFailed(Exception):
    """pip failed; the argument is what it wrote."""


def dispatch(code: str, header: Mapping[str, Any], arrays: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Install ``requirements`` into the folder ``content``, as far as the interpreter does not satisfy them.

    ``options`` are those of pip that choose the index, ``constraints`` files of it; ``kept`` are
    requirements of the interpreter's own libraries that must stay satisfied.

    Returns:
        ``installed``: names with versions; ``problem``: what pip wrote if it failed, else None.
    """
    os.makedirs(TARGET)
    # pip fails at folders that it may not list, such as those of editable installations.
    sys.path[:] = [path for path in sys.path if _can_be_listed(path)]
    try:
        installed = _resolve(header)
        if installed:
            _write_pins(installed)
            _run_pip(
                *("install", "--no-deps", "--require-hashes", "--target", TARGET, "--no-compile"),
                *(*header["options"], "--requirement", PINS),
            )
            _tidy_up()
    except PipFailed as error:
        return {"installed": {}, "problem": str(error)[-LONGEST_OUTPUT:]}, []
    versions = {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in installed}
    return {"installed": versions, "problem": None}, []


def _can_be_listed(path: str) -> bool:
    if not os.path.isdir(path):
        return True
    try:
        os.scandir(path).close()
    except OSError:
        return False
    return True


def _resolve(header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what pip would install, as its report describes it."""
    constraints = [word for name in header["constraints"] for word in ("--constraint", name)]
    arguments = ["install", "--dry-run", "--report", REPORT, *header["options"], *constraints]
    _run_pip(*arguments, "--", *header["requirements"], *header["kept"])
    with open(REPORT, encoding="utf-8") as file:
        entries: list[Mapping[str, Any]] = json.load(file)["install"]
    for entry in entries:
        if entry.get("is_direct"):
            raise PipFailed(f"ERROR: {entry['metadata']['name']} would come from an address, not the index")
    return entries


def _write_pins(entries: Sequence[Mapping[str, Any]]) -> None:
    with open(PINS, "w", encoding="utf-8") as file:
        for entry in entries:
            digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
            metadata = entry["metadata"]
            file.write(f"{metadata['name']}=={metadata['version']} --hash=sha256:{digest}\n")


def _tidy_up() -> None:
    """Remove programs, which user code cannot start; compile modules, as it cannot keep what it compiles."""
    import compileall  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    from py_compile import PycInvalidationMode  # noqa: PLC0415

    shutil.rmtree(os.path.join(TARGET, "bin"), ignore_errors=True)
    # The times of files change when they are copied.
    compileall.compile_dir(TARGET, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def _run_pip(*arguments: str) -> None:
    os.environ.update(PIP_CONFIG_FILE=os.devnull, PIP_NO_INPUT="1")
    try:
        main = _import_pip()
    except ImportError as error:
        raise PipFailed("ERROR: the runtime has no pip: install it there") from error
    common = ("--only-binary", ":all:", "--disable-pip-version-check", "--progress-bar", "off")
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            status = main([arguments[0], *common, "--root-user-action", "ignore", *arguments[1:]])
        except SystemExit as error:
            status = error.code
    if status != 0:
        raise PipFailed(output.getvalue())


def _import_pip() -> Any:
    """Import pip from the interpreter's environment, or the one that Python brings along for new ones."""
    try:
        import pip  # noqa: PLC0415
    except ImportError:
        import ensurepip  # noqa: PLC0415

        folder = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
        sys.path += [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith("pip-")]
        import pip  # noqa: PLC0415
    version = tuple(int(number) for number in re.findall(r"\d+", pip.__version__)[:2])
    if version < OLDEST_PIP:
        raise PipFailed(f"ERROR: pip {pip.__version__} of the runtime is too old: update it there")
    return pip.main
