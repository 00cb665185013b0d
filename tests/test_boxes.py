"""Bounding boxes keep the reference system in which they are given."""

from __future__ import annotations

from typing import Any

import pytest

from odc_openeo.errors import ProcessParameterInvalid
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


@pytest.mark.parametrize(("west", "east"), [(179.5, -179.85), (170, -170), (90, -90), (350, 10)])
def test_west_of_a_box_across_the_antimeridian_is_larger_than_east(west: float, east: float) -> None:
    box = Box.parse({"west": west, "south": 0, "east": east, "north": 1}, "filter_bbox", "extent")
    assert (box.west, box.east) == (west, east + 360)


def test_swapped_edges_are_not_taken_for_a_box_around_the_earth() -> None:
    with pytest.raises(ProcessParameterInvalid, match="west and east are swapped.*add 360 to its east"):
        Box.parse({"west": 2, "south": 0, "east": 1, "north": 1}, "filter_bbox", "extent")
