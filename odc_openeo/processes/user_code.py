"""The code of user-defined functions: inline, from the web or from the user's files; and its runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from odc_openeo.config import Config
from odc_openeo.errors import (
    FeatureUnsupported,
    FileNotFound,
    FileOperationUnsupported,
    FilePathInvalid,
    ProcessParameterInvalid,
)
from odc_openeo.registry.environment import NODES, Environment
from odc_openeo.udf.archives import Archive, open_local_archive, open_remote_archive, parse_archive
from odc_openeo.udf.caches import Lease
from odc_openeo.udf.calls import UdfCode, UdfSettings, read_udf_settings
from odc_openeo.udf.functions import UserFunction
from odc_openeo.udf.packages import open_packages
from odc_openeo.udf.requirements import find_missing_requirements
from odc_openeo.udf.runtimes import find_interpreter
from odc_openeo.udf.user_logs import LogTarget
from odc_openeo.user_data import files

MOST_CODE_BYTES: Final = 2**20
_LINE_BREAK: Final = re.compile(r"[\r\n]")


def open_function(
    env: Environment, udf: str, runtime: str, version: str | None, context: Any
) -> UserFunction:
    """Make the function of a node: its code, the runtime it runs in, and where its log goes.

    Raises:
        UdfUnavailable: user-defined functions are turned off, cannot be isolated here, or this one needs
            libraries that the runtime does not have and that cannot be installed.
        InvalidRuntime, InvalidVersion: there is no such runtime, or not in this version.
        FileNotFound, UrlForbidden, UrlUnreachable, UrlTooLarge: the code cannot be read.
    """
    if env.catalog is None or env.user is None:
        raise FeatureUnsupported(feature="user-defined functions without a user")
    config: Config = env.catalog.config
    settings = read_udf_settings(config)
    interpreter = find_interpreter(settings, runtime, version)
    if env.archives or _is_url(udf):
        env.require_run()
    source = read_source(config, env.user, udf)
    missing = find_missing_requirements(source, interpreter)
    if missing and config.udf_install:
        env.require_run()
    packages = (
        [open_packages(config, settings, interpreter, str(env.user), missing, env.log)] if missing else []
    )
    archives = _open_archives(config, settings, env)
    code = UdfCode(
        source,
        interpreter.python,
        packages=tuple(str(lease.folder) for lease in packages),
        links=tuple((name, str(lease.folder)) for name, lease in archives.items()),
    )
    target = LogTarget.open(env.log, NODES.get())
    leases = (*packages, *archives.values())
    return UserFunction(settings, env.user, code, {} if context is None else context, target, leases)


def _open_archives(config: Config, settings: UdfSettings, env: Environment) -> dict[str, Lease]:
    """Unpack the archives that user code is given; leases of their folders, by their names for user code."""
    return {
        archive.folder: _open_archive(config, settings, str(env.user), archive)
        for archive in map(parse_archive, env.archives)
    }


def _open_archive(config: Config, settings: UdfSettings, user: str, archive: Archive) -> Lease:
    if archive.is_url:
        return open_remote_archive(config, settings, user, archive.place)
    path = _find_file(config, user, archive.place)
    return open_local_archive(config, settings, user, archive.place, path)


def _find_file(config: Config, user: str, name: str) -> Path:
    try:
        return files.get_local_path(config, user, name)
    except (FilePathInvalid, FileOperationUnsupported) as error:
        raise FileNotFound(file=name) from error


def _is_url(udf: str) -> bool:
    return _LINE_BREAK.search(udf) is None and re.match(r"https?://", udf, re.IGNORECASE) is not None


def read_source(config: Config, user: str, udf: str) -> str:
    """Read the code of a function: as it is, from the web or from the user's files."""
    if _LINE_BREAK.search(udf):
        return udf
    path = files.fetch_file(config, user, udf) if _is_url(udf) else _find_file(config, user, udf)
    if path.stat().st_size > MOST_CODE_BYTES:
        reason = f"the code is larger than {MOST_CODE_BYTES} bytes."
        raise ProcessParameterInvalid(process="run_udf", parameter="udf", reason=reason)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = "the code is not text in UTF-8."
        raise ProcessParameterInvalid(process="run_udf", parameter="udf", reason=reason) from error
