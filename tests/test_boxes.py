"""Bounding boxes keep the reference system in which they are given."""

from __future__ import annotations

from typing import Any

import pytest

from odc_openeo.spatial.boxes import Box

EDGES = {"west": 600_000, "south": 5_190_000, "east": 610_000, "north": 5_200_000}


@pytest.mark.parametrize("crs", [32633, "EPSG:32633", "32633"])
def test_codes_are_kept_as_codes(crs: Any) -> None:
    assert Box.parse({**EDGES, "crs": crs}, "filter_bbox", "extent").crs == 32633


def test_definition_that_is_like_one_with_a_code_is_kept() -> None:
    """Its datum is unknown, so it may be off from all of those that have a code."""
    crs = "+proj=utm +zone=33 +ellps=GRS80 +units=m"
    box = Box.parse({**EDGES, "crs": crs}, "filter_bbox", "extent")
    assert isinstance(box.crs, str)
    assert "Unknown" in box.crs


def test_degrees_by_default() -> None:
    assert Box.parse({"west": 1, "south": 2, "east": 3, "north": 4}, "filter_bbox", "extent").crs == 4326
