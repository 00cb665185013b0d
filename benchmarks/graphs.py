"""The measured process graphs, one per row of the table."""

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
"""An interval with twelve dates of `scenes.BOX`."""
EVER: Final = ["2022-01-01", "2025-01-01"]


def make_node(process_id: str, **arguments: Any) -> Node:
    """A node of a graph."""
    return {"process_id": process_id, "arguments": arguments}


def make_ref(id_: str) -> dict[str, str]:
    """The value of another node."""
    return {"from_node": id_}


def make_parameter(name: str) -> dict[str, str]:
    """The value of a parameter."""
    return {"from_parameter": name}


def make_child(**nodes: Node) -> dict[str, Any]:
    """A child process whose result is its node ``last``."""
    nodes["last"]["result"] = True
    return {"process_graph": nodes}


def make_reducer(process_id: str, **arguments: Any) -> dict[str, Any]:
    """A child process that is one process of ``data``."""
    return make_child(last=make_node(process_id, data=make_parameter("data"), **arguments))


def finish_graph(graph: Graph, last: str, format_: str = "GTiff", **options: Any) -> Graph:
    """The graph with its value saved."""
    saved = make_node("save_result", data=make_ref(last), format=format_, options=options)
    return {**graph, "save": {**saved, "result": True}}


def make_box(grid: GeoBox) -> dict[str, Any]:
    """A grid as spatial extent."""
    west, south, east, north = grid.boundingbox.bbox
    return {"west": west, "south": south, "east": east, "north": north, "crs": f"EPSG:{grid.crs.epsg}"}


def load_scenes(scenes: Scenes, *bands: str, dates: list[str] = EVER, grid: GeoBox | None = None) -> Node:
    """Load a product."""
    return make_node(
        "load_collection",
        id=scenes.product,
        spatial_extent=make_box(grid or scenes.grid),
        temporal_extent=dates,
        bands=list(bands),
    )


def get_band(name: str) -> Node:
    """One band of the array ``data``."""
    return make_node("array_element", data=make_parameter("data"), label=name)


def compute_ndvi(data: str) -> Node:
    """NDVI of a cube with the bands B04 and B08."""
    index = make_child(
        red=get_band("B04"),
        nir=get_band("B08"),
        last=make_node("normalized_difference", x=make_ref("nir"), y=make_ref("red")),
    )
    return make_node("reduce_dimension", data=make_ref(data), dimension="bands", reducer=index)


def masked_ndvi(dates: list[str], grid: GeoBox | None = None, *, pairs: bool = False) -> Graph:
    """Nodes up to ``masked``: NDVI without pixels that SCL classifies as clouds or cloud shadows.

    With ``pairs``, classes are joined in pairs, for back-ends whose ``any`` does not accept a list of values.
    """
    is_class = {f"is{value}": make_node("eq", x=make_ref("scl"), y=value) for value in CLOUDS}
    if pairs:
        is_class["a"] = make_node("or", x=make_ref("is3"), y=make_ref("is8"))
        is_class["b"] = make_node("or", x=make_ref("is9"), y=make_ref("is10"))
        any_ = make_node("or", x=make_ref("a"), y=make_ref("b"))
    else:
        any_ = make_node("any", data=[make_ref(f"is{value}") for value in CLOUDS])
    cloudy = make_child(scl=get_band("SCL"), **is_class, last=any_)
    return {
        "load": load_scenes(BOX, "B04", "B08", "SCL", dates=dates, grid=grid),
        "ndvi": compute_ndvi("load"),
        "cloudy": make_node("reduce_dimension", data=make_ref("load"), dimension="bands", reducer=cloudy),
        "masked": make_node("mask", data=make_ref("ndvi"), mask=make_ref("cloudy")),
    }


# --- The rows ------------------------------------------------------------------------------------


def box_to_cogs() -> Graph:
    """1. A box of 20 km, 12 dates, 4 bands as COGs."""
    return finish_graph({"load": load_scenes(BOX, *scenes.FINE, dates=DATES)}, "load")


def masked_median(dates: list[str] = DATES, grid: GeoBox | None = None, *, pairs: bool = False) -> Graph:
    """2. Median NDVI without clouds."""
    median = make_node(
        "reduce_dimension", data=make_ref("masked"), dimension="t", reducer=make_reducer("median")
    )
    return finish_graph({**masked_ndvi(dates, grid, pairs=pairs), "median": median}, "median")


def monthly_means(*, pairs: bool = False) -> Graph:
    """3. Monthly means, gaps filled linearly."""
    mean = make_node(
        "aggregate_temporal_period", data=make_ref("masked"), period="month", reducer=make_reducer("mean")
    )
    fill = make_node(
        "apply_dimension",
        data=make_ref("mean"),
        dimension="t",
        process=make_reducer("array_interpolate_linear"),
    )
    return finish_graph({**masked_ndvi(EVER, pairs=pairs), "mean": mean, "fill": fill}, "fill")


def make_polygons() -> dict[str, Any]:
    """Make the fields of sixteen villages spread over the tile, in degrees."""
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


def polygon_series() -> Graph:
    """4. Means of 500 small polygons over a whole tile."""
    mean = make_node(
        "aggregate_spatial", data=make_ref("load"), geometries=make_polygons(), reducer=make_reducer("mean")
    )
    return finish_graph({"load": load_scenes(TILE, "B04"), "mean": mean}, "mean", "netCDF")


def merged_zones(*, pairs: bool = False) -> Graph:
    """5. Two zones at 20 m in EPSG:3035, merged on one grid.

    With ``pairs``, the sum of both values replaces their maximum, for the same back-ends.
    """
    target = {"projection": 3035, "resolution": 20, "method": "bilinear"}
    xy = {"x": make_parameter("x"), "y": make_parameter("y")}
    larger = make_child(last=make_node("add", **xy) if pairs else make_node("max", data=list(xy.values())))
    return finish_graph(
        {
            "west": load_scenes(WEST, "B04"),
            "east": load_scenes(EAST, "B04"),
            "first": make_node("resample_spatial", data=make_ref("west"), **target),
            "second": make_node(
                "resample_cube_spatial", data=make_ref("east"), target=make_ref("first"), method="bilinear"
            ),
            "both": make_node(
                "merge_cubes", cube1=make_ref("first"), cube2=make_ref("second"), overlap_resolver=larger
            ),
            "latest": make_node(
                "reduce_dimension", data=make_ref("both"), dimension="t", reducer=make_reducer("max")
            ),
        },
        "latest",
    )


KERNEL: Final = [[1.0, 2, 3, 2, 1], [2, 4, 6, 4, 2], [3, 6, 9, 6, 3], [2, 4, 6, 4, 2], [1, 2, 3, 2, 1]]
KERNEL_FACTOR: Final = 1 / 81


def _smooth_graph() -> Graph:
    """Nodes that load an elevation model and smooth it."""
    smooth = make_node(
        "apply_kernel", data=make_ref("load"), kernel=KERNEL, factor=KERNEL_FACTOR, border="replicate"
    )
    return {"load": load_scenes(HEIGHTS, "height"), "smooth": smooth}


def smoothed_slope() -> Graph:
    """6. The slope of a smoothed elevation model."""
    return finish_graph({**_smooth_graph(), "slope": make_node("slope", data=make_ref("smooth"))}, "slope")


def smoothed_heights() -> Graph:
    """6. Without slopes, for back-ends without the process ``slope``."""
    return finish_graph(_smooth_graph(), "smooth")


def three_uses() -> Graph:
    """7. Least, largest and mean NDVI of one load as bands."""
    graph: Graph = {"load": load_scenes(BOX, "B04", "B08", dates=DATES), "ndvi": compute_ndvi("load")}
    for name in ("min", "max", "mean"):
        reduced = make_node(
            "reduce_dimension", data=make_ref("ndvi"), dimension="t", reducer=make_reducer(name)
        )
        graph[name] = reduced
        labelled = make_node("add_dimension", data=make_ref(name), name="bands", label=name, type="bands")
        graph[f"{name}_band"] = labelled
    graph["two"] = make_node("merge_cubes", cube1=make_ref("min_band"), cube2=make_ref("max_band"))
    graph["three"] = make_node("merge_cubes", cube1=make_ref("two"), cube2=make_ref("mean_band"))
    return finish_graph(graph, "three")


def coarse_preview() -> Graph:
    """8. A whole tile with pixels a hundred times as wide."""
    coarse = make_node("resample_spatial", data=make_ref("load"), resolution=1000, method="near")
    return finish_graph({"load": load_scenes(TILE, "B04", "B08"), "coarse": coarse}, "coarse")


def one_and_one() -> Graph:
    """9. No data at all."""
    return {"add": {**make_node("add", x=1, y=1), "result": True}}


START: Final = [1000.0, 100.0, 100.0]
YEAR: Final = 2 * math.pi / (365.25 * 86400)


def _wave_graph() -> dict[str, Any]:
    """``p0 + p1 cos(YEAR x) + p2 sin(YEAR x)``."""

    def coefficient(index: int) -> Node:
        return make_node("array_element", data=make_parameter("parameters"), index=index)

    return make_child(
        p0=coefficient(0),
        p1=coefficient(1),
        p2=coefficient(2),
        angle=make_node("multiply", x=make_parameter("x"), y=YEAR),
        cos=make_node("cos", x=make_ref("angle")),
        sin=make_node("sin", x=make_ref("angle")),
        a=make_node("multiply", x=make_ref("p1"), y=make_ref("cos")),
        b=make_node("multiply", x=make_ref("p2"), y=make_ref("sin")),
        ab=make_node("add", x=make_ref("a"), y=make_ref("b")),
        last=make_node("add", x=make_ref("p0"), y=make_ref("ab")),
    )


def yearly_curve() -> Graph:
    """10. A yearly wave fitted to each pixel."""
    fit = make_node("fit_curve", data=make_parameter("data"), parameters=START, function=_wave_graph())
    fitted = make_node(
        "apply_dimension",
        data=make_ref("load"),
        dimension="t",
        process=make_child(last=fit),
        target_dimension="parameter",
    )
    return finish_graph({"load": load_scenes(YEARS, "B08"), "fit": fitted}, "fit", "netCDF")


def yearly_curve_of_cube() -> Graph:
    """10, for back-ends whose ``fit_curve`` takes a cube, as in an earlier draft of the process."""
    fit = make_node(
        "fit_curve", data=make_ref("load"), parameters=START, function=_wave_graph(), dimension="t"
    )
    return finish_graph({"load": load_scenes(YEARS, "B08"), "fit": fit}, "fit", "netCDF")


def ndvi_preview(side: int = 256) -> Graph:
    """NDVI of one date of a small box as a PNG image."""
    grid = BOX.grid[:side, :side]
    graph: Graph = {"load": load_scenes(BOX, "B04", "B08", dates=["2022-05-04", "2022-05-05"], grid=grid)}
    graph["ndvi"] = compute_ndvi("load")
    grey = make_child(
        last=make_node(
            "linear_scale_range", x=make_parameter("x"), inputMin=-1, inputMax=1, outputMin=0, outputMax=255
        )
    )
    graph["grey"] = make_node("apply", data=make_ref("ndvi"), process=grey)
    return finish_graph(graph, "grey", "PNG")
