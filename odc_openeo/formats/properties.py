"""Properties of geometries: any JSON value in columns of one type, under names that formats allow."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Set
from typing import Any, Final

import numpy as np
import pandas as pd

from odc_openeo.spatial.vector_cubes import EXACT, make_object_column

INT64: Final = np.iinfo(np.int64)
LONGEST_NAME: Final = 100
"""Most characters of a name, of at most four bytes each; file systems and netCDF allow about 255 bytes."""


def to_plain(value: Any) -> Any:
    """Convert a property to a JSON value: NaN and infinite become None, unknown types strings."""
    if isinstance(value, np.ndarray):
        return [to_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {_clean_string(str(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return (
        _clean_string(value if isinstance(value, str) else str(value))
        if not isinstance(value, int)
        else value
    )


def _clean_string(text: str) -> str:
    """Replace what is not a character: halves of surrogate pairs, which JSON may hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_string(value: Any) -> str:
    """Write a property as a string: strings as they are, no value as an empty one, others as JSON."""
    plain = to_plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def make_mixed_column(values: np.ndarray) -> np.ndarray:
    """Make a column of numbers, strings and missing values; booleans and all that is nested become JSON."""
    if values.dtype != object:
        return values
    plain = [to_plain(v) for v in values]
    cells = [v if v is None or type(v) in (int, float, str) else to_string(v) for v in plain]
    return make_object_column(plain if {type(v) for v in plain} <= {bool} else cells)


def make_typed_column(values: np.ndarray, *, nullable: bool) -> np.ndarray:
    """Make a column of one type: what does not fit into one becomes strings (JSON if it is not a string).

    Without ``nullable`` missing numbers are NaN and other missing values empty strings.
    """
    if values.dtype != object:
        return values
    plain = [to_plain(v) for v in values]
    present = [v for v in plain if v is not None]
    kinds = {type(v) for v in present}
    has_gaps = len(present) < len(plain)
    if kinds == {bool} and not has_gaps:
        return np.array(plain, dtype=bool)
    if kinds and kinds <= {int, float} and all(_fits(v, kinds, has_gaps and not nullable) for v in present):
        return _make_numbers(plain, kinds, has_gaps, nullable)
    if nullable:
        text = kinds - {str}
        return make_object_column([None if v is None else to_string(v) if text else v for v in plain])
    # netCDF ends strings at this character.
    return np.array([to_string(v).replace("\0", "\ufffd") for v in plain], dtype=str)


def _fits(value: Any, kinds: Set[type], as_float: bool) -> bool:
    if isinstance(value, float):
        return True
    return bool(abs(value) <= EXACT if as_float or float in kinds else INT64.min <= value <= INT64.max)


def _make_numbers(plain: list[Any], kinds: Set[type], has_gaps: bool, nullable: bool) -> np.ndarray:
    if kinds == {int} and not has_gaps:
        return np.array(plain, dtype=np.int64)
    if kinds == {int} and nullable:
        return make_object_column(plain)
    return np.array([np.nan if v is None else v for v in plain], dtype=float)


def choose_name(label: Any, used: Iterable[str], stem: str = "band") -> str:
    """Choose a name for a variable that netCDF and Zarr allow, and that is not used yet."""
    text = unicodedata.normalize("NFC", _clean_string(str(label)))
    name = re.sub(r"[^\w.+@-]+", "_", text)[:LONGEST_NAME]
    name = name if re.match(r"\w", name) and not isinstance(label, int | float) else f"{stem}_{name}"
    taken = {unicodedata.normalize("NFC", other) for other in used}
    return next(n for n in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if n not in taken)
