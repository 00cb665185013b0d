"""The part of a grid that is needed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from odc.geo.geobox import GeoBox

from odc_openeo.load import Subset
from odc_openeo.load.request import select_subset
from odc_openeo.registry.demand import Demand
from odc_openeo.spatial.boxes import Box

GRID = GeoBox.from_bbox((600000, 5190000, 700000, 5290000), "EPSG:32632", resolution=100)


def box(west: float, south: float, east: float, north: float, crs: int = 32632) -> Box:
    return Box(west, south, east, north, crs)


def limit(rectangle: Box, *limits: Box) -> Box:
    return replace(rectangle, limits=limits)


def test_a_box_has_the_pixels_that_it_touches_and_a_margin() -> None:
    cropped = Subset(boxes=(box(610050, 5200050, 620000, 5230000),), margin=3).crop_grid(GRID)
    assert cropped == GRID[600 - 4 : 900 + 4, 100 - 4 : 200 + 4]
    assert Subset().crop_grid(GRID) is GRID


def test_geometries_off_the_grid_narrow_only_where_possible() -> None:
    left, above = box(500000, 5200000, 510000, 5230000), box(610000, 5300000, 620000, 5310000)
    assert Subset(boxes=(left,)).crop_grid(GRID) == GRID[599:901, :]
    assert Subset(boxes=(above,)).crop_grid(GRID) == GRID[:, 99:201]
    assert Subset(boxes=(left, above)).crop_grid(GRID) == GRID[599:901, 99:201]
    assert Subset(boxes=(box(0, 0, 1, 1),)).crop_grid(GRID) == GRID


def test_rectangles_limit_each_other() -> None:
    one, other = box(610000, 5200000, 630000, 5230000), box(620000, 5190000, 690000, 5210000)
    assert Subset(boxes=(limit(one, other),)).crop_grid(GRID) == GRID[799:901, 199:301]
    assert Subset(boxes=(one, other)).crop_grid(GRID) == GRID[599:, 99:901]


def test_filter_keeps_pixels_despite_later_filters() -> None:
    """Only where nothing else is needed of what it leaves."""
    edge = box(620000, 5190000, 690000, 5210000)
    beside, within = box(610000, 5200000, 619000, 5205000), box(650000, 5200000, 660000, 5205000)
    assert Subset(boxes=(limit(beside, edge),)).crop_grid(GRID) == GRID[849:901, 199:901]
    both = Subset(boxes=(limit(beside, edge), limit(within, edge)))
    assert both.crop_grid(GRID) == GRID[849:901, 499:601]
    assert Subset(boxes=(limit(beside, edge), within)).crop_grid(GRID) == GRID[849:901, 199:901]
    third = box(600000, 5250000, 700000, 5260000)
    assert Subset(boxes=(limit(beside, edge, third),)).crop_grid(GRID) == GRID[299:401, 199:901]


def test_boxes_in_degrees_are_as_wide_as_their_widest_row() -> None:
    """Meridians lean: what two boxes share in degrees is narrower than what they share on the grid."""
    tall, flat = box(11, 46.9, 11.1, 47.7, 4326), box(10.4, 47.6, 12, 47.65, 4326)
    shared = box(11, 47.6, 11.1, 47.65, 4326)
    every = Subset(boxes=(limit(tall, flat),)).crop_grid(GRID)
    narrow = Subset(boxes=(shared,)).crop_grid(GRID)
    assert every.shape.x > narrow.shape.x + 15
    assert every.shape.y > narrow.shape.y


def test_box_outside_the_reference_system() -> None:
    cropped = Subset(boxes=(box(11, 0, 180, 47.5, 4326),)).crop_grid(GRID)
    assert cropped.boundingbox.right == 700000
    assert 600000 < cropped.boundingbox.left < 660000
    assert cropped.boundingbox.bottom == 5190000


def test_few_pixels_of_a_grid_are_sparse() -> None:
    corners = box(600000, 5190000, 610000, 5200000), box(690000, 5280000, 700000, 5290000)
    assert Subset(boxes=corners).crop_grid(GRID) == GRID
    assert Subset(boxes=corners).is_sparse(GRID)
    assert not Subset(boxes=corners).is_sparse(GRID[900:, :100])
    assert not Subset().is_sparse(GRID)


def test_only_chunks_with_something_needed_count() -> None:
    corners = box(600000, 5280000, 601000, 5290000), box(690000, 5190000, 700000, 5191000)
    subset = Subset(boxes=corners)
    assert subset.needed_share(GRID, 250, (0, 0)) == 2 / 16
    assert subset.needed_share(GRID, 1000, (0, 0)) == 1
    assert subset.needed_share(GRID, 250, (200, 0)) == 3 / 20
    assert Subset(boxes=(box(500000, 5200000, 510000, 5230000),)).needed_share(GRID, 250, (0, 0)) == 0
    assert Subset().needed_share(GRID, 250, (0, 0)) == 1


@pytest.mark.parametrize("crs", [32632, 4326])
def test_box_is_axis_aligned_on_any_other_grid(crs: int) -> None:
    """The axis-aligned box on a turned or slanted grid is within the rectangle that is taken."""
    centre = (650000.0, 5240000.0) if crs == 32632 else (10.98, 47.3)
    width, height = (8000.0, 2000.0) if crs == 32632 else (0.08, 0.02)
    x, y = centre
    needed = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, crs)
    result = select_subset(Demand((needed,), 2, elsewhere=2), crop=True).boxes
    assert result is not None
    west, south, east, north = result[0].bounding_box.bbox
    up = 1.0 if crs == 32632 else math.cos(math.radians(y))
    for angle in range(0, 360, 5):
        turned = math.radians(angle)
        c, s = math.cos(turned), math.sin(turned)
        w, h = width * up / 2, height / 2
        across, along = w * abs(c) + h * abs(s), w * abs(s) + h * abs(c)
        for sign in (1, -1):
            dx, dy = across * c - sign * along * s, across * s + sign * along * c
            assert west <= x + dx / up <= east
            assert south <= y + dy <= north
    assert select_subset(Demand((needed,), 3, elsewhere=3), crop=True).boxes is None
