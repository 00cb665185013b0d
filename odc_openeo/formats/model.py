"""Formats, the assets they write, and the check of their options."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dask

from odc_openeo.formats.options import (
    FILENAME_PREFIX,
    HINTS,
    find_option,
    make_option_error,
    make_title,
    normalize_value,
)

Compute = Callable[..., tuple[Any, ...]]
"""Computes dask collections together and returns their values in order, like `dask.compute`."""

Options = Mapping[str, Any]

LONGEST_STEM: Final = 200
"""Most bytes of the name of a file without extension."""


@dataclass(frozen=True)
class Target:
    """Where files go: a folder that exists, the stem of their names, and who computes the pixels."""

    folder: Path
    name: str = "result"
    compute: Compute = dask.compute

    def path(self, extension: str, *parts: str) -> Path:
        """The path of a file: name and parts joined by underscores, shortened to what file systems allow."""
        stem = "_".join([self.name, *parts])
        if len(stem.encode()) > LONGEST_STEM:
            digest = hashlib.sha256(stem.encode()).hexdigest()[:12]
            stem = f"{stem.encode()[: LONGEST_STEM - 13].decode(errors='ignore')}-{digest}"
        return self.folder / f"{stem}.{extension}"


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


def _accept_all(data: Any, options: Options) -> None:
    """Accept all options."""


@dataclass(frozen=True)
class Format:
    """An output format.

    ``parameters`` are the options as published: JSON Schemas by name, each with a default unless there is
    none; all formats have ``filename_prefix`` too. ``synonyms`` are names of options in other back-ends,
    ``value_synonyms`` values of options, all in lower case. ``check`` raises `FormatUnsuitable` for data that
    can't be stored, looking at dimensions and types only; ``check_options`` raises for options that don't fit
    data. ``write(data, target, options)`` gets data that passed and options that are complete.
    """

    name: str
    title: str
    description: str
    gis_data_types: Sequence[str]
    media_type: str
    extension: str
    write: Callable[[Any, Target, Options], list[Asset]]
    check: Callable[[Any], None] = _accept_any
    check_options: Callable[[Any, Options], None] = _accept_all
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    synonyms: Mapping[str, str] = field(default_factory=dict)
    value_synonyms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stores_empty: bool = False
    links: Sequence[Mapping[str, str]] = ()

    @property
    def options(self) -> dict[str, Mapping[str, Any]]:
        """The JSON Schemas of all options by name."""
        return {**self.parameters, "filename_prefix": FILENAME_PREFIX}

    def to_dict(self) -> dict[str, Any]:
        """The format as an entry of ``GET /file_formats``."""
        return {
            "title": self.title,
            "description": self.description,
            "gis_data_types": list(self.gis_data_types),
            "parameters": {n: {"title": make_title(n), **schema} for n, schema in self.options.items()},
            "links": [dict(link) for link in self.links],
        }

    def complete_options(self, options: Options | None) -> dict[str, Any]:
        """Fill in defaults; names and strings of an enumeration may have any casing.

        Raises:
            ProcessParameterInvalid: an option is unknown, has a value that isn't allowed, or two values.
        """
        schemas = self.options
        complete = {name: schema.get("default") for name, schema in schemas.items()}
        given: dict[str, str] = {}
        for option, value in (options or {}).items():
            name = find_option(option, schemas, self.synonyms)
            if name is None and option.casefold() in HINTS:
                continue
            if name is None:
                allowed = ", ".join(schemas)
                raise make_option_error(
                    f"format {self.name} has no option '{option[:100]}'. It has: {allowed}."
                )
            values = self.value_synonyms.get(name, {})
            normal = normalize_value(self.name, name, value, schemas[name], values)
            if name in given and normal != complete[name]:
                reason = f"'{given[name]}' and '{option}' are the same option of format {self.name}"
                raise make_option_error(f"{reason}, but have different values. Give one of them.")
            complete[name], given[name] = normal, option
        return complete

    def list_ignored_options(self, options: Options | None) -> list[str]:
        """List the options that have no effect on this format, though other back-ends have them."""
        return [
            option
            for option in options or {}
            if option.casefold() in HINTS and find_option(option, self.options, self.synonyms) is None
        ]
