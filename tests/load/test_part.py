"""The part of a grid that is needed."""

from __future__ import annotations

import math

import pytest
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from odc_openeo.demand import Box, Demand
from odc_openeo.load import Only
from odc_openeo.processes import extents

GRID = GeoBox.from_bbox((600000, 5190000, 700000, 5290000), "EPSG:32632", resolution=100)


def box(west: float, south: float, east: float, north: float, crs: int = 32632) -> BoundingBox:
    return BoundingBox(west, south, east, north, f"EPSG:{crs}")


def test_a_box_has_the_pixels_that_it_touches_and_a_margin() -> None:
    cropped = Only(boxes=((box(610050, 5200050, 620000, 5230000),),), margin=3).crop(GRID)
    assert cropped == GRID[600 - 4 : 900 + 4, 100 - 4 : 200 + 4]
    assert Only().crop(GRID) is GRID


def test_what_is_beside_the_grid_narrows_only_where_it_can() -> None:
    left, above = box(500000, 5200000, 510000, 5230000), box(610000, 5300000, 620000, 5310000)
    assert Only(boxes=((left,),)).crop(GRID) == GRID[599:901, :]
    assert Only(boxes=((above,),)).crop(GRID) == GRID[:, 99:201]
    assert Only(boxes=((left,), (above,))).crop(GRID) == GRID[599:901, 99:201]
    assert Only(boxes=((box(0, 0, 1, 1),),)).crop(GRID) == GRID


def test_rectangles_limit_each_other() -> None:
    one, other = box(610000, 5200000, 630000, 5230000), box(620000, 5190000, 690000, 5210000)
    assert Only(boxes=((one, other),)).crop(GRID) == GRID[799:901, 199:301]
    assert Only(boxes=((one,), (other,))).crop(GRID) == GRID[599:, 99:901]


def test_a_filter_is_not_left_without_pixels_by_what_comes_after_it() -> None:
    """Only where nothing else is needed of what it leaves."""
    limit = box(620000, 5190000, 690000, 5210000)
    beside, within = box(610000, 5200000, 619000, 5205000), box(650000, 5200000, 660000, 5205000)
    assert Only(boxes=((beside, limit),)).crop(GRID) == GRID[849:901, 199:901]
    both = Only(boxes=((beside, limit), (within, limit)))
    assert both.crop(GRID) == GRID[849:901, 499:601]
    assert Only(boxes=((beside, limit), (within,))).crop(GRID) == GRID[849:901, 199:901]
    third = box(600000, 5250000, 700000, 5260000)
    assert Only(boxes=((beside, limit, third),)).crop(GRID) == GRID[299:401, 199:901]


def test_boxes_in_degrees_are_as_wide_as_their_widest_row() -> None:
    """Meridians lean: what two boxes share in degrees is narrower than what they share on the grid."""
    tall, flat = box(11, 46.9, 11.1, 47.7, 4326), box(10.4, 47.6, 12, 47.65, 4326)
    shared = box(11, 47.6, 11.1, 47.65, 4326)
    every = Only(boxes=((tall, flat),)).crop(GRID)
    narrow = Only(boxes=((shared,),)).crop(GRID)
    assert every.shape.x > narrow.shape.x + 15
    assert every.shape.y > narrow.shape.y


def test_a_box_beyond_the_reference_system() -> None:
    cropped = Only(boxes=((box(11, 0, 180, 47.5, 4326),),)).crop(GRID)
    assert cropped.boundingbox.right == 700000
    assert 600000 < cropped.boundingbox.left < 660000
    assert cropped.boundingbox.bottom == 5190000


def test_few_pixels_of_a_grid_are_sparse() -> None:
    corners = (box(600000, 5190000, 610000, 5200000),), (box(690000, 5280000, 700000, 5290000),)
    assert Only(boxes=corners).crop(GRID) == GRID
    assert Only(boxes=corners).sparse(GRID)
    assert not Only(boxes=corners).sparse(GRID[900:, :100])
    assert not Only().sparse(GRID)


def test_only_chunks_with_something_needed_count() -> None:
    corners = (box(600000, 5280000, 601000, 5290000),), (box(690000, 5190000, 700000, 5191000),)
    only = Only(boxes=corners)
    assert only.share(GRID, 250, (0, 0)) == 2 / 16
    assert only.share(GRID, 1000, (0, 0)) == 1
    assert only.share(GRID, 250, (200, 0)) == 3 / 20
    assert Only(boxes=((box(500000, 5200000, 510000, 5230000),),)).share(GRID, 250, (0, 0)) == 0
    assert Only().share(GRID, 250, (0, 0)) == 1


@pytest.mark.parametrize("crs", [32632, 4326])
def test_upright_on_any_other_grid(crs: int) -> None:
    """The upright box on a turned or slanted grid is within the rectangle that is taken."""
    centre = (650000.0, 5240000.0) if crs == 32632 else (10.98, 47.3)
    width, height = (8000.0, 2000.0) if crs == 32632 else (0.08, 0.02)
    x, y = centre
    needed = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, crs)
    found = extents.only(Demand((needed,), 2, elsewhere=2), boxes=True).boxes
    assert found is not None
    west, south, east, north = found[0][0].bbox
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
    assert extents.only(Demand((needed,), 3, elsewhere=3), boxes=True).boxes is None
