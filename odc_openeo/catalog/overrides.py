"""Operators' overrides of product metadata, from a YAML file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

GroupBy = Literal["time", "solar_day"]


class BandOverride(BaseModel):
    """Overrides of one band."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    common_name: str | None = None


class Override(BaseModel):
    """Overrides of one product; omitted fields come from the product definition."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = None
    description: str | None = None
    license: str | None = None
    keywords: list[str] | None = None
    providers: list[dict[str, Any]] | None = None
    links: list[dict[str, Any]] = Field(default_factory=list)
    bands: dict[str, BandOverride] = Field(default_factory=dict)
    groupby: GroupBy | None = None
    hidden: bool = False

    @property
    def common_names(self) -> dict[str, str]:
        """Common names by band name."""
        return {name: b.common_name for name, b in self.bands.items() if b.common_name}


_FILE = TypeAdapter(dict[str, Override])
NOTHING = Override()
NO_OVERRIDES: dict[str, Override] = {}


class OverridesError(ValueError):
    """The overrides file cannot be used; the message says where and why."""


def read_overrides(path: Path | None) -> dict[str, Override]:
    """Read the overrides by product name; read again when the file has changed.

    Raises:
        OverridesError: the file is missing, is not valid YAML or has unknown keys.
    """
    if path is None:
        return NO_OVERRIDES
    try:
        return _read_cached(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise OverridesError(f"the collection overrides {path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4)
def _read_cached(path: Path, _changed: int) -> dict[str, Override]:
    try:
        return _FILE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValidationError) as error:
        raise OverridesError(f"the collection overrides {path} are invalid: {error}") from error
