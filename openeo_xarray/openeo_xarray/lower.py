"""From nodes to a process graph: the names of dimensions and their labels are the same in both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from openeo.internal.graph_building import PGNode

from openeo_xarray.build import SPATIAL, collect_axes, make_constant, make_elementwise
from openeo_xarray.calendar import name_period
from openeo_xarray.collection import is_local
from openeo_xarray.elementwise import Argument, Value, build_value, call
from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.labels import describe_group, describe_interval, format_label, format_labels
from openeo_xarray.lift import lift_bands
from openeo_xarray.masks import make_mask_polygons
from openeo_xarray.nodes import (
    Along,
    Axis,
    Blocks,
    Constant,
    Convolution,
    Drop,
    Elementwise,
    Join,
    Load,
    Node,
    Points,
    Reduce,
    Relabel,
    Segments,
    Take,
    UserFunction,
)
from openeo_xarray.order import list_cube_order
from openeo_xarray.reducers import SEPARABLE, child, make_reducer

STACK = "bands"
"""The dimension along which cubes lie side by side to calculate with them."""


def parameter(name: str) -> dict[str, str]:
    """Refer to a parameter of a child process."""
    return {"from_parameter": name}


def element(index: int) -> PGNode:
    """An element of the array of a child process."""
    return call("array_element", data=parameter("data"), index=index)


class Lowering:
    """Translates nodes; the same node becomes the same part of the process graph."""

    def __init__(self, periods: bool = True) -> None:
        self._periods = periods
        self._cubes: dict[str, PGNode] = {}
        self._loads: dict[str, PGNode] = {}

    def lower(self, node: Node) -> PGNode:
        """The part of a process graph that gives the values of a node, as a cube with its dimensions."""
        if node.key not in self._cubes:
            self._cubes[node.key] = METHODS[type(node)](self, node)
        return self._cubes[node.key]

    # Loading and selecting

    def load(self, node: Load) -> PGNode:
        names = node.source.list_bands_to_load(node.bands)
        cube = self._load_bands(node, names)
        # `openeo.local` takes no notice of the argument `bands`.
        if names != list(node.bands) or is_local(node.source.connection):
            cube = call("filter_bands", data=cube, bands=list(node.bands))
        bands = node.source.bands_dimension
        if bands is None:
            return cube
        if len(node.bands) == 1 and not any(axis.kind == "bands" for axis in node.axes):
            return call("drop_dimension", data=cube, name=bands)
        return self._rename(cube, bands, next(axis.name for axis in node.axes if axis.kind == "bands"))

    def _load_bands(self, node: Load, names: list[str]) -> PGNode:
        key = node.source.key + repr(names)
        if key not in self._loads:
            self._loads[key] = node.source.load(names)
        return self._loads[key]

    def _rename(self, cube: PGNode, old: str, new: str) -> PGNode:
        return cube if old == new else call("rename_dimension", data=cube, source=old, target=new)

    def take(self, node: Take) -> PGNode:
        axis, indices = node.child.dims[node.dim], node.indices
        if not indices:
            raise UnsupportedOperation(
                f"a calculation with no labels of {axis.name}",
                "the selection is empty: slices follow the order of the labels (mostly north to south)",
            )
        cube = self.lower(node.child)
        if sorted(indices) == list(range(len(axis))):
            return cube
        first, last = min(indices), max(indices)
        whole = sorted(indices) == list(range(first, last + 1))
        if axis.kind == "time":
            if whole and -1 not in indices and node.axis.has_labels_of(axis.take(indices)):
                extent = describe_interval(axis.labels, first, last)
                return call("filter_temporal", data=cube, extent=extent, dimension=axis.name)
            _check_intervals(node, len(indices))
            cube = self._gather(cube, axis, node.axis, indices)
            return self._rename(cube, axis.name, node.axis.name)
        if -1 in indices or len(set(indices)) < len(indices):
            raise UnsupportedOperation(
                f"repeated or missing labels along {axis.name}", "select each label once"
            )
        if axis.kind in SPATIAL:
            return self._take_pixels(node, cube, axis, indices)
        if axis.kind == "bands":
            return call("filter_bands", data=cube, bands=[str(axis.labels[i]) for i in indices])
        return self._filter_labels(cube, axis, indices)

    def _gather(self, cube: PGNode, axis: Axis, target: Axis, indices: Sequence[int]) -> PGNode:
        """Any labels of a temporal dimension: one interval each."""
        order = np.argsort(target.labels, kind="stable") if target.kind == "time" else range(len(indices))
        target, indices = target.take(order), [indices[k] for k in order]
        groups = [(i,) if i >= 0 else () for i in indices]
        reducer = make_reducer("first", {"skipna": False})
        return self._aggregate(cube, axis, target, groups, reducer)

    def _aggregate(
        self, cube: PGNode, axis: Axis, target: Axis, groups: Iterable[Sequence[int]], reducer: dict[str, Any]
    ) -> PGNode:
        intervals = [
            describe_group(axis.labels, group[0], group[-1]) if group else EMPTY_INTERVAL for group in groups
        ]
        return call(
            "aggregate_temporal",
            data=cube,
            intervals=intervals,
            reducer=reducer,
            labels=format_labels(target.labels),
            dimension=axis.name,
        )

    def _take_pixels(self, node: Take, cube: PGNode, axis: Axis, indices: Sequence[int]) -> PGNode:
        step = indices[1] - indices[0] if len(indices) > 1 else 1
        if abs(step) > 1:
            raise UnsupportedOperation(f"every {abs(step)}th pixel along {axis.name}", "use coarsen()")
        half = abs(float(axis.labels[1] - axis.labels[0])) / 2 if len(axis) > 1 else 0.0
        box: dict[str, Any] = {}
        for name, low, high in (("x", "west", "east"), ("y", "south", "north")):
            other = node.child.dims.get(name)
            labels = (
                axis.labels[list(indices)] if name == axis.name else None if other is None else other.labels
            )
            box |= self._bounds(labels, half, low, high)
        source = find_source(node)
        return call("filter_bbox", data=cube, extent={**box, "crs": source.crs})

    def _bounds(self, labels: np.ndarray | None, half: float, low: str, high: str) -> dict[str, float]:
        if labels is None:
            raise UnsupportedOperation("a selection of pixels without both x and y", "select before reducing")
        return {low: float(labels.min()) - half / 2, high: float(labels.max()) + half / 2}

    def _filter_labels(self, cube: PGNode, axis: Axis, indices: Sequence[int]) -> PGNode:
        tests = [call("eq", x=parameter("value"), y=format_label(axis.labels[i])) for i in indices]
        condition = child(call("any", data=tests))
        return call("filter_labels", data=cube, condition=condition, dimension=axis.name)

    def drop(self, node: Drop) -> PGNode:
        cube = self.lower(node.child)
        if node.child.dims[node.dim].kind in (*SPATIAL, "time"):
            reducer = make_reducer("first", {"skipna": False})
            return call("reduce_dimension", data=cube, reducer=reducer, dimension=node.dim)
        return call("drop_dimension", data=cube, name=node.dim)

    def relabel(self, node: Relabel) -> PGNode:
        old = node.child.dims[node.dim]
        cube = self.lower(node.child)
        if not old.has_labels_of(node.axis):
            target, source = format_labels(node.axis.labels), format_labels(old.labels)
            if set(target) & set(source):
                between = [f"label {i}" for i in range(len(target))]
                cube = call("rename_labels", data=cube, dimension=node.dim, target=between, source=source)
                source = between
            cube = call("rename_labels", data=cube, dimension=node.dim, target=target, source=source)
        return self._rename(cube, node.dim, node.axis.name)

    def points(self, node: Points) -> PGNode:
        x, y = node.child.dims["x"].labels, node.child.dims["y"].labels
        source = find_source(node)
        places = [[float(x[c]), float(y[r])] for r, c in zip(node.rows, node.columns, strict=True)]
        features = [
            {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": place}}
            for place in places
        ]
        geometries = make_collection(features, source.crs)
        reducer = make_reducer("first", {"skipna": False})
        return call("aggregate_spatial", data=self.lower(node.child), geometries=geometries, reducer=reducer)

    # Calculating

    def elementwise(self, node: Elementwise) -> PGNode:
        leaves = list_leaves(node)
        cubes = [leaf for leaf in leaves if not isinstance(leaf, Constant)]
        vectors = [leaf for leaf in leaves if isinstance(leaf, Constant)]
        if len(cubes) == 1 and not vectors:
            process = child(build_process(node, {cubes[0].key: parameter("x")}))
            return call("apply", data=self.lower(cubes[0]), process=process)
        if not vectors and have_same_axes(cubes):
            return self._calculate_side_by_side(node, cubes)
        if len(cubes) == 1 and len({axis.name for v in vectors for axis in v.axes}) == 1:
            return self._calculate_with_vectors(node, cubes[0], vectors)
        return self._calculate_stepwise(node)

    def _calculate_side_by_side(self, node: Elementwise, cubes: list[Node]) -> PGNode:
        """Calculate with cubes of the same labels: those of one collection are its bands."""
        name = STACK if STACK not in node.dims else "operands"
        lifted = lift_bands(cubes, name)
        if lifted is None and len(cubes) == 2:
            return self._merge(node, cubes[0], cubes[1])
        data = self._stack(cubes, name) if lifted is None else self.lower(lifted)
        elements = {
            cube.key: call("array_element", data=parameter("data"), index=i) for i, cube in enumerate(cubes)
        }
        return call(
            "reduce_dimension", data=data, reducer=child(build_process(node, elements)), dimension=name
        )

    def _stack(self, cubes: Sequence[Node], name: str) -> PGNode:
        parts = [
            call("add_dimension", data=self.lower(cube), name=name, label=f"cube{i}", type="bands")
            for i, cube in enumerate(cubes)
        ]
        return merge_all(parts)

    def _merge(self, node: Elementwise, a: Node, b: Node) -> PGNode:
        """Calculate with two cubes, of which the second may lack dimensions."""
        first, second = (a, b) if set(a.dims) >= set(b.dims) else (b, a)
        if not set(first.dims) >= set(second.dims):
            raise UnsupportedOperation(
                f"an operation on dimensions {sorted(a.dims)} and {sorted(b.dims)}",
                "one must have all of them",
            )
        resolver = build_process(node, {first.key: parameter("x"), second.key: parameter("y")})
        return call(
            "merge_cubes",
            cube1=self.lower(first),
            cube2=self.lower(second),
            overlap_resolver=child(resolver),
        )

    def _calculate_with_vectors(self, node: Elementwise, cube: Node, vectors: list[Constant]) -> PGNode:
        """Calculate with values along one dimension: they are looked up by the position of a label."""
        axis = vectors[0].axes[0]
        values = [
            build_process(node, {cube.key: element(k), **{v.key: to_list(v.values)[i] for v in vectors}})
            for k, i in enumerate(list_cube_order(cube, axis.name))
        ]
        return self._apply_along(cube, axis.name, values)

    def _apply_along(self, cube: Node, dim: str, values: list[Value]) -> PGNode:
        """Replace the values along a dimension, each by a child process of all of them."""
        process = child(call("array_create", data=values))
        return call("apply_dimension", data=self.lower(cube), process=process, dimension=dim)

    def _calculate_stepwise(self, node: Elementwise) -> PGNode:
        """Calculate with one pair of cubes after the other, as merging allows."""
        arguments = [self._realize(a, node) for a in node.arguments]
        cubes = [a for a in arguments if not is_scalar(a)]
        distinct = list({cube.key: cube for cube in cubes}.values())
        if len(distinct) == 3 and node.function == "where":
            return self._choose_stepwise(arguments)
        if len(distinct) > 2:
            raise UnsupportedOperation(f"{node.function} of several cubes at once", "do it in steps")
        step = Elementwise(node.axes, node.dtype, node.function, tuple(arguments))
        if len(distinct) == 1:
            leaf = distinct[0]
            return call(
                "apply", data=self.lower(leaf), process=child(build_step(step, {leaf.key: parameter("x")}))
            )
        first, second = distinct if set(distinct[0].dims) >= set(distinct[1].dims) else distinct[::-1]
        if isinstance(second, Constant):
            return self._calculate_with_constant(step, first, second)
        if isinstance(first, Constant):
            return self._calculate_with_constant(step, second, first)
        if not set(first.dims) >= set(second.dims):
            return self._merge(step, first, second)
        resolver = build_step(step, {first.key: parameter("x"), second.key: parameter("y")})
        return call(
            "merge_cubes", cube1=self.lower(first), cube2=self.lower(second), overlap_resolver=child(resolver)
        )

    def _realize(self, node: Node, _parent: Elementwise) -> Node:
        return node

    def _choose_stepwise(self, arguments: Sequence[Node]) -> PGNode:
        """`where` of three cubes: both branches with gaps, and then one where the other has none."""
        condition, yes, no = arguments
        nan = make_constant(np.nan)
        a = self.lower(make_elementwise("where", condition, yes, nan))
        b = self.lower(make_elementwise("where", condition, nan, no))
        test = call("is_nodata", x=parameter("x"))
        resolver = child(call("if", value=test, accept=parameter("y"), reject=parameter("x")))
        return call("merge_cubes", cube1=a, cube2=b, overlap_resolver=resolver)

    def _calculate_with_constant(self, step: Elementwise, cube: Node, constant: Constant) -> PGNode:
        """Calculate with values of the client: along a dimension, or a mask of pixels."""
        if len(constant.axes) == 1:
            constants = to_list(constant.values)
            values = [
                build_step(step, {cube.key: element(k), constant.key: constants[i]})
                for k, i in enumerate(list_cube_order(cube, constant.axes[0].name))
            ]
            return self._apply_along(cube, constant.axes[0].name, values)
        polygons = make_mask_polygons(constant, find_source(cube).crs)
        if step.function == "where" and step.arguments[0] is constant and is_scalar(step.arguments[2]):
            replacement = step.arguments[2].values.item()  # type: ignore[attr-defined]
            more = {} if np.isnan(replacement) else {"replacement": replacement}
            return call("mask_polygon", data=self.lower(cube), mask=polygons, **more)
        test = call("or", x=call("is_nodata", x=parameter("x")), y=True)
        ones = call("apply", data=self.lower(cube), process=child(call("if", value=test, accept=1, reject=0)))
        mask = call("mask_polygon", data=ones, mask=polygons, replacement=0)
        inside = call("eq", x=parameter("y"), y=1)
        resolver = build_step(step, {cube.key: parameter("x"), constant.key: inside})
        return call("merge_cubes", cube1=self.lower(cube), cube2=mask, overlap_resolver=child(resolver))

    def along(self, node: Along) -> PGNode:
        process = call(node.function, data=parameter("data"))
        return call(
            "apply_dimension", data=self.lower(node.child), process=child(process), dimension=node.dim
        )

    def user_function(self, node: UserFunction) -> PGNode:
        cube = self.lower(node.child)
        source = "x" if node.dim is None else "data"
        run = call("run_udf", data=parameter(source), udf=node.code, runtime="Python")
        if node.dim is None:
            return call("apply", data=cube, process=child(run))
        if node.dim in node.dims:
            return call("apply_dimension", data=cube, process=child(run), dimension=node.dim)
        return call("reduce_dimension", data=cube, reducer=child(run), dimension=node.dim)

    def convolution(self, node: Convolution) -> PGNode:
        kernel = node.kernel
        if node.over == ("x",):
            kernel = kernel[None, :]
        elif node.over == ("y",):
            kernel = kernel[:, None]
        elif node.over == ("x", "y"):
            kernel = kernel.T
        return call("apply_kernel", data=self.lower(node.child), kernel=kernel.tolist())

    # Reducing and joining

    def reduce(self, node: Reduce) -> PGNode:
        options = dict(node.options)
        if isinstance(node.child, Blocks):
            return self._reduce_blocks(node, options)
        if isinstance(node.child, Join) and node.over == (node.child.dim,):
            lifted = lift_bands(node.child.parts, STACK)
            if lifted is not None and STACK in lifted.dims:
                return self.lower(replace(node, child=lifted, over=(STACK,)))
        cube = self.lower(node.child)
        if len(node.over) == 1:
            reducer = make_reducer(node.reducer, options)
            return call("reduce_dimension", data=cube, reducer=reducer, dimension=node.over[0])
        if node.reducer in SEPARABLE:
            for dim in node.over:
                reducer = make_reducer(node.reducer, options)
                cube = call("reduce_dimension", data=cube, reducer=reducer, dimension=dim)
            return cube
        flat = call("flatten_dimensions", data=cube, dimensions=list(node.over), target_dimension="values")
        reducer = make_reducer(node.reducer, options)
        return call("reduce_dimension", data=flat, reducer=reducer, dimension="values")

    def _reduce_blocks(self, node: Reduce, options: dict[str, Any]) -> PGNode:
        sizes, base = {"x": 1, "y": 1}, node.child
        while isinstance(base, Blocks) and base.inner in node.over:
            sizes[base.dim] = base.size
            base = base.child
        return call(
            "aggregate_spatial_window",
            data=self.lower(base),
            reducer=make_reducer(node.reducer, options),
            size=[sizes["x"], sizes["y"]],
            boundary="trim",
        )

    def segments(self, node: Segments) -> PGNode:
        axis, target = node.child.dims[node.dim], node.dims[node.dim]
        reducer = make_reducer(node.reducer, dict(node.options))
        cube = self.lower(node.child)
        period = name_period(axis.labels, node.groups) if self._periods else None
        if period is not None:
            return call(
                "aggregate_temporal_period", data=cube, period=period, reducer=reducer, dimension=node.dim
            )
        _check_intervals(node, len(node.groups))
        return self._aggregate(cube, axis, target, node.groups, reducer)

    def join(self, node: Join) -> PGNode:
        axis, start, parts = node.dims[node.dim], 0, []
        full = [a.name for a in node.axes]
        for part in node.parts:
            cube = self.lower(part)
            length = len(part.dims[node.dim]) if node.dim in part.dims else 1
            if node.dim not in part.dims:
                kind = {"time": "temporal"}.get(axis.kind, axis.kind)
                label = format_label(axis.labels[start])
                cube = call("add_dimension", data=cube, name=node.dim, label=label, type=kind)
            start += length
            missing = set(full) - set(part.dims) - {node.dim}
            if missing:
                raise UnsupportedOperation("joining arrays of different dimensions", "broadcast them first")
            parts.append(cube)
        return merge_all(parts)


def _check_intervals(node: Node, count: int) -> None:
    """Refuse several intervals where `openeo.local` would give all of them the values of the first.

    openeo-pg-parser-networkx calls the reducer of `aggregate_temporal` once, and takes its result for others.
    """
    source = find_source(node)
    if count > 1 and source is not None and is_local(source.connection):
        raise UnsupportedOperation(
            f"{count} intervals of time with openeo.local",
            "it gives all of them the values of the first: select a slice, aggregate by calendar periods, or "
            "use a back-end",
        )


EMPTY_INTERVAL = ["1000-01-01T00:00:00Z", "1000-01-02T00:00:00Z"]
"""An interval in which there are no data."""


def merge_all(cubes: Sequence[PGNode]) -> PGNode:
    """Merge cubes that have distinct labels."""
    result = cubes[0]
    for cube in cubes[1:]:
        result = call("merge_cubes", cube1=result, cube2=cube)
    return result


def is_scalar(node: Node) -> bool:
    """Whether a node is a number of the client."""
    return isinstance(node, Constant) and node.values.ndim == 0


def list_leaves(node: Node) -> list[Node]:
    """The operands of a tree of functions but for numbers, each once."""
    leaves: dict[str, Node] = {}
    seen: set[str] = set()

    def visit(part: Node) -> None:
        if part.key in seen:
            return
        seen.add(part.key)
        if isinstance(part, Elementwise):
            for argument in part.arguments:
                visit(argument)
        elif not is_scalar(part):
            leaves.setdefault(part.key, part)

    visit(node)
    return list(leaves.values())


def have_same_axes(nodes: Sequence[Node]) -> bool:
    """Whether all nodes have the same dimensions and labels."""
    return len({frozenset(axis.key for axis in node.axes) for node in nodes}) == 1


def build_process(node: Node, values: dict[str, Value]) -> Value:
    """A child process for a tree of functions whose leaves have values by key."""
    built: dict[str, Value] = {}

    def build(part: Node) -> Value:
        if part.key in values:
            return values[part.key]
        if isinstance(part, Constant):
            return part.values.item()
        assert isinstance(part, Elementwise)
        if part.key not in built:
            arguments = [Argument(build(a), a.dtype) for a in part.arguments]
            built[part.key] = build_value(part.function, arguments)
        return built[part.key]

    return build(node)


def build_step(step: Elementwise, values: dict[str, Value]) -> Value:
    """A child process for one function whose arguments have values by key."""
    arguments = [
        Argument(values[a.key] if a.key in values else a.values.item(), a.dtype)  # type: ignore[attr-defined]
        for a in step.arguments
    ]
    return build_value(step.function, arguments)


def to_list(values: np.ndarray) -> list[Any]:
    """Values as JSON has them: NaN is null."""
    if values.dtype.kind == "f":
        return [None if np.isnan(v) else v for v in values.tolist()]
    return values.tolist()


def find_source(node: Node) -> Any:
    """The collection that a node is calculated from."""
    from openeo_xarray.nodes import list_children

    if isinstance(node, Load):
        return node.source
    for part in list_children(node):
        source = find_source(part)
        if source is not None:
            return source
    return None


def make_collection(features: list[dict[str, Any]], crs: Any) -> dict[str, Any]:
    """A GeoJSON FeatureCollection in a reference system."""
    name = f"urn:ogc:def:crs:EPSG::{crs}"
    return {
        "type": "FeatureCollection",
        "features": features,
        "crs": {"type": "name", "properties": {"name": name}},
    }


METHODS: dict[type, Callable[[Lowering, Any], PGNode]] = {
    Load: Lowering.load,
    Take: Lowering.take,
    Drop: Lowering.drop,
    Relabel: Lowering.relabel,
    Points: Lowering.points,
    Elementwise: Lowering.elementwise,
    Along: Lowering.along,
    Convolution: Lowering.convolution,
    Reduce: Lowering.reduce,
    Segments: Lowering.segments,
    Join: Lowering.join,
    UserFunction: Lowering.user_function,
}

__all__ = ["collect_axes"]
