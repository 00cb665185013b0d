"""Coordinate reference systems supplied by users: in requests, GeoJSON, STAC metadata, and inside files.

PROJ opens the grid and parameter files that a definition names, wherever they are, and shifts coordinates by
their content: with a crafted definition, users could read other files as coordinates. Definitions that name
files are refused, in every notation.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import pyproj
from pyproj.exceptions import CRSError

LONGEST: Final = 50_000
"""Maximum number of characters of a definition; common ones have a few thousand."""

_FILES: Final = re.compile(
    r"\b(?P<key>init|nadgrids|geoidgrids|xy_grids|z_grids|grids|catalog|file|model)\s*=\s*(?P<value>[^\s\"']*)",
    re.IGNORECASE,
)
"""PROJ parameters whose values are file names, also within WKT (``EXTENSION``)."""

_HARMLESS: Final = re.compile(r"@null|epsg:\d+", re.IGNORECASE)
"""Values that do not name a file: the null grid, and the legacy notation of EPSG codes."""


class CrsRefusedError(CRSError):
    """A reference system is unknown, or its definition names files."""


def parse_crs(definition: Any) -> pyproj.CRS:
    """Parse a definition from a user: a code, WKT, PROJJSON (string or object), or a PROJ string.

    Raises:
        CrsRefusedError: it is unknown, or names files.
    """
    text = str(definition)
    if len(text) > LONGEST:
        raise CrsRefusedError(f"the definition of a reference system has more than {LONGEST} characters")
    _check_text(text)
    try:
        crs = pyproj.CRS.from_user_input(definition)
    except CrsRefusedError:
        raise
    except (CRSError, ValueError, TypeError, UnicodeError) as error:
        raise CrsRefusedError(f"unknown reference system: {text[:60]!r}") from error
    return check_crs(crs)


def parse_cf_crs(attributes: Mapping[str, Any]) -> pyproj.CRS:
    """Parse the parameters of a CF grid mapping.

    Raises:
        CrsRefusedError: they do not define a reference system, or name files.
    """
    for value in attributes.values():
        _check_text(str(value)[:LONGEST])
    try:
        return check_crs(pyproj.CRS.from_cf(dict(attributes)))
    except CrsRefusedError:
        raise
    except (CRSError, ValueError, TypeError, KeyError, UnicodeError) as error:
        name = str(attributes.get("grid_mapping_name"))[:60]
        raise CrsRefusedError(f"its grid mapping '{name}' does not define a reference system.") from error


def check_crs(crs: pyproj.CRS) -> pyproj.CRS:
    """Return a reference system that a library has read from a user's file, after checking its definition.

    Raises:
        CrsRefusedError: the definition names files.
    """
    _check_definition(crs)
    return crs


@lru_cache(1024)
def _check_definition(crs: pyproj.CRS) -> None:
    with warnings.catch_warnings():
        # Not every system can be written as a PROJ string; those that cannot have no file names in one.
        warnings.simplefilter("ignore", UserWarning)
        texts = [crs.srs, crs.to_wkt(), crs.to_proj4()]
        for version in ("WKT1_GDAL", "WKT2_2019"):
            try:
                texts.append(crs.to_wkt(version))
            except CRSError:
                continue
    for text in texts:
        _check_text(text or "")
    _check_parameters(crs.to_json_dict())


def _check_text(text: str) -> None:
    for match in _FILES.finditer(text):
        if not _HARMLESS.fullmatch(match["value"]):
            raise CrsRefusedError(
                "a reference system that names files is not allowed: use a code or plain WKT"
            )


def _check_parameters(value: Any) -> None:
    """Refuse transformation parameters with string values, which are file names."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            for parameter in item.get("parameters") or ():
                if isinstance(parameter, Mapping) and isinstance(parameter.get("value"), str):
                    raise CrsRefusedError("a reference system that names files is not allowed")
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
