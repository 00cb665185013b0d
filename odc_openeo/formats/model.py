"""Formats, the assets they write, and the check of their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.untrusted.json_schemas import make_validator
from odc_openeo.untrusted.schema_messages import describe_schema_error

Compute = Callable[..., tuple[Any, ...]]
"""Computes dask collections together and returns their values in order, like `dask.compute`."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """Where files go: a folder that exists, the stem of their names, and who computes the pixels."""

    folder: Path
    name: str = "result"
    compute: Compute = dask.compute

    def path(self, extension: str, *parts: str) -> Path:
        """The path of a file: name and parts joined by underscores."""
        return self.folder / f"{'_'.join([self.name, *parts])}.{extension}"


@dataclass(frozen=True)
class Asset:
    """A file (or folder, for Zarr) that was written, with the fields of its STAC metadata.

    ``bands`` follow STAC 1.1 (name, data_type, nodata, statistics); ``projection`` holds fields of the
    projection extension; ``bbox`` and ``geometry`` are in longitude and latitude; times are RFC 3339.
    ``output`` is the index of its output if several are written together.
    """

    path: Path
    media_type: str
    title: str
    roles: Sequence[str] = ("data",)
    bands: Sequence[Mapping[str, Any]] = ()
    datetime: str | None = None
    start_datetime: str | None = None
    end_datetime: str | None = None
    bbox: Sequence[float] | None = None
    geometry: Mapping[str, Any] | None = None
    projection: Mapping[str, Any] = field(default_factory=dict)
    output: int = 0


def _accept_any(data: Any) -> None:
    """Accept every value."""


@dataclass(frozen=True)
class Format:
    """An output format.

    ``parameters`` are the options as published: JSON Schemas by name, each with a default unless there is
    none. ``check`` raises `FormatUnsuitable` for data that can't be stored, looking at dimensions and types
    only. ``write(data, target, options)`` gets data that passed and options that are complete.
    """

    name: str
    title: str
    description: str
    gis_data_types: Sequence[str]
    media_type: str
    extension: str
    write: Callable[[Any, Target, Options], list[Asset]]
    check: Callable[[Any], None] = _accept_any
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stores_empty: bool = False
    links: Sequence[Mapping[str, str]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The format as an entry of ``GET /file_formats``."""
        return {
            "title": self.title,
            "description": self.description,
            "gis_data_types": list(self.gis_data_types),
            "parameters": {name: dict(schema) for name, schema in self.parameters.items()},
            "links": [dict(link) for link in self.links],
        }

    def complete_options(self, options: Options | None) -> dict[str, Any]:
        """Fill in defaults; names and strings of an enumeration may have any casing.

        Raises:
            ProcessParameterInvalid: an option is unknown or has a value that isn't allowed.
        """
        complete = {name: schema.get("default") for name, schema in self.parameters.items()}
        names = {name.lower(): name for name in self.parameters}
        for option, value in (options or {}).items():
            name = names.get(option.lower())
            if name is None:
                allowed = ", ".join(self.parameters) or "none"
                raise _invalid_option(f"format {self.name} has no option '{option}'. It has: {allowed}.")
            complete[name] = self._normalize_option(name, value)
        return complete

    def _normalize_option(self, name: str, value: Any) -> Any:
        schema = self.parameters[name]
        if isinstance(value, str) and "enum" in schema:
            value = {str(e).lower(): e for e in schema["enum"]}.get(value.lower(), value)
        if value is None and schema.get("default") is None:
            return None
        for error in make_validator(schema).iter_errors(value):
            raise _invalid_option(f"option '{name}' of format {self.name}: {describe_schema_error(error)}.")
        return value


def _invalid_option(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="save_result", parameter="options", reason=reason)
