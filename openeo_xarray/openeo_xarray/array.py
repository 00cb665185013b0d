"""An array that records what NumPy functions are applied to it.

xarray calls NumPy on the data of its variables, which comes here by the protocols of NEP 13 and NEP 18.
Nothing is calculated; functions that openEO has no processes for are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from openeo_xarray.build import cast, drop, make_constant, make_elementwise, relabel
from openeo_xarray.elementwise import BITWISE, BUILDERS
from openeo_xarray.errors import LOAD_FIRST, UnsupportedOperation
from openeo_xarray.nodes import Axis, Constant, Node
from openeo_xarray.padding import Padding, settle_padding

Layout = tuple[str | None, ...]
"""The dimension of each axis; None is an axis of length one that the cube does not have."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""Implementations of functions of NumPy; `numpy_functions` fills it."""

UFUNCS = {
    "true_divide": "divide",
    "fabs": "absolute",
    "float_power": "power",
    "conjugate": "positive",
    "degrees": "rad2deg",
    "radians": "deg2rad",
}
REDUCTIONS = {
    "add": np.sum,
    "multiply": np.prod,
    "maximum": np.max,
    "minimum": np.min,
    "logical_and": np.all,
    "logical_or": np.any,
}
EXPLICIT = ("_as_array_or_item", "to_numpy", "item", "compute_values")
"""Functions whose callers ask for values."""


class RecordedArray(NDArrayOperatorsMixin):
    """A lazy array of pixels on a back-end.

    Its values are those of `node`, whose dimensions are the axes in the order of `layout`.
    """

    __array_priority__ = 1000

    def __init__(self, node: Node, layout: Layout, padding: dict[str, Padding] | None = None) -> None:
        self.unpadded = node
        self.layout = layout
        self.padding = padding or {}

    @property
    def node(self) -> Node:
        """The recorded expression."""
        if self.padding:
            self.unpadded = settle_padding(self.unpadded, self.padding)
            self.padding = {}
        return self.unpadded

    @property
    def shape(self) -> tuple[int, ...]:
        dims = self.unpadded.dims
        added = {name: pad.before + pad.after for name, pad in self.padding.items()}
        return tuple(1 if n is None else len(dims[n]) + added.get(n, 0) for n in self.layout)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.unpadded.dtype

    @property
    def ndim(self) -> int:
        return len(self.layout)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """One chunk: the back-end decides how it computes."""
        return tuple((n,) for n in self.shape)

    @property
    def real(self) -> RecordedArray:
        return self

    @property
    def imag(self) -> RecordedArray:
        return RecordedArray(make_elementwise("multiply", self.node, make_constant(0)), self.layout)

    @property
    def T(self) -> RecordedArray:
        return self.transpose()

    def __repr__(self) -> str:
        dims = ", ".join(f"{n or 1}: {size}" for n, size in zip(self.layout, self.shape, strict=True))
        return f"<openEO array ({dims}) {self.dtype}>"

    def _repr_inline_(self, max_width: int) -> str:
        return f"openEO<{type(self.unpadded).__name__}>"[:max_width]

    def _repr_html_(self) -> str:
        return f"<code>{repr(self).replace('<', '&lt;').replace('>', '&gt;')}</code>"

    # What NumPy calls

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not all(isinstance(out, RecordedArray) for out in kwargs.pop("out", None) or ()):
            raise UnsupportedOperation(f"np.{ufunc.__name__} with out=", "assign the result instead")
        if kwargs.pop("where", True) is not True:
            raise UnsupportedOperation(f"np.{ufunc.__name__} with where=", "use xr.where")
        if method == "reduce" and ufunc.__name__ in REDUCTIONS:
            kwargs.setdefault("axis", 0)
            return FUNCTIONS[REDUCTIONS[ufunc.__name__]](*inputs, **kwargs)
        if method != "__call__":
            raise UnsupportedOperation(f"np.{ufunc.__name__}.{method}", LOAD_FIRST)
        dtype = kwargs.pop("dtype", None)
        kwargs.pop("casting", None)
        if kwargs:
            raise UnsupportedOperation(f"np.{ufunc.__name__} with {', '.join(kwargs)}", LOAD_FIRST)
        result = apply_elementwise(name_ufunc(ufunc, inputs), *inputs)
        return result if dtype is None else result.astype(dtype)

    def __array_function__(
        self, function: Any, _types: Any, arguments: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        implementation = FUNCTIONS.get(function)
        if implementation is None:
            raise UnsupportedOperation(name_operation(f"np.{function.__name__}"), LOAD_FIRST)
        return implementation(*arguments, **kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        callers = list_callers()
        if "__bool__" in callers:
            self.__bool__()
        if not any(name in EXPLICIT for name in callers[:4]):
            raise UnsupportedOperation(name_operation("an implicit conversion to a NumPy array"), LOAD_FIRST)
        from openeo_xarray.request import compute_arrays

        return np.asarray(compute_arrays(self)[0], dtype)

    def __bool__(self) -> bool:
        raise UnsupportedOperation(
            name_operation("the truth value of an array that is not computed"),
            "use xr.where or .where() to choose by pixel, or compute it first: bool(x.compute())",
        )

    def __float__(self) -> float:
        raise UnsupportedOperation("a conversion to a number", "compute it first: float(x.compute())")

    __int__ = __index__ = __complex__ = __float__

    def __len__(self) -> int:
        if not self.layout:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[RecordedArray]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, _value: object) -> bool:
        raise UnsupportedOperation("`in`", "use (x == value).any().compute()")

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, key: Any) -> RecordedArray:
        from openeo_xarray.indexing import index_array

        return index_array(self, key)

    def __setitem__(self, _key: Any, _value: Any) -> None:
        raise UnsupportedOperation("assigning to pixels", "use xr.where or .where(condition, value)")

    def rechunk(self, _chunks: Any, **_options: Any) -> RecordedArray:
        """Refuse chunks: the back-end decides how it computes."""
        raise refuse_chunks()

    def __dask_tokenize__(self) -> Any:
        """Refuse to become chunks of dask: it is asked for a name when it wraps an array."""
        raise refuse_chunks()

    def astype(self, dtype: Any, **_options: Any) -> RecordedArray:
        """Convert to another dtype."""
        if np.dtype(dtype) == self.dtype:
            return self
        return RecordedArray(cast(self.node, dtype), self.layout)

    def copy(self, order: str = "C") -> RecordedArray:
        """Return the array itself, which never changes."""
        return self

    def transpose(self, *axes: Any) -> RecordedArray:
        """Put the axes in another order."""
        return FUNCTIONS[np.transpose](
            self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        )

    def reshape(self, *shape: Any, **_options: Any) -> RecordedArray:
        """Split axes into blocks, or add and remove axes of length one."""
        return FUNCTIONS[np.reshape](self, shape[0] if len(shape) == 1 else shape)

    def squeeze(self, axis: Any = None) -> RecordedArray:
        return FUNCTIONS[np.squeeze](self, axis)

    def clip(self, min: Any = None, max: Any = None) -> RecordedArray:
        return FUNCTIONS[np.clip](self, min, max)

    def round(self, decimals: int = 0) -> RecordedArray:
        return FUNCTIONS[np.round](self, decimals)

    def argsort(self, *_arguments: Any, **_options: Any) -> Any:
        """Refuse: openEO has no order of values that keeps its place in a cube."""
        raise UnsupportedOperation("argsort", "argmax and argmin are possible; or .load() first")

    def conj(self) -> RecordedArray:
        return self

    def item(self) -> Any:
        """Compute the only value."""
        from openeo_xarray.request import compute_arrays

        return compute_arrays(self)[0].item()

    def _reduce(self, function: Any, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return FUNCTIONS[function](self, *arguments, **kwargs)

    def mean(self, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return self._reduce(np.mean, *arguments, **kwargs)

    def sum(self, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return self._reduce(np.sum, *arguments, **kwargs)

    def min(self, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return self._reduce(np.min, *arguments, **kwargs)

    def max(self, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return self._reduce(np.max, *arguments, **kwargs)

    def any(self, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return self._reduce(np.any, *arguments, **kwargs)

    def all(self, *arguments: Any, **kwargs: Any) -> RecordedArray:
        return self._reduce(np.all, *arguments, **kwargs)


def refuse_chunks() -> ValueError:
    """The error for chunks."""
    return ValueError(
        "leave out `chunks`: they are for arrays of the client, the back-end decides how it computes"
    )


def name_operation(fallback: str) -> str:
    """Name the function of xarray that the user called, and what it needed."""
    frame: Any = sys._getframe(1)
    name = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("xarray."):
            name = frame.f_code.co_name
        elif not module.startswith(("numpy", "openeo_xarray", "functools")) and name:
            break
        frame = frame.f_back
    return f"{name} ({fallback})" if name and not name.startswith("_") else fallback


def list_callers(most: int = 14) -> list[str]:
    """Names of the functions that called, the nearest first."""
    frame: Any = sys._getframe(2)
    names: list[str] = []
    while frame is not None and len(names) < most:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def name_ufunc(ufunc: np.ufunc, inputs: Sequence[Any]) -> str:
    """The name of the function that a ufunc is for these arguments."""
    name = UFUNCS.get(ufunc.__name__, ufunc.__name__)
    if name in BITWISE:
        if all(np.result_type(getattr(i, "dtype", type(i))).kind == "b" for i in inputs):
            return BITWISE[name]
        raise UnsupportedOperation(
            f"np.{name} of integers", "compare with .isin(), or .load() the band of flags first"
        )
    if name not in BUILDERS:
        raise UnsupportedOperation(f"np.{ufunc.__name__}", LOAD_FIRST)
    return name


def apply_elementwise(function: str, *inputs: Any) -> RecordedArray:
    """Apply a function to arrays and numbers that are broadcast against each other."""
    nodes, layout = align(inputs)
    return RecordedArray(make_elementwise(function, *nodes), layout)


def align(inputs: Sequence[Any]) -> tuple[list[Node], Layout]:
    """Nodes with the same dimensions for the same axes."""
    shape = np.broadcast_shapes(*(np.shape(i) for i in inputs))
    references = [_find_reference(inputs, len(shape), k, size) for k, size in enumerate(shape)]
    nodes = [_to_node(i, references) for i in inputs]
    return nodes, tuple(None if axis is None else axis.name for axis in references)


def _find_reference(inputs: Sequence[Any], ndim: int, position: int, size: int) -> Axis | None:
    """The dimension that an axis of the result is."""
    for array in inputs:
        own = position - ndim + np.ndim(array)
        if isinstance(array, RecordedArray) and own >= 0 and array.layout[own] is not None:
            axis = array.node.dims[array.layout[own]]  # type: ignore[index]
            if len(axis) == size:
                return axis
    return None if size == 1 else Axis(f"dim{ndim - position}", np.arange(size))


def _to_node(value: Any, references: Sequence[Axis | None]) -> Node:
    if isinstance(value, RecordedArray):
        return _align_node(value, references[len(references) - value.ndim :])
    if isinstance(value, bool | int | float):
        return Constant((), np.asarray(value).dtype, np.asarray(value), weak=True)
    array = _collapse(np.asarray(value), references)
    if array.dtype.kind not in "biuf":
        raise UnsupportedOperation(
            f"a calculation with values of type {array.dtype}", "openEO calculates with numbers and booleans"
        )
    axes = references[len(references) - array.ndim :]
    kept = [axis for axis, size in zip(axes, array.shape, strict=True) if size > 1]
    return make_constant(array.squeeze(), kept)  # type: ignore[arg-type]


def _collapse(array: np.ndarray, references: Sequence[Axis | None]) -> np.ndarray:
    """An array without the repetitions of axes along which it is broadcast."""
    if array.ndim == 0 or 0 in array.shape:
        return array
    array = array[tuple(slice(1) if stride == 0 else slice(None) for stride in array.strides)]
    for axis in range(array.ndim if array.ndim > 1 else 0):
        if (array == array.take([0], axis)).all():
            array = array.take([0], axis)
    return array


def _align_node(array: RecordedArray, references: Sequence[Axis | None]) -> Node:
    node = array.node
    for name, axis in zip(array.layout, references, strict=True):
        if name is None or axis is None:
            continue
        if len(node.dims[name]) == 1 and len(axis) > 1:
            node = drop(node, name)
        elif node.dims[name].key != axis.key:
            node = relabel(node, name, axis)
    return node
