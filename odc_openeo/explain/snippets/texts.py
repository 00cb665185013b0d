"""Strings of JSON values."""

import math


def find(text, pattern):
    """The position of a pattern in a string; null if it is not there."""
    position = text.find(pattern) if isinstance(text, str) else -1
    return None if position < 0 else position


def find_folded(text, pattern):
    """The position of a pattern in a string whatever the case; null if it is not there."""
    if not isinstance(text, str):
        return None
    pattern = pattern.casefold()
    matches = (i for i in range(len(text) + 1) if text[i:].casefold().startswith(pattern))
    return next(matches, None)


def write_json(value):
    """A string as it is, other values as in JSON."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e16
    return str(int(value)) if whole else str(value)
