"""Operators' overrides of product metadata, from a YAML file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from odc_openeo.catalog.access import Access
from odc_openeo.storage.settings_files import read_if_changed

PICTURES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
"""Media types of thumbnails by the suffix of their files."""

GroupBy = Literal["time", "solar_day"]


def _check_collection_alias(alias: str) -> str:
    # What the parameter 'id' of load_collection allows.
    if not re.fullmatch(r"[\w\-.~/]{1,200}", alias):
        raise ValueError(f"{alias[:100]!r} is not a valid alias: use letters, digits and _ - . ~ /")
    return alias


def _check_band_alias(alias: str) -> str:
    if not alias.strip() or not alias.isprintable() or len(alias) > 200:
        raise ValueError(f"{alias[:100]!r} is not a valid alias: use 1 to 200 printable characters")
    return alias


def _check_picture(url: str) -> str:
    path = PurePosixPath(urlsplit(url).path)
    if urlsplit(url).scheme not in ("http", "https") or path.suffix.lower() not in PICTURES:
        raise ValueError(f"{url[:100]!r} is not an http(s) URL of a picture: {', '.join(PICTURES)}")
    return url


class BandOverride(BaseModel):
    """Overrides of one band; ``aliases`` are further names by which graphs may ask for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    common_name: str | None = None
    aliases: list[Annotated[str, AfterValidator(_check_band_alias)]] = Field(default_factory=list)


class Override(BaseModel):
    """Overrides of one product; omitted fields come from the product definition.

    ``aliases`` are further ids by which graphs and clients may ask for the collection, ``access`` says who
    may read it, ``thumbnail`` is the URL of a picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = None
    description: str | None = None
    license: str | None = None
    keywords: list[str] | None = None
    providers: list[dict[str, Any]] | None = None
    links: list[dict[str, Any]] = Field(default_factory=list)
    aliases: list[Annotated[str, AfterValidator(_check_collection_alias)]] = Field(default_factory=list)
    bands: dict[str, BandOverride] = Field(default_factory=dict)
    groupby: GroupBy | None = None
    thumbnail: Annotated[str, AfterValidator(_check_picture)] | None = None
    hidden: bool = False
    access: Access = "public"

    @property
    def thumbnail_asset(self) -> dict[str, Any] | None:
        """The thumbnail as a STAC asset, None if there is none."""
        if self.thumbnail is None:
            return None
        media_type = PICTURES[PurePosixPath(urlsplit(self.thumbnail).path).suffix.lower()]
        return {"href": self.thumbnail, "type": media_type, "roles": ["thumbnail"], "title": "Thumbnail"}

    @property
    def common_names(self) -> dict[str, str]:
        """Common names by band name."""
        return {name: b.common_name for name, b in self.bands.items() if b.common_name}

    @property
    def band_aliases(self) -> dict[str, list[str]]:
        """Aliases by band name."""
        return {name: b.aliases for name, b in self.bands.items() if b.aliases}


_FILE = TypeAdapter(dict[str, Override])
NOTHING = Override()
NO_OVERRIDES: dict[str, Override] = {}


class OverridesError(ValueError):
    """The overrides file cannot be used; the message says where and why."""


def read_overrides(path: Path | None) -> dict[str, Override]:
    """Read the overrides by product name; read again when the file has changed.

    Raises:
        OverridesError: the file is missing, is not valid YAML, has unknown keys, or an alias twice.
    """
    if path is None:
        return NO_OVERRIDES
    return read_if_changed(path, "collection overrides", OverridesError, _read_cached)


def get_change_time(path: Path | None) -> int:
    """Return the time of the last change of the file, in nanoseconds; 0 if there is none."""
    try:
        return 0 if path is None else path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)
def _read_cached(path: Path, _changed: int) -> dict[str, Override]:
    try:
        overrides = _FILE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise OverridesError(f"the collection overrides {path} are not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(_describe_problem(problem) for problem in error.errors()[:10])
        raise OverridesError(f"the collection overrides {path} are invalid: {problems}") from error
    repeated = "; ".join(_find_repeated_aliases(overrides))
    if repeated:
        raise OverridesError(f"the collection overrides {path} are invalid: {repeated}")
    return overrides


def _describe_problem(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a known key"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}"


def _find_repeated_aliases(overrides: Mapping[str, Override]) -> list[str]:
    """Describe the aliases that stand for several collections, or for several bands of one."""
    problems = [
        f"alias '{alias}' stands for several collections: {', '.join(names)}"
        for alias, names in _group_by_alias({n: o.aliases for n, o in overrides.items()}).items()
    ]
    for name, override in overrides.items():
        problems += [
            f"{name}: alias '{alias}' stands for several bands: {', '.join(bands)}"
            for alias, bands in _group_by_alias(override.band_aliases).items()
        ]
    return problems


def _group_by_alias(aliases: Mapping[str, Iterable[str]]) -> dict[str, Sequence[str]]:
    """The names that share an alias, by alias."""
    names = defaultdict(list)
    for name, synonyms in aliases.items():
        for alias in dict.fromkeys(synonyms):
            names[alias].append(name)
    return {alias: sharing for alias, sharing in names.items() if len(sharing) > 1}
