"""Options of formats: their names and values in any casing, those of other back-ends, and their checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.untrusted.json_schemas import make_validator
from odc_openeo.untrusted.schema_messages import describe_schema_error

Schema = Mapping[str, Any]

MERGE: Final[dict[str, Any]] = {
    "type": "boolean",
    "description": "Write one file for what would otherwise be a file of each part of a large batch job.",
    "default": False,
}
"""The option of formats of which each part of a job has a file of its own."""

HINTS: Final = frozenset(
    {
        *("tiled", "bigtiff", "num_threads", "nthreads", "interleave", "blockxsize", "blockysize"),
        *("sparse_ok", "copy_src_overviews", "overview_count", "overview_compress", "overview_predictor"),
        *("cog", "profile", "geotiff_version", "statistics", "stitch", "strict_cropping"),
        *("attach_gdalinfo_assets", "file_metadata", "engine", "shuffle", "fletcher32", "chunksizes"),
        *("zlib", "optimize"),
    }
)
"""Options of other back-ends and of GDAL that say how a file is stored or described, but change no value."""

FILENAME_PREFIX: Final[dict[str, Any]] = {
    "type": ["string", "null"],
    "description": (
        "What the names of the files begin with instead of 'result'. Characters other than letters, digits, "
        "and . _ + - become -, and it is cut at 80 bytes."
    ),
    "minLength": 1,
    "maxLength": 1000,
    "default": None,
}
"""The option that all formats have."""


def make_title(name: str) -> str:
    """Make the title of an option from its name."""
    return name.replace("_", " ").capitalize()


def find_option(name: str, parameters: Iterable[str], synonyms: Mapping[str, str]) -> str | None:
    """Find an option by its name or a synonym, in any casing; None if there is none."""
    lower = name.casefold()
    return {option.casefold(): option for option in parameters}.get(lower) or synonyms.get(lower)


def normalize_value(
    format_: str, option: str, value: Any, schema: Schema, synonyms: Mapping[str, Any]
) -> Any:
    """Check the value of an option, with enumerated strings as they are published; null is the default.

    Raises:
        ProcessParameterInvalid: it is not allowed.
    """
    if value is None:
        return schema.get("default")
    value = _normalize_type(value, schema)
    if isinstance(value, str) and "enum" in schema:
        names = {str(e).casefold(): e for e in schema["enum"]}
        lower = value.casefold()
        value = names.get(lower, synonyms.get(lower, value))
    for error in make_validator(schema).iter_errors(value):
        raise make_option_error(f"option '{option}' of format {format_}: {describe_schema_error(error)}.")
    return value


def _normalize_type(value: Any, schema: Schema) -> Any:
    """Take a whole number for what it is if it comes as a string or a float, and a boolean as a string."""
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    if "integer" in types and isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value) if len(value) < 10 else value
    if "integer" in types and isinstance(value, float) and value.is_integer():
        return int(value)
    if "boolean" in types and isinstance(value, str) and value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    return value


def make_option_error(reason: str) -> ProcessParameterInvalid:
    """Make the error for an option that is unknown or has a value that is not allowed."""
    return ProcessParameterInvalid(process="save_result", parameter="options", reason=reason)
