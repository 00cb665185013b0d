"""Parts of process graphs."""

from __future__ import annotations

from typing import Any


def child(process_id: str, /, **arguments: Any) -> dict[str, Any]:
    """Build a child process of one node."""
    return {"process_graph": {"it": {"process_id": process_id, "arguments": arguments, "result": True}}}


def value(name: str) -> dict[str, str]:
    """Refer to a parameter."""
    return {"from_parameter": name}
