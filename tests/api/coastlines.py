"""The coastlines of the maps: ``python -m tests.api.coastlines`` draws them from Natural Earth.

Natural Earth (public domain, scale 1:110 million) comes with pyogrio, which geopandas needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import geopandas
import pyogrio
import shapely

ROOT: Final = Path(__file__).resolve().parents[2]
DRAWING: Final = ROOT / "odc_openeo" / "api" / "templates" / "world.svg"
SOURCE: Final = Path(pyogrio.__file__).parent / "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
LEAST_DEGREES: Final = 0.2
"""Details smaller than this are left out: half a pixel of the map of the world."""
LEAST_AREA: Final = 0.5
HEAD: Final = "{# Land of Natural Earth (1:110 million, public domain) in degrees, the latitude negative. #}"


def load_land() -> shapely.Geometry:
    """The land, in degrees; borders between countries are gone."""
    countries = geopandas.read_file(SOURCE).geometry
    # Neighbours do not share each vertex, so there are slits between them.
    return shapely.union_all([country.buffer(0.01) for country in countries]).buffer(-0.01)


def draw_path(land: shapely.MultiPolygon) -> str:
    """Draw polygons as a path of SVG with relative coordinates, in tenths of degrees."""
    rings = []
    for polygon in land.geoms:
        simple = polygon.simplify(LEAST_DEGREES)
        holes = [ring for ring in simple.interiors if shapely.Polygon(ring).area >= LEAST_AREA]
        if polygon.area >= LEAST_AREA:
            rings += [simple.exterior, *holes]
    path = "".join(f"M{' '.join(_list_steps(ring))}z" for ring in rings)
    # Signs separate numbers as well as spaces do, and zeros before points are not needed.
    return re.sub(r" -", "-", re.sub(r"\b0\.", ".", path))


def _list_steps(ring: shapely.LinearRing) -> Iterator[str]:
    last = (0, 0)
    for number, (x, y) in enumerate(ring.coords[:-1]):
        place = (round(10 * x), round(-10 * y))
        if number == 0 or place != last:
            step = " ".join(f"{(now - before) / 10:g}" for now, before in zip(place, last, strict=True))
            yield f"l{step}" if number == 1 else step
        last = place


def main() -> None:
    """Write the drawing."""
    path = f'<path id="land" fill-rule="evenodd" d="{draw_path(load_land())}"/>'
    DRAWING.write_text(f"{HEAD}\n{path}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
