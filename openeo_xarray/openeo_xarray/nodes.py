"""Expressions over named dimensions: what xarray code recorded, before it becomes a process graph.

A node has dimensions by name; the order of the axes of arrays is kept by `RecordedArray` only. Nodes never
change, and two nodes with the same `key` have the same values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

Indices = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Axis:
    """A dimension of a data cube with the labels that the back-end has for it.

    `kind` is "time", "x", "y", "bands", "geometry" or "other"; labels are unique: datetime64, numbers or
    strings.
    """

    name: str
    labels: np.ndarray
    kind: str = "other"

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def key(self) -> str:
        return digest(self.name, self.kind, str(self.labels.dtype), self.labels.tobytes())

    def take(self, indices: Iterable[int]) -> Axis:
        """Select labels by position."""
        return Axis(self.name, self.labels[list(indices)], self.kind)

    def has_labels_of(self, axis: Axis) -> bool:
        """Whether both have the same labels in the same order."""
        return len(self) == len(axis) and bool(np.array_equal(self.labels, axis.labels))


def digest(*parts: Any) -> str:
    """Return a short name of some values: the same for the same values."""
    text = hashlib.sha256()
    for part in parts:
        text.update(part if isinstance(part, bytes) else repr(part).encode())
        text.update(b"\0")
    return text.hexdigest()


@dataclass(frozen=True, eq=False)
class Node:
    """An array with named dimensions and a dtype."""

    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]

    @cached_property
    def dims(self) -> Mapping[str, Axis]:
        return {axis.name: axis for axis in self.axes}

    @cached_property
    def key(self) -> str:
        values = (_describe(getattr(self, f.name)) for f in fields(self) if f.compare)
        return digest(type(self).__name__, *values)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.axes))


def _describe(value: Any) -> Any:
    """Make what enters the key of a node of one of its fields."""
    if isinstance(value, Node | Axis):
        return value.key
    if isinstance(value, tuple):
        return tuple(map(_describe, value))
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tobytes())
    return getattr(value, "key", value)


@dataclass(frozen=True, eq=False)
class Load(Node):
    """Bands of a collection. With several bands there is a dimension of them, else there is none."""

    source: Any
    bands: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Constant(Node):
    """Values that the client has: a number, or values along few dimensions.

    A number is `weak` if it is one of Python, which does not change the dtype of what it is calculated with.
    """

    values: np.ndarray
    weak: bool = False


@dataclass(frozen=True, eq=False)
class Elementwise(Node):
    """A function of the values at the same labels of several nodes; missing dimensions are broadcast."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Take(Node):
    """Labels of a dimension by position: some, reordered or repeated; -1 is a label without data.

    `axis` is the dimension that it has then, which has new labels if some are repeated or without data.
    """

    child: Node
    dim: str
    indices: Indices
    axis: Axis

    def selects(self, dim: str) -> bool:
        """Whether it selects labels of a dimension, which keeps its name."""
        return self.dim == dim == self.axis.name


@dataclass(frozen=True, eq=False)
class Drop(Node):
    """A node without a dimension that has one label."""

    child: Node
    dim: str


@dataclass(frozen=True, eq=False)
class Relabel(Node):
    """A dimension with another name or other labels, by position."""

    child: Node
    dim: str
    axis: Axis


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """A reducer over dimensions. `options` are pairs of names and values, `skipna` among them."""

    reducer: str
    child: Node
    over: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def get_option(self, name: str) -> Any:
        return dict(self.options).get(name)


@dataclass(frozen=True, eq=False)
class Segments(Node):
    """A reducer over groups of labels, one label per group. Groups may overlap and be empty."""

    reducer: str
    child: Node
    dim: str
    groups: tuple[Indices, ...]
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Join(Node):
    """Nodes side by side along a dimension; those that lack it are one label of it."""

    parts: tuple[Node, ...]
    dim: str


@dataclass(frozen=True, eq=False)
class Along(Node):
    """A function of all values along a dimension that keeps its labels, such as a cumulative sum."""

    function: str
    child: Node
    dim: str


@dataclass(frozen=True, eq=False)
class Windows(Node):
    """Moving windows: position i of `window` at label j is position j + i - before of the child.

    Positions outside of the child have the value `fill`.
    """

    child: Node
    dim: str
    window: str
    size: int
    before: int
    fill: Any


@dataclass(frozen=True, eq=False)
class Blocks(Node):
    """Consecutive blocks of labels of a dimension, which a new dimension `inner` enumerates."""

    child: Node
    dim: str
    inner: str
    size: int


@dataclass(frozen=True, eq=False)
class Points(Node):
    """Pixels at pairs of rows and columns: one label per point."""

    child: Node
    rows: Indices
    columns: Indices
    dim: str


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """Labels without data before and after those of a dimension, filled with a value."""

    child: Node
    dim: str
    before: int
    after: int
    fill: Any


@dataclass(frozen=True, eq=False)
class Convolution(Node):
    """Sums of the pixels around each pixel, weighted with a kernel along dimensions; nothing lies outside."""

    child: Node
    over: tuple[str, ...]
    kernel: np.ndarray


@dataclass(frozen=True, eq=False)
class UserFunction(Node):
    """A user-defined function of the values at each label, or of those along a dimension, which may go."""

    child: Node
    dim: str | None
    code: str


def list_children(node: Node) -> tuple[Node, ...]:
    """The nodes that a node is calculated from."""
    if isinstance(node, Elementwise):
        return node.arguments
    if isinstance(node, Join):
        return node.parts
    child = getattr(node, "child", None)
    return () if child is None else (child,)
