"""Process graphs in words."""

from __future__ import annotations

import json
from typing import Any


def explain_graph(connection: Any, graph: dict[str, Any]) -> str:
    """The back-end's explanation of a process graph, or a list of its steps."""
    capabilities = getattr(connection, "capabilities", None)
    if capabilities is not None and _has_endpoint(capabilities()):
        answer = connection.post("/explain", json={"process": {"process_graph": graph}}).json()
        return format_answer(answer)
    return "\n".join(describe_step(key, node) for key, node in graph.items())


def format_answer(answer: Any) -> str:
    """The plan in words and the program of an explanation; all of it if it has other members."""
    if isinstance(answer, str):
        return answer
    texts = [answer.get(name) for name in ("text", "program")] if isinstance(answer, dict) else []
    parts = [text.strip() for text in texts if isinstance(text, str)]
    return "\n\n".join(parts) if parts else json.dumps(answer, indent=2)


def _has_endpoint(capabilities: Any) -> bool:
    endpoints = getattr(capabilities, "capabilities", {}).get("endpoints", ())
    return any(e.get("path") == "/explain" and "POST" in e.get("methods", ()) for e in endpoints)


def describe_step(key: str, node: dict[str, Any]) -> str:
    """One call of a process as a line: its arguments, and the results that it takes."""
    arguments = ", ".join(f"{name}={describe_value(value)}" for name, value in node["arguments"].items())
    return f"{key} = {node['process_id']}({arguments})"


def describe_value(value: Any) -> str:
    """An argument, short."""
    if isinstance(value, dict) and "from_node" in value:
        return str(value["from_node"])
    if isinstance(value, dict) and "from_parameter" in value:
        return str(value["from_parameter"])
    if isinstance(value, dict) and "process_graph" in value:
        steps = (describe_step(key, node) for key, node in value["process_graph"].items())
        return "{" + "; ".join(steps) + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[" + ", ".join(map(describe_value, value)) + "]"
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
