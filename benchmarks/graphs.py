"""The process graphs that are measured, one for each row of the table."""

from __future__ import annotations

import math
from typing import Any, Final

from odc.geo.geobox import GeoBox

from benchmarks import scenes
from benchmarks.scenes import BOX, EAST, HEIGHTS, TILE, WEST, YEARS, Scenes

Node = dict[str, Any]
Graph = dict[str, Node]

CLOUDS: Final = (3, 8, 9, 10)
POLYGONS: Final = 500
DATES: Final = ["2022-05-01", "2022-07-01"]
"""Of these, `scenes.BOX` has twelve."""
EVER: Final = ["2022-01-01", "2025-01-01"]


def node(process_id: str, **arguments: Any) -> Node:
    """A node of a graph."""
    return {"process_id": process_id, "arguments": arguments}


def ref(id_: str) -> dict[str, str]:
    """The value of another node."""
    return {"from_node": id_}


def parameter(name: str) -> dict[str, str]:
    """The value of a parameter."""
    return {"from_parameter": name}


def child(**nodes: Node) -> dict[str, Any]:
    """A child process whose result is its node ``last``."""
    nodes["last"]["result"] = True
    return {"process_graph": nodes}


def reducer(process_id: str, **arguments: Any) -> dict[str, Any]:
    """A child process that is one process of ``data``."""
    return child(last=node(process_id, data=parameter("data"), **arguments))


def finished(graph: Graph, last: str, format_: str = "GTiff", **options: Any) -> Graph:
    """The graph with its value saved."""
    saved = node("save_result", data=ref(last), format=format_, options=options)
    return {**graph, "save": {**saved, "result": True}}


def box(grid: GeoBox) -> dict[str, Any]:
    """A grid as spatial extent."""
    west, south, east, north = grid.boundingbox.bbox
    return {"west": west, "south": south, "east": east, "north": north, "crs": f"EPSG:{grid.crs.epsg}"}


def load(found: Scenes, *bands: str, dates: list[str] = EVER, grid: GeoBox | None = None) -> Node:
    """Load a product."""
    return node(
        "load_collection",
        id=found.product,
        spatial_extent=box(grid or found.grid),
        temporal_extent=dates,
        bands=list(bands),
    )


def band(name: str) -> Node:
    """One band of the array ``data``."""
    return node("array_element", data=parameter("data"), label=name)


def ndvi(data: str) -> Node:
    """NDVI of a cube with the bands B04 and B08."""
    index = child(
        red=band("B04"), nir=band("B08"), last=node("normalized_difference", x=ref("nir"), y=ref("red"))
    )
    return node("reduce_dimension", data=ref(data), dimension="bands", reducer=index)


def masked_ndvi(dates: list[str], grid: GeoBox | None = None, *, pairs: bool = False) -> Graph:
    """Nodes up to ``masked``: NDVI without what SCL calls clouds and their shadows.

    With ``pairs`` classes are joined two by two, for back-ends whose ``any`` takes no list of values.
    """
    is_class = {f"is{value}": node("eq", x=ref("scl"), y=value) for value in CLOUDS}
    if pairs:
        is_class["a"] = node("or", x=ref("is3"), y=ref("is8"))
        is_class["b"] = node("or", x=ref("is9"), y=ref("is10"))
        any_ = node("or", x=ref("a"), y=ref("b"))
    else:
        any_ = node("any", data=[ref(f"is{value}") for value in CLOUDS])
    cloudy = child(scl=band("SCL"), **is_class, last=any_)
    return {
        "load": load(BOX, "B04", "B08", "SCL", dates=dates, grid=grid),
        "ndvi": ndvi("load"),
        "cloudy": node("reduce_dimension", data=ref("load"), dimension="bands", reducer=cloudy),
        "masked": node("mask", data=ref("ndvi"), mask=ref("cloudy")),
    }


# --- The rows ------------------------------------------------------------------------------------


def box_to_cogs() -> Graph:
    """1. A box of 20 km, 12 dates, 4 bands as COGs."""
    return finished({"load": load(BOX, *scenes.FINE, dates=DATES)}, "load")


def composite(dates: list[str] = DATES, grid: GeoBox | None = None, *, pairs: bool = False) -> Graph:
    """2. Median NDVI without clouds."""
    median = node("reduce_dimension", data=ref("masked"), dimension="t", reducer=reducer("median"))
    return finished({**masked_ndvi(dates, grid, pairs=pairs), "median": median}, "median")


def months(*, pairs: bool = False) -> Graph:
    """3. Monthly means, gaps filled linearly."""
    mean = node("aggregate_temporal_period", data=ref("masked"), period="month", reducer=reducer("mean"))
    fill = node(
        "apply_dimension", data=ref("mean"), dimension="t", process=reducer("array_interpolate_linear")
    )
    return finished({**masked_ndvi(EVER, pairs=pairs), "mean": mean, "fill": fill}, "fill")


def polygons() -> dict[str, Any]:
    """Fields of sixteen villages all over the tile, in degrees."""
    left, top = TILE.grid.boundingbox.left, TILE.grid.boundingbox.top
    features = []
    for n in range(POLYGONS):
        village, place = n % 16, n // 16
        x = left + 27_000 * (village % 4) + 4_503.3 + 230 * (place % 6)
        y = top - 27_000 * (village // 4) - 4_701.7 - 230 * (place // 6)
        size = 120 + 7 * (n % 13)
        ring = [(x, y), (x + size, y - 13), (x + size - 9, y - size), (x - 5, y - size), (x, y)]
        shape = {"type": "Polygon", "coordinates": [scenes.in_degrees(ring, TILE.grid)]}
        features.append({"type": "Feature", "properties": {"n": n}, "geometry": shape})
    return {"type": "FeatureCollection", "features": features}


def series() -> Graph:
    """4. Means of 500 small polygons over a whole tile."""
    mean = node("aggregate_spatial", data=ref("load"), geometries=polygons(), reducer=reducer("mean"))
    return finished({"load": load(TILE, "B04"), "mean": mean}, "mean", "netCDF")


def zones(*, pairs: bool = False) -> Graph:
    """5. Two zones at 20 m in EPSG:3035, merged on one grid.

    With ``pairs`` the sum of both values stands for the larger one, as above.
    """
    target = {"projection": 3035, "resolution": 20, "method": "bilinear"}
    xy = {"x": parameter("x"), "y": parameter("y")}
    larger = child(last=node("add", **xy) if pairs else node("max", data=list(xy.values())))
    return finished(
        {
            "west": load(WEST, "B04"),
            "east": load(EAST, "B04"),
            "first": node("resample_spatial", data=ref("west"), **target),
            "second": node("resample_cube_spatial", data=ref("east"), target=ref("first"), method="bilinear"),
            "both": node("merge_cubes", cube1=ref("first"), cube2=ref("second"), overlap_resolver=larger),
            "latest": node("reduce_dimension", data=ref("both"), dimension="t", reducer=reducer("max")),
        },
        "latest",
    )


KERNEL: Final = [[1.0, 2, 3, 2, 1], [2, 4, 6, 4, 2], [3, 6, 9, 6, 3], [2, 4, 6, 4, 2], [1, 2, 3, 2, 1]]
KERNEL_FACTOR: Final = 1 / 81


def _smooth() -> Graph:
    """An elevation model, and the same ``smooth``."""
    smooth = node("apply_kernel", data=ref("load"), kernel=KERNEL, factor=KERNEL_FACTOR, border="replicate")
    return {"load": load(HEIGHTS, "height"), "smooth": smooth}


def terrain() -> Graph:
    """6. The slope of a smoothed elevation model."""
    return finished({**_smooth(), "slope": node("slope", data=ref("smooth"))}, "slope")


def smoothing() -> Graph:
    """6 without slopes, for back-ends that have no such process."""
    return finished(_smooth(), "smooth")


def three_uses() -> Graph:
    """7. Least, largest and mean NDVI of one load as bands."""
    graph: Graph = {"load": load(BOX, "B04", "B08", dates=DATES), "ndvi": ndvi("load")}
    for name in ("min", "max", "mean"):
        reduced = node("reduce_dimension", data=ref("ndvi"), dimension="t", reducer=reducer(name))
        graph[name] = reduced
        labelled = node("add_dimension", data=ref(name), name="bands", label=name, type="bands")
        graph[f"{name}_band"] = labelled
    graph["two"] = node("merge_cubes", cube1=ref("min_band"), cube2=ref("max_band"))
    graph["three"] = node("merge_cubes", cube1=ref("two"), cube2=ref("mean_band"))
    return finished(graph, "three")


def preview() -> Graph:
    """8. A whole tile at pixels a hundred times as wide."""
    coarse = node("resample_spatial", data=ref("load"), resolution=1000, method="near")
    return finished({"load": load(TILE, "B04", "B08"), "coarse": coarse}, "coarse")


def one_and_one() -> Graph:
    """9. No data at all."""
    return {"add": {**node("add", x=1, y=1), "result": True}}


START: Final = [1000.0, 100.0, 100.0]
YEAR: Final = 2 * math.pi / (365.25 * 86400)


def _wave() -> dict[str, Any]:
    """``p0 + p1 cos(YEAR x) + p2 sin(YEAR x)``."""

    def coefficient(index: int) -> Node:
        return node("array_element", data=parameter("parameters"), index=index)

    return child(
        p0=coefficient(0),
        p1=coefficient(1),
        p2=coefficient(2),
        angle=node("multiply", x=parameter("x"), y=YEAR),
        cos=node("cos", x=ref("angle")),
        sin=node("sin", x=ref("angle")),
        a=node("multiply", x=ref("p1"), y=ref("cos")),
        b=node("multiply", x=ref("p2"), y=ref("sin")),
        ab=node("add", x=ref("a"), y=ref("b")),
        last=node("add", x=ref("p0"), y=ref("ab")),
    )


def curve() -> Graph:
    """10. A yearly wave fitted to each pixel."""
    fit = node("fit_curve", data=parameter("data"), parameters=START, function=_wave())
    fitted = node(
        "apply_dimension",
        data=ref("load"),
        dimension="t",
        process=child(last=fit),
        target_dimension="parameter",
    )
    return finished({"load": load(YEARS, "B08"), "fit": fitted}, "fit", "netCDF")


def curve_of_cube() -> Graph:
    """10, for back-ends whose ``fit_curve`` takes a cube, as an earlier draft of the process did."""
    fit = node("fit_curve", data=ref("load"), parameters=START, function=_wave(), dimension="t")
    return finished({"load": load(YEARS, "B08"), "fit": fit}, "fit", "netCDF")


def ndvi_preview(side: int = 256) -> Graph:
    """NDVI of one date of a small box as a picture."""
    grid = BOX.grid[:side, :side]
    graph: Graph = {"load": load(BOX, "B04", "B08", dates=["2022-05-04", "2022-05-05"], grid=grid)}
    graph["ndvi"] = ndvi("load")
    grey = child(
        last=node("linear_scale_range", x=parameter("x"), inputMin=-1, inputMax=1, outputMin=0, outputMax=255)
    )
    graph["grey"] = node("apply", data=ref("ndvi"), process=grey)
    return finished(graph, "grey", "PNG")
