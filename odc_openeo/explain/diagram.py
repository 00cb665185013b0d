"""The diagram of a plan: as Mermaid text, and as boxes and lines to draw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from odc_openeo.explain.parts import write_extent

LONGEST_LABEL: Final = 40
WIDTH: Final = 210
HEIGHT: Final = 58
GAP_X: Final = 26
GAP_Y: Final = 40


def write_mermaid(plan: Mapping[str, Any]) -> str:
    """Write the plan as a Mermaid flowchart. Names of users are in it as character codes where not plain."""
    numbers = {step["node"]: number for number, step in enumerate(plan["steps"])}
    lines = ["flowchart TD"]
    for id_, number in numbers.items():
        step = plan["steps"][number]
        title, detail = (_escape(text) for text in describe_box(plan, step))
        shape = ("([", "])") if step["result"] else ("[", "]")
        lines.append(f'    n{number}{shape[0]}"{title}<br/>{detail}"{shape[1]}')
        lines += [f"    n{numbers[before]} --> n{numbers[id_]}" for before in step["after"]]
        if step["result"] and (note := describe_parts(plan)):
            title, detail = map(_escape, note)
            lines += [f'    parts{{{{"{title}<br/>{detail}"}}}}', f"    n{number} -.- parts"]
    return "\n".join(lines) + "\n"


def describe_box(plan: Mapping[str, Any], step: Mapping[str, Any]) -> tuple[str, str]:
    """The two lines of a step in a diagram: its process and id, and what it gives."""
    title = step["process"] if step["process"] == step["node"] else f"{step['node']}: {step['process']}"
    load = next((load for load in plan["loads"] if load["node"] == step["node"]), None)
    if load is not None:
        return title, f"{', '.join(load['collections'])}, {load['datasets']} datasets"
    gives = step["gives"]
    if gives is None:
        return title, "not needed"
    sizes = " x ".join(f"{d} {n}" for d, n in gives.get("dimensions", {}).items())
    return title, sizes or gives["type"]


def describe_parts(plan: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the two lines on the parts of a job in a diagram; None if it is small."""
    parts = plan["parts"]
    if parts["count"] > 1:
        return f"{parts['count']:,} parts as a batch job", f"up to {write_extent(parts)}"
    return None if parts["reason"] is None else ("one part as a batch job", parts["reason"])


def _escape(text: str) -> str:
    """Text without anything that Mermaid or HTML could take for its own."""
    short = text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
    return re.sub(r"[^\w .,:/-]", lambda match: f"#{ord(match[0])};", short, flags=re.ASCII)


@dataclass(frozen=True)
class DiagramBox:
    """A step as it is drawn: its place in pixels, and two lines of text, which are not escaped."""

    x: int
    y: int
    title: str
    detail: str
    is_result: bool
    is_note: bool = False


@dataclass(frozen=True)
class Drawing:
    """Boxes, lines (from x, y to x, y) and the size of the whole."""

    width: int
    height: int
    boxes: list[DiagramBox]
    lines: list[tuple[int, int, int, int]]


def draw_plan(plan: Mapping[str, Any]) -> Drawing:
    """Arrange the steps in rows, each below all that it takes values from."""
    rows: dict[str, int] = {}
    for step in plan["steps"]:
        rows[step["node"]] = max((rows[before] + 1 for before in step["after"]), default=0)
    counts: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for id_, row in rows.items():
        column = counts.get(row, 0)
        counts[row] = column + 1
        places[id_] = (GAP_X + column * (WIDTH + GAP_X), GAP_Y // 2 + row * (HEIGHT + GAP_Y))
    boxes = [
        DiagramBox(*places[step["node"]], *_write_lines(plan, step), is_result=step["result"])
        for step in plan["steps"]
    ]
    lines = [
        _connect(places[before], places[step["node"]]) for step in plan["steps"] for before in step["after"]
    ]
    rows_drawn, note = len(counts), describe_parts(plan)
    if note is not None:
        place = (GAP_X, GAP_Y // 2 + rows_drawn * (HEIGHT + GAP_Y))
        title, detail = map(_shorten, note)
        boxes.append(DiagramBox(*place, title, detail, is_result=False, is_note=True))
        lines += [_connect(places[step["node"]], place) for step in plan["steps"] if step["result"]]
        rows_drawn += 1
    width = GAP_X + max(counts.values(), default=1) * (WIDTH + GAP_X)
    return Drawing(width, GAP_Y + rows_drawn * (HEIGHT + GAP_Y) - GAP_Y // 2, boxes, lines)


def _write_lines(plan: Mapping[str, Any], step: Mapping[str, Any]) -> tuple[str, str]:
    title, detail = describe_box(plan, step)
    return _shorten(title), _shorten(detail)


def _shorten(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:29]}…"


def _connect(upper: tuple[int, int], lower: tuple[int, int]) -> tuple[int, int, int, int]:
    return upper[0] + WIDTH // 2, upper[1] + HEIGHT, lower[0] + WIDTH // 2, lower[1]
