"""The code of user-defined functions: inline, from the web or from the user's files; and its runtime."""

from __future__ import annotations

import re
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
from odc_openeo.udf.archives import open_archive, parse_archive
from odc_openeo.udf.calls import UdfCode, read_udf_settings
from odc_openeo.udf.functions import UserFunction
from odc_openeo.udf.requirements import check_requirements
from odc_openeo.udf.runtimes import ask_interpreter, find_interpreter
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
            libraries that the runtime does not have.
        InvalidRuntime, InvalidVersion: there is no such runtime, or not in this version.
        FileNotFound, UrlForbidden, UrlUnreachable, UrlTooLarge: the code cannot be read.
    """
    if env.catalog is None or env.user is None:
        raise FeatureUnsupported(feature="user-defined functions without a user")
    config: Config = env.catalog.config
    settings = read_udf_settings(config)
    python = find_interpreter(settings, runtime, version)
    if env.archives or _is_url(udf):
        env.require_run()
    code = UdfCode(_read_source(config, env.user, udf), python, links=_open_archives(config, env))
    check_requirements(code.source, ask_interpreter(python))
    target = LogTarget.open(env.log, NODES.get())
    return UserFunction(settings, env.user, code, {} if context is None else context, target)


def _open_archives(config: Config, env: Environment) -> tuple[tuple[str, str], ...]:
    """Unpack the archives that user code is given; its folders with their names for user code."""
    archives = [parse_archive(text) for text in env.archives]
    return tuple((a.folder, str(open_archive(config, str(env.user), a))) for a in archives)


def _is_url(udf: str) -> bool:
    return _LINE_BREAK.search(udf) is None and re.match(r"https?://", udf, re.IGNORECASE) is not None


def _read_source(config: Config, user: str, udf: str) -> str:
    if _LINE_BREAK.search(udf):
        return udf
    if _is_url(udf):
        path = files.fetch_file(config, user, udf)
    else:
        try:
            path = files.get_local_path(config, user, udf)
        except (FilePathInvalid, FileOperationUnsupported) as error:
            raise FileNotFound(file=udf) from error
    if path.stat().st_size > MOST_CODE_BYTES:
        reason = f"the code is larger than {MOST_CODE_BYTES} bytes."
        raise ProcessParameterInvalid(process="run_udf", parameter="udf", reason=reason)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = "the code is not text in UTF-8."
        raise ProcessParameterInvalid(process="run_udf", parameter="udf", reason=reason) from error
