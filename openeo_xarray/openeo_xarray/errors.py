"""Errors of the bridge."""

from __future__ import annotations


class UnsupportedOperation(NotImplementedError):
    """An operation of NumPy or xarray that openEO processes cannot express.

    Raised when the operation is recorded, before anything is sent.
    """

    def __init__(self, operation: str, advice: str) -> None:
        self.operation, self.advice = operation, advice
        super().__init__(f"{operation} can't be expressed with openEO processes: {advice}")


class LabelsUnknown(ValueError):
    """The labels of a dimension are neither said by the back-end nor by its metadata."""

    def __init__(self, dimension: str, reason: str) -> None:
        super().__init__(
            f"the labels of the dimension {dimension!r} are unknown: the back-end has no process "
            f"dimension_labels, and {reason}. Pass them: labels={{{dimension!r}: [...]}}"
        )


LOAD_FIRST = "reduce or select what you need, call .load(), and continue on the loaded values"
