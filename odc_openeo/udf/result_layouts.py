"""The form of the results of user-defined functions, known before they run on data, and the check of each.

``docs/adr/0017-results-of-user-functions.md`` gives the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from odc_openeo.errors import UdfResultInvalid
from odc_openeo.udf.cube_messages import Labels, PlainCube, describe_sizes, list_labels


@dataclass(frozen=True)
class ResultLayout:
    """The dimensions, sizes, labels and type that a result must have.

    ``sizes`` has only the dimensions whose size is the same for all chunks; the others are as long in the
    result as in the chunk. Labels of ``renamed`` dimensions need not be those of the results: user code
    announced them.
    """

    dims: tuple[str, ...]
    sizes: Mapping[str, int]
    dtype: np.dtype
    labels: Mapping[str, Labels] = field(default_factory=dict)
    renamed: frozenset[str] = frozenset()

    def fit(self, result: PlainCube, chunk: PlainCube) -> np.ndarray:
        """Return the values of a result in the order and type of this layout.

        Dimensions of size 1 may be missing or be there in addition; labels in another order are sorted.

        Raises:
            UdfResultInvalid: the result differs from the layout.
        """
        expected = {name: self.sizes.get(name, chunk.sizes.get(name, 1)) for name in self.dims}
        fitting = _adjust_single_labels(result, expected)
        if set(fitting.dims) != set(expected) or any(fitting.sizes[d] != n for d, n in expected.items()):
            raise _make_error(expected, self.dtype, result, chunk)
        labels = {
            name: values for name, values in {**chunk.labels, **self.labels}.items() if name in expected
        }
        comparable = {k: v for k, v in labels.items() if v.size == expected[k] and k not in self.renamed}
        ordered = _sort_by_labels(fitting, comparable)
        values = np.transpose(ordered.values, [ordered.dims.index(name) for name in self.dims])
        return self._cast(values, expected, result, chunk)

    def _cast(
        self, values: np.ndarray, expected: Mapping[str, int], result: PlainCube, chunk: PlainCube
    ) -> np.ndarray:
        if values.dtype == self.dtype or np.can_cast(values.dtype, self.dtype, "same_kind"):
            return values.astype(self.dtype, copy=False)
        if self.dtype.kind in "iu":
            with np.errstate(invalid="ignore"):
                cast = values.astype(self.dtype)
            if np.array_equal(cast, values):
                return cast
        raise _make_error(expected, self.dtype, result, chunk)


def _adjust_single_labels(result: PlainCube, expected: Mapping[str, int]) -> PlainCube:
    """Drop dimensions of size 1 that are not expected, and add expected ones that are missing."""
    extra = [i for i, name in enumerate(result.dims) if name not in expected and result.values.shape[i] == 1]
    missing = [name for name, size in expected.items() if name not in result.dims and size == 1]
    dims = [name for i, name in enumerate(result.dims) if i not in extra]
    values = np.squeeze(result.values, tuple(extra))[(..., *[np.newaxis] * len(missing))]
    labels = {name: labels for name, labels in result.labels.items() if name in dims}
    return PlainCube(values, (*dims, *missing), labels)


def _sort_by_labels(result: PlainCube, expected: Mapping[str, Labels]) -> PlainCube:
    """Put the values along each dimension in the order of the expected labels, if they are the same ones."""
    values = result.values
    for name, labels in result.labels.items():
        right = expected.get(name)
        if right is None or np.array_equal(labels, right):
            continue
        axis = result.dims.index(name)
        if labels.dtype.kind != "O" and np.array_equal(labels[::-1], right):
            values = np.flip(values, axis)
        elif right.dtype.kind == "O":
            values = np.take(values, _find_positions(name, labels, right), axis)
    return PlainCube(values, result.dims, result.labels)


def _find_positions(name: str, labels: Labels, right: Labels) -> list[int]:
    positions = {str(label): i for i, label in enumerate(labels.tolist())}
    texts = [str(label) for label in right.tolist()]
    if labels.dtype.kind == "O" and set(positions) != set(texts):
        reason = (
            f"the labels of '{name}' must be {list_labels(texts)}, as announced, not "
            f"{list_labels(list(positions))}. "
            "Return the same labels for each chunk."
        )
        raise UdfResultInvalid(reason=reason)
    # Numbers that stand in for strings are positions.
    return [positions[text] for text in texts] if labels.dtype.kind == "O" else list(range(len(texts)))


def _make_error(
    expected: Mapping[str, int], dtype: np.dtype, result: PlainCube, chunk: PlainCube
) -> UdfResultInvalid:
    reason = (
        f"for a chunk {describe_sizes(chunk.sizes)} it must be {describe_sizes(expected)} of {dtype}, not "
        f"{result.describe()}. Return a DataArray with these dimensions and this type for each chunk, or "
        "announce other bands in 'apply_metadata'."
    )
    return UdfResultInvalid(reason=reason)


def observe_layout(chunk: PlainCube, result: PlainCube, like_chunk: frozenset[str]) -> ResultLayout:
    """Make the layout of all results from that of one chunk.

    Args:
        chunk: the chunk that was given.
        result: what was returned.
        like_chunk: dimensions that may be longer or shorter in other chunks.

    Raises:
        UdfResultInvalid: the result is longer or shorter than the chunk in one of these, or lacks it.
    """
    varying = [name for name in chunk.dims if name in like_chunk]
    wrong = [name for name in varying if result.sizes.get(name, 1) != chunk.sizes[name]]
    if wrong:
        expected = {name: chunk.sizes[name] for name in varying}
        reason = (
            f"along {', '.join(varying)} it must be as long as the chunk, {describe_sizes(expected)}, but "
            f"for a chunk {describe_sizes(chunk.sizes)} it is {result.describe()}."
        )
        raise UdfResultInvalid(reason=reason)
    dims = _order_dimensions(chunk.dims, (*varying, *(d for d in result.dims if d not in varying)))
    sizes = {name: size for name, size in result.sizes.items() if name not in like_chunk}
    labels = {name: result.labels[name] for name in sizes if name in result.labels}
    for name, size in sizes.items():
        if name not in labels and name in chunk.labels and chunk.sizes[name] == size:
            labels[name] = chunk.labels[name]
    return ResultLayout(dims, sizes, result.values.dtype, labels)


def _order_dimensions(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    """Order dimensions as before; new ones take the places of lost ones, or come first."""
    kept = [name for name in before if name in after]
    return (*(name for name in after if name not in before), *kept)
