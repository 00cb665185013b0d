"""Small process graphs, written shortly."""

from __future__ import annotations

from typing import Any


def node(process_id: str, /, **arguments: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": arguments}


def ref(number: int) -> dict[str, str]:
    """The value of the node of that number."""
    return {"from_node": f"n{number}"}


def chain(*nodes: dict[str, Any]) -> dict[str, Any]:
    """A process of nodes ``n0``, ``n1``, …, of which the last gives the result."""
    numbered = {f"n{number}": dict(one) for number, one in enumerate(nodes)}
    list(numbered.values())[-1]["result"] = True
    return {"process_graph": numbered}


def child(process_id: str, /, **arguments: Any) -> dict[str, Any]:
    return chain(node(process_id, **arguments))


def saved(*nodes: dict[str, Any], format: str) -> dict[str, Any]:
    """A process that saves the value of the last node."""
    return chain(*nodes, node("save_result", data=ref(len(nodes) - 1), format=format))
