"""Coordinate reference systems that users name: in requests, GeoJSON, STAC metadata, and inside of files.

PROJ opens the grid and parameter files that a definition names, wherever they are, and shifts coordinates by
what they hold: by a definition of their own users could read other files as coordinates. What names files is
refused, in all the ways in which a definition can be written.
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
"""Characters of a definition: those in use have a few thousand."""

_FILES: Final = re.compile(
    r"\b(?P<key>init|nadgrids|geoidgrids|xy_grids|z_grids|grids|catalog|file|model)\s*=\s*(?P<value>[^\s\"']*)",
    re.IGNORECASE,
)
"""Parameters of PROJ whose values are names of files, also within WKT (``EXTENSION``)."""

_HARMLESS: Final = re.compile(r"@null|epsg:\d+", re.IGNORECASE)
"""Values that name no file: no grid at all, and the legacy way to write a code of EPSG."""


class CrsRefusedError(CRSError):
    """A reference system is not known, or its definition names files."""


def parse_crs(definition: Any) -> pyproj.CRS:
    """Parse what a user has written: a code, WKT, PROJJSON (text or object), or a PROJ string.

    Raises:
        CrsRefusedError: it is not known, or names files.
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


def check_crs(crs: pyproj.CRS) -> pyproj.CRS:
    """Return a reference system that a library has read from a user's file, if its definition names no files.

    Raises:
        CrsRefusedError: it does.
    """
    _check_definition(crs)
    return crs


@lru_cache(1024)
def _check_definition(crs: pyproj.CRS) -> None:
    with warnings.catch_warnings():
        # Not all can be written as PROJ strings; those that cannot name no files in them.
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
    """Refuse parameters of transformations whose values are strings: those are names of files."""
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
