"""Run a function ``call(header, arrays)`` on arrays without any data cube around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_namespaces: dict[str, dict[str, Any]] = {}


def dispatch(
    code: str, header: Mapping[str, Any], arrays: Sequence[np.ndarray]
) -> tuple[Mapping[str, Any], Sequence[np.ndarray]]:
    """Call the function that ``code`` defines; its globals are kept between calls.

    Returns:
        The header and the arrays that it returns.
    """
    if code not in _namespaces:
        namespace: dict[str, Any] = {"__name__": "udf"}
        exec(compile(code, "udf.py", "exec"), namespace)
        _namespaces[code] = namespace
    header, arrays = _namespaces[code]["call"](header, arrays)
    return header, arrays
