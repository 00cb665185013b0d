"""Limits of memory and time for evaluating a process graph, before any pixel is read.

JSON values grow by doubling and child processes by nesting: a graph of a few lines can require more than a
machine has. Each evaluation has one `Budget`; processes that would allocate before they return call
`check_count` first. Pixels are not counted here: they are lazy and covered by the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from odc_openeo.cube import LabeledArray
from odc_openeo.errors import ProcessGraphComplexity

MOST_ELEMENTS: Final = 1_000_000
"""Elements of one JSON value, on all levels of nesting."""
MOST_ELEMENTS_IN_ALL: Final = 20_000_000
MOST_CHARACTERS: Final = 10_000_000
"""Characters of one JSON value, in all its strings."""
MOST_CHARACTERS_IN_ALL: Final = 200_000_000
MOST_CALLS: Final = 250_000
"""Nodes evaluated; those of child processes count at each call."""

_SMALL: Final = frozenset({bool, int, float, type(None)})


@dataclass
class Budget:
    """The memory of JSON values and the number of calls of one evaluation so far."""

    elements: int = 0
    characters: int = 0
    calls: int = 0

    def spend(self, value: Any) -> None:
        """Count the evaluation of a node and what it returned.

        Raises:
            ProcessGraphComplexity: one value, all values together or the number of calls exceeds its limit.
        """
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise _too_many(
                MOST_CALLS, "process calls", "Shorten the arrays that child processes iterate over."
            )
        if type(value) in _SMALL:
            return
        elements, characters = measure_json(value)
        self.elements += elements
        self.characters += characters
        if self.elements > MOST_ELEMENTS_IN_ALL:
            raise _too_many(MOST_ELEMENTS_IN_ALL, "elements of all arrays", "Make fewer or shorter arrays.")
        if self.characters > MOST_CHARACTERS_IN_ALL:
            raise _too_many(MOST_CHARACTERS_IN_ALL, "characters of all strings", "Make shorter strings.")


def measure_json(value: Any) -> tuple[int, int]:
    """Count the elements and characters of a JSON value; a value that is not JSON counts as one element.

    Raises:
        ProcessGraphComplexity: there are more than a single value may have.
    """
    elements, characters, waiting = 1, 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            characters += len(one)
            check_count(characters, MOST_CHARACTERS, "characters of a value", "Make shorter strings.")
        elif isinstance(one, list | tuple | LabeledArray | dict):
            inner, names = _unwrap_value(one)
            elements += len(inner)
            characters += names
            check_count(elements, MOST_ELEMENTS, "elements of an array", "Make shorter arrays.")
            if not set(map(type, inner)) <= _SMALL:
                waiting.extend(inner)
    return elements, characters


def check_count(count: float, most: int, what: str, advice: str) -> None:
    """Check the number of elements or characters that a process is about to create.

    Raises:
        ProcessGraphComplexity: it is more than ``most``.
    """
    if count > most:
        raise _too_many(most, what, advice)


def _unwrap_value(value: Any) -> tuple[Any, int]:
    if isinstance(value, LabeledArray):
        return value.values, sum(len(name) for name in value.labels if isinstance(name, str))
    if isinstance(value, dict):
        return list(value.values()), sum(map(len, map(str, value)))
    return value, 0


def _too_many(most: int, what: str, advice: str) -> ProcessGraphComplexity:
    return ProcessGraphComplexity(reason=f"more than {most:,} {what}. {advice}")
