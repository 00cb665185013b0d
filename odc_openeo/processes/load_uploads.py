"""Load cubes from files: those of the user (`load_uploaded_files`) and those on the web (`load_url`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from odc_openeo.errors import FeatureUnsupported, FileNotFound, FilePathInvalid, ProcessParameterInvalid
from odc_openeo.formats.read import get_input_format
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import Cube
from odc_openeo.user_data import files

FilePaths = Annotated[
    Sequence[str],
    Schema(
        {
            "type": "array",
            "subtype": "file-paths",
            "items": {"type": "string", "subtype": "file-path", "pattern": "^[^\r\n\\:'\"]+$"},
        }
    ),
]
Url = Annotated[
    str,
    Schema({"title": "URL", "type": "string", "format": "uri", "subtype": "uri", "pattern": "^https?://"}),
]
InputFormat = Annotated[str, Schema({"type": "string", "subtype": "input-format"})]
InputOptions = Annotated[dict[str, Any], Schema({"type": "object", "subtype": "input-format-options"})]


def _make_format_check(process_id: str) -> Callable[[Mapping[str, Any]], None]:
    """Make the check of the name of an input format and, if they are there, its options."""

    def check_format(arguments: Mapping[str, Any]) -> None:
        if "format" in arguments:
            _get_format(arguments["format"], arguments.get("options") or {}, process_id)

    return check_format


@process(
    categories=["cubes", "import"],
    experimental=True,
    pure=False,
    whole_because="files of users are read as they are, not in parts",
    raw_values_of=None,
    check=_make_format_check("load_uploaded_files"),
)
def load_uploaded_files(
    paths: FilePaths,
    format: InputFormat,
    options: InputOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Cube:
    """Load one data cube from files that you have uploaded.

    Args:
        paths: Paths of your files; folders are not supported.
        format: The name of the file format in any casing, one of the input formats of `GET /file_formats`.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused.

    Returns:
        A raster cube or a vector cube.

    Raises:
        FormatUnsuitable: The files can't be read in this format.
        FileNotFound: You have no file at such a path.
    """
    file_format = _get_format(format, options, "load_uploaded_files")
    if not paths:
        raise _make_error("load_uploaded_files", "paths", "give at least one path.")
    return file_format.read([_get_path(path, env) for path in paths])


@process(
    categories=["cubes", "import"],
    experimental=True,
    pure=False,
    whole_because="files of users are read as they are, not in parts",
    raw_values_of=None,
    check=_make_format_check("load_url"),
)
def load_url(
    url: Url,
    format: InputFormat,
    options: InputOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Cube:
    """Load a data cube from a file on the web.

    The file is downloaded first, so that it stays the same for the whole computation. If only a part of a
    large raster is needed, better use `load_stac`.

    Args:
        url: The URL of the file, including credentials such as tokens if they are needed to read it.
        format: The name of the file format in any casing, one of the input formats of `GET /file_formats`.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused.

    Returns:
        A raster cube or a vector cube.

    Raises:
        FormatUnsuitable: The file can't be read in this format.
    """
    file_format = _get_format(format, options, "load_url")
    env.require_run()
    if env.catalog is None or env.user is None:
        raise FeatureUnsupported(feature="load_url without a user")
    return file_format.read([files.fetch_file(env.catalog.config, env.user, url)])


def _get_format(format_: str, options: Mapping[str, Any], process_id: str) -> Any:
    file_format = get_input_format(format_)
    if options:
        raise _make_error(process_id, "options", f"format {file_format.name} has no options.")
    return file_format


def _get_path(path: str, env: Environment) -> Any:
    if env.user is None:
        env.require_run()
    if env.catalog is None or env.user is None:
        raise FileNotFound(file=path)
    try:
        return files.get_local_path(env.catalog.config, env.user, path)
    except FilePathInvalid as error:
        raise FileNotFound(file=path) from error


def _make_error(process_id: str, parameter: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=process_id, parameter=parameter, reason=reason)
