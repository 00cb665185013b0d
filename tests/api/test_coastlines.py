"""The coastlines of the maps are those of Natural Earth, which comes with pyogrio."""

from __future__ import annotations

import re

import numpy as np
import pytest
import shapely

from tests.api.coastlines import DRAWING, SOURCE, load_land


def read_drawing() -> shapely.Geometry:
    """The land of the drawing in degrees; holes are those of the rule evenodd."""
    match = re.search(r' d="([^"]+)"', DRAWING.read_text(encoding="utf-8"))
    assert match is not None
    land = shapely.MultiPolygon()
    for ring in re.findall(r"M([^z]+)z", match[1]):
        numbers = [float(number) for number in re.findall(r"-?\d*\.?\d+", ring)]
        places = np.cumsum(np.reshape(numbers, (-1, 2)), axis=0) * [1, -1]
        land = land.symmetric_difference(shapely.make_valid(shapely.Polygon(places)))
    return land


@pytest.mark.skipif(not SOURCE.exists(), reason="this pyogrio has no Natural Earth")
@pytest.mark.filterwarnings("ignore")
def test_the_drawing_is_of_the_earth() -> None:
    drawn, land = read_drawing(), load_land()
    common = drawn.intersection(land).area
    assert common / drawn.union(land).area > 0.98
    for name, longitude, latitude, is_land in (
        ("Bolzano", 11.35, 46.5, True),
        ("Alice Springs", 133.9, -23.7, True),
        ("Tasmania", 146.6, -42.2, True),
        ("Caspian Sea", 50.5, 42, False),
        ("Hudson Bay", -85, 60, False),
        ("Pacific", -150, 0, False),
    ):
        assert drawn.contains(shapely.Point(longitude, latitude)) == is_land, name
    assert DRAWING.stat().st_size < 25_000
