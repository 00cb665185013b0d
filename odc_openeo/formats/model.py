"""What a format is, what it writes, and how its options are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from jsonschema import Draft7Validator

from odc_openeo.errors import FormatUnsuitable, ProcessParameterInvalid

Compute = Callable[..., tuple[Any, ...]]
"""Computes dask collections together and gives their values in order, as `dask.compute` does."""

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
    """A file (or folder, for Zarr) that was written, with what STAC metadata wants to say of it.

    ``bands`` follow STAC 1.1 (name, data_type, nodata, statistics); ``projection`` holds fields of the
    projection
    extension; ``bbox`` and ``geometry`` are in longitude and latitude; times are RFC 3339. ``output`` is
    which
    of several outputs, written together, it belongs to.
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


def _suits(data: Any) -> None:
    """Every value suits."""


@dataclass(frozen=True)
class Format:
    """An output format.

    ``parameters`` are the options as published: JSON Schemas by name, each with a default unless there is
    none.
    ``check`` raises `FormatUnsuitable` for data that can't be stored, looking at dimensions and types only.
    ``write(data, target, options)`` gets data that passed and options that are complete.
    """

    name: str
    title: str
    description: str
    gis_data_types: Sequence[str]
    media_type: str
    extension: str
    write: Callable[[Any, Target, Options], list[Asset]]
    check: Callable[[Any], None] = _suits
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

    def complete(self, options: Options | None) -> dict[str, Any]:
        """The options with defaults filled in; names and texts out of an enumeration in any casing.

        Raises:
            ProcessParameterInvalid: an option is unknown or has a value that isn't allowed.
        """
        complete = {name: schema.get("default") for name, schema in self.parameters.items()}
        known = {name.lower(): name for name in self.parameters}
        for given, value in (options or {}).items():
            name = known.get(given.lower())
            if name is None:
                allowed = ", ".join(self.parameters) or "none"
                raise _bad_option(f"format {self.name} has no option '{given}'. It has: {allowed}.")
            complete[name] = self._option(name, value)
        return complete

    def _option(self, name: str, value: Any) -> Any:
        schema = self.parameters[name]
        if isinstance(value, str) and "enum" in schema:
            value = {str(e).lower(): e for e in schema["enum"]}.get(value.lower(), value)
        if value is None and schema.get("default") is None:
            return None
        for error in Draft7Validator(schema).iter_errors(value):
            allowed = f" Allowed: {', '.join(map(str, schema['enum']))}." if "enum" in schema else ""
            raise _bad_option(f"option '{name}' of format {self.name}: {error.message}.{allowed}")
        return value

    def unsuitable(self, reason: str) -> FormatUnsuitable:
        """The error for data that this format can't hold."""
        return FormatUnsuitable(format=self.name, reason=reason)


def _bad_option(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="save_result", parameter="options", reason=reason)
