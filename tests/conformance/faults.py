"""Official test vectors that contradict themselves or others: what is wrong, and the case as corrected.

A case is known by its process and content, so that others are not touched. A corrected case must pass like
any other.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

Test = dict[str, Any]


def _no_data_stays(test: Test) -> None:
    test["returns"]["data"][2][0][3] = test["returns"]["nodata"]


def _median(test: Test) -> None:
    for node in test["arguments"]["reducer"]["process_graph"].values():
        node["process_id"] = "median"


def _infinity_equals_itself(test: Test) -> None:
    test["returns"] = True


FAULTS: dict[str, tuple[str, Callable[[Test], None]]] = {
    "apply ab08d386a3b7fb3a": (
        "the input has 255, the no-data value, in a pixel where 1650 is expected; a product with no-data is "
        "no-data, and the vector of merge_cubes has no-data in that same pixel",
        _no_data_stays,
    ),
    "aggregate_temporal 9bdff3850947fe5b": (
        "the reducer is mean, but the case says that it requires median, and the numbers are medians",
        _median,
    ),
    "lte 2243d2b87ceba0e4": (
        "infinity is less than or equal to itself, as the vector of gte has it the other way round",
        _infinity_equals_itself,
    ),
}


def correct_case(process: str, test: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """The test as it should be, and what was wrong with it (None for nearly all)."""
    content = hashlib.sha256(json.dumps(test, sort_keys=True).encode()).hexdigest()[:16]
    key = f"{process} {content}"
    if key not in FAULTS:
        return test, None
    reason, correct = FAULTS[key]
    right = copy.deepcopy(dict(test))
    correct(right)
    return right, reason
