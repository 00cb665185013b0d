"""Cubes from files: those of the user, `load_uploaded_files`, and foreign ones, `load_url`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from odc_openeo import files
from odc_openeo.errors import FeatureUnsupported, FileNotFound, FilePathInvalid, ProcessParameterInvalid
from odc_openeo.formats.read import find_input_format
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes.schemas import Cube

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


@process(categories=["cubes", "import"], experimental=True, pure=False)
def load_uploaded_files(
    paths: FilePaths,
    format: InputFormat,
    options: InputOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Cube:
    """Make one data cube of files that you have uploaded.

    Args:
        paths: Paths of files in your folder; folders are not possible.
        format: The name of the file format in any casing, one of the input formats of `GET /file_formats`.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused.

    Returns:
        A raster cube or a vector cube.

    Raises:
        FormatUnsuitable: The files can't be read in this format.
        FileNotFound: You have no file of such a path.
    """
    found = _input_format(format, options, "load_uploaded_files")
    if not paths:
        raise _invalid("load_uploaded_files", "paths", "name at least one file.")
    return found.read([_place(path, env) for path in paths])


@process(categories=["cubes", "import"], experimental=True, pure=False)
def load_url(
    url: Url,
    format: InputFormat,
    options: InputOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Cube:
    """Make a data cube of a file on the web.

    The file is copied here first, so that it is the same for the whole computation. Large rasters of which
    only a part is needed are better loaded with `load_stac`.

    Args:
        url: The address of the file, with whatever is needed to read it (tokens and the like).
        format: The name of the file format in any casing, one of the input formats of `GET /file_formats`.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused.

    Returns:
        A raster cube or a vector cube.

    Raises:
        FormatUnsuitable: The file can't be read in this format.
    """
    found = _input_format(format, options, "load_url")
    if env.catalog is None or env.user is None:
        raise FeatureUnsupported(feature="load_url without a user")
    return found.read([files.fetch(env.catalog.config, env.user, url)])


def _input_format(format_: str, options: Mapping[str, Any], process_id: str) -> Any:
    found = find_input_format(format_)
    if options:
        raise _invalid(process_id, "options", f"format {found.name} has no options.")
    return found


def _place(path: str, env: Environment) -> Any:
    if env.catalog is None or env.user is None:
        raise FileNotFound(file=path)
    try:
        return files.local_path(env.catalog.config, env.user, path)
    except FilePathInvalid as error:
        raise FileNotFound(file=path) from error


def _invalid(process_id: str, parameter: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=process_id, parameter=parameter, reason=reason)
