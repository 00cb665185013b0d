"""Cubes from the user's own files: `load_uploaded_files`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from odc_openeo import files
from odc_openeo.errors import FileNotFound, FilePathInvalid, ProcessParameterInvalid
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
    found = find_input_format(format)
    if options:
        raise _invalid("options", f"format {found.name} has no options.")
    if not paths:
        raise _invalid("paths", "name at least one file.")
    return found.read([_place(path, env) for path in paths])


def _place(path: str, env: Environment) -> Any:
    if env.catalog is None or env.user is None:
        raise FileNotFound(file=path)
    try:
        return files.local_path(env.catalog.config, env.user, path)
    except FilePathInvalid as error:
        raise FileNotFound(file=path) from error


def _invalid(parameter: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="load_uploaded_files", parameter=parameter, reason=reason)
