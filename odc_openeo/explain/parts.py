"""How a process would be split as a batch job: as JSON, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from odc_openeo.parts import JobSplit, Part


def describe_split(split: JobSplit) -> dict[str, Any]:
    """Describe a split as JSON: ``count`` and ``kind`` of parts, their tasks, what of the result one has.

    ``rows``, ``columns``, ``dates`` and ``geometries`` are those of the largest part, where parts are cut
    along them. ``reason`` says why a job that is larger than one part is not split.
    """
    return {
        "count": len(split.parts),
        "kind": split.kind,
        "reason": split.reason,
        "tasks": split.tasks,
        "most_tasks": max(part.tasks for part in split.parts),
        **{
            name: size
            for name in ("rows", "columns", "dates", "geometries")
            if (size := max(_measure_extent(part).get(name, 0) for part in split.parts))
        },
    }


def _measure_extent(part: Part) -> dict[str, int]:
    """The lengths of a part along the dimensions that are cut."""
    window = part.window
    ranges: dict[str, tuple[int, int] | None] = {
        "rows": None if window is None else window.rows,
        "columns": None if window is None else window.columns,
        "dates": part.times,
        "geometries": part.geometries,
    }
    return {name: span[1] - span[0] for name, span in ranges.items() if span is not None}


def write_split(parts: Mapping[str, Any]) -> str:
    """Write a split as a sentence."""
    if parts["count"] == 1:
        if parts["reason"] is None:
            return "As a batch job it runs in one part: it is small enough."
        return (
            f"As a batch job it runs as a whole, though it is larger than a part should be: {parts['reason']}"
        )
    text = (
        f"As a batch job it runs in {parts['count']:,} parts of up to {write_extent(parts)}, each a dask "
        f"graph of up to about {parts['most_tasks']:,} tasks ({parts['tasks']:,} in all)."
    )
    if parts["kind"] == "stages":
        return f"{text} The parts are those of the cube that is reduced; a last step combines their values."
    return text


def write_extent(parts: Mapping[str, Any]) -> str:
    """Write the extent of the largest part."""
    named = [f"{parts[name]:,} {name}" for name in ("dates", "geometries") if name in parts]
    pixels = [f"{parts['rows']} x {parts['columns']} pixels"] if "rows" in parts else []
    return " and ".join([*pixels, *named])
