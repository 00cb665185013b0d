"""Whether cubes of calendar periods meet other cubes, whose labels they would have to match.

Labels of `aggregate_temporal_period` are strings such as 2022-06, which not every back-end matches with
dates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openeo_xarray.nodes import Constant, Elementwise, Join, Node, Segments, list_children


def allows_periods(outputs: Sequence[Sequence[Node]]) -> bool:
    """Whether all cubes that are merged have their times from the same groups."""
    meetings = [
        *outputs,
        *(meeting for output in outputs for node in output for meeting in list_meetings(node)),
    ]
    origins: dict[str, set[object]] = {}
    return all(len({o for node in meeting for o in find_origins(node, origins)}) <= 1 for meeting in meetings)


def list_meetings(node: Node) -> Iterator[tuple[Node, ...]]:
    """The operands of all nodes that match labels."""
    seen: set[str] = set()
    todo = [node]
    while todo:
        current = todo.pop()
        if current.key in seen:
            continue
        seen.add(current.key)
        children = list_children(current)
        if isinstance(current, Elementwise | Join):
            yield children
        todo += children


def find_origins(node: Node, origins: dict[str, set[object]]) -> set[object]:
    """Where the times of a node are from: groups of segments, or none. `origins` are those by key."""
    if node.key not in origins:
        origins[node.key] = _find_origins(node, origins)
    return origins[node.key]


def _find_origins(node: Node, origins: dict[str, set[object]]) -> set[object]:
    if isinstance(node, Constant) or not any(axis.kind == "time" for axis in node.axes):
        return set()
    if isinstance(node, Segments):
        return {(node.child.dims[node.dim].key, node.groups)}
    children = [child for child in list_children(node) if not isinstance(child, Constant)]
    return {origin for child in children for origin in find_origins(child, origins)} or {None}
