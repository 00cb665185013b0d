"""Random process graphs over the tiny scenes, valid most of the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from pyproj import Transformer

from tests.support.graphs import child

X, Y, DATA = ({"from_parameter": name} for name in ("x", "y", "data"))
WEST, NORTH = 600000, 5200000
TIMES = ["2022-06-01", "2022-06-03", "2022-06-09", "2022-06-17T10:00:00Z", "2022-07-01", None]
S2 = ("B04", "B08", "B11", "SCL")
TO_LAEA = Transformer.from_crs(32632, 3035, always_xy=True)

Draw = Callable[..., Any]


@dataclass(frozen=True)
class Cube:
    """What is known of the value of a node."""

    id: str
    t: bool = True
    bands: tuple[str, ...] | None = S2
    raster: bool = True

    def after(self, id_: str, **changes: Any) -> Cube:
        return replace(self, id=id_, **changes)


@dataclass
class Builder:
    """A graph in the making."""

    draw: Draw
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    cubes: list[Cube] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    prefix: str = ""
    without: frozenset[str] = frozenset()

    def add(self, process_id: str, **arguments: Any) -> str:
        id_ = f"{self.prefix}{process_id}{len(self.nodes)}"
        self.nodes[id_] = {"process_id": process_id, "arguments": arguments}
        return id_

    def on(self, cube: Cube, process_id: str, **arguments: Any) -> str:
        return self.add(process_id, data={"from_node": cube.id}, **arguments)

    def one(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def maybe(self) -> bool:
        return self.draw(st.booleans())

    # --- Sources ---

    def load(self) -> Cube:
        which = self.one("tiny_s2", "tiny_s2", "tiny_s2", "heights", "cover")
        extent = self.one(None, None, {**self.box(), "crs": 32632})
        when = self.interval() if which == "tiny_s2" and self.maybe() else None
        arguments: dict[str, Any] = {"id": which, "spatial_extent": extent, "temporal_extent": when}
        bands: tuple[str, ...] = ("height" if which == "heights" else which,)
        if which == "tiny_s2":
            bands = S2
            if self.maybe():
                bands = tuple(self.draw(st.lists(st.sampled_from(S2), min_size=1, max_size=3, unique=True)))
                arguments["bands"] = list(bands)
        return Cube(self.add("load_collection", **arguments), bands=bands)

    def box(self) -> dict[str, Any]:
        west = WEST + self.draw(st.integers(-50, 700))
        north = NORTH - self.draw(st.integers(-50, 500))
        width, height = self.draw(st.integers(60, 500)), self.draw(st.integers(60, 500))
        return {"west": west, "east": west + width, "south": north - height, "north": north}

    def interval(self) -> list[str | None]:
        start, end = sorted(self.draw(st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True)))
        return [self.one(TIMES[start], None), TIMES[end]]

    def polygons(self) -> dict[str, Any]:
        west = 10.311 + self.draw(st.integers(0, 120)) / 1e4
        south = 46.938 + self.draw(st.integers(0, 60)) / 1e4
        size = self.one(self.draw(st.integers(5, 60)) / 1e4, self.draw(st.integers(5, 60)) / 1e4, 2.0)
        ring = [[west, south], [west + size, south], [west, south + size], [west, south]]
        return {"type": "Polygon", "coordinates": [ring]}

    # --- Steps ---

    def step(self, cube: Cube) -> Cube:
        """One process more."""
        name = self.one(*(s for s in STEPS if s not in self.without and self.fits(s, cube)))
        cube_after = STEPS[name](self, cube)
        self.cubes.append(cube_after)
        return cube_after

    @staticmethod
    def fits(step: str, cube: Cube) -> bool:
        return (
            (cube.t or not step.startswith("t:"))
            and (cube.bands is not None or not step.startswith("b:"))
            and (cube.raster or not step.startswith("xy:"))
        )

    def numbers(self) -> dict[str, Any]:
        return self.one(
            child("mean", data=DATA),
            child("max", data=DATA),
            child("median", data=DATA),
            child("first", data=DATA),
        )


Step = Callable[[Builder, Cube], Cube]


def filter_box(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "filter_bbox", extent={**b.box(), "crs": 32632}))


def filter_degrees(b: Builder, c: Cube) -> Cube:
    west, south = 10.311 + b.draw(st.integers(0, 120)) / 1e4, 46.938 + b.draw(st.integers(0, 50)) / 1e4
    width, height = b.one((0.004, 0.003), (0.004, 0.003), (5.0, 0.003), (0.004, 3.0), (90.0, 0.004))
    extent = {"west": west, "east": west + width, "south": south, "north": south + height}
    return c.after(b.on(c, "filter_bbox", extent=extent))


def filter_laea(b: Builder, c: Cube) -> Cube:
    box = b.box()
    west, south, east, north = TO_LAEA.transform_bounds(box["west"], box["south"], box["east"], box["north"])
    extent = {"west": west, "south": south, "east": east, "north": north, "crs": 3035}
    return c.after(b.on(c, "filter_bbox", extent=extent))


def filter_times(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "filter_temporal", extent=b.interval()))


def filter_names(b: Builder, c: Cube) -> Cube:
    names = b.draw(st.lists(st.sampled_from(c.bands), min_size=1, max_size=3, unique=True))
    alias = {"B04": "red", "B08": "nir"}
    requested = [alias.get(n, n) if c.bands == S2 and b.maybe() else n for n in names]
    return c.after(b.on(c, "filter_bands", bands=requested), bands=tuple(names))


def filter_labels(b: Builder, c: Cube) -> Cube:
    condition = child("neq", x={"from_parameter": "value"}, y=c.bands[0])
    return c.after(
        b.on(c, "filter_labels", condition=condition, dimension="bands"), bands=c.bands[1:] or None
    )


def filter_shapes(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "filter_spatial", geometries=b.polygons()))


def apply(b: Builder, c: Cube) -> Cube:
    process = b.one(
        child("add", x=X, y=1.5), child("multiply", x=X, y=3), child("absolute", x=X), child("gt", x=X, y=100)
    )
    return c.after(b.on(c, "apply", process=process))


def reduce_times(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "reduce_dimension", dimension="t", reducer=b.numbers()), t=False)


def reduce_bands(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "reduce_dimension", dimension="bands", reducer=b.numbers()), bands=None)


def one_band(b: Builder, c: Cube) -> Cube:
    label = b.one(*c.bands)
    which = {"label": label} if b.maybe() else {"index": c.bands.index(label)}
    reducer = child("array_element", data=DATA, **which)
    return c.after(b.on(c, "reduce_dimension", dimension="bands", reducer=reducer), bands=None)


def two_bands(b: Builder, c: Cube) -> Cube:
    nodes = {
        name: {"process_id": "array_element", "arguments": {"data": DATA, "label": b.one(*c.bands)}}
        for name in ("one", "two")
    }
    less = {"x": {"from_node": "one"}, "y": {"from_node": "two"}}
    nodes["less"] = {"process_id": "subtract", "arguments": less, "result": True}
    reducer = {"process_graph": nodes}
    return c.after(b.on(c, "reduce_dimension", dimension="bands", reducer=reducer), bands=None)


def along_times(b: Builder, c: Cube) -> Cube:
    process = b.one(
        child("cumsum", data=DATA), child("array_interpolate_linear", data=DATA), child("sort", data=DATA)
    )
    return c.after(b.on(c, "apply_dimension", dimension="t", process=process))


def index_of_bands(b: Builder, c: Cube) -> Cube:
    target = {"target_band": "index"} if b.maybe() else {}
    created = b.on(c, "ndvi", nir="B08", red="B04", **target)
    return c.after(created, bands=(*c.bands, "index") if target else None)


def mask(b: Builder, c: Cube) -> Cube:
    other = b.one(*b.cubes) if b.cubes else b.load()
    if other.bands is not None and b.maybe():
        other = one_band(b, other)
    marks = b.add("apply", data={"from_node": other.id}, process=child("gt", x=X, y=120))
    more = {"replacement": 7} if b.maybe() else {}
    return c.after(b.on(c, "mask", mask={"from_node": marks}, **more))


def mask_shapes(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "mask_polygon", mask=b.polygons(), inside=b.maybe()))


def merge(b: Builder, c: Cube) -> Cube:
    other = b.one(*b.cubes) if b.cubes and b.maybe() else b.load()
    resolver = b.one(child("max", data=[X, Y]), child("subtract", x=X, y=Y), child("first", data=[X, Y]))
    pair = {"cube1": {"from_node": c.id}, "cube2": {"from_node": other.id}}
    more = {} if b.draw(st.integers(0, 4)) == 0 else {"overlap_resolver": resolver}
    bands = tuple(dict.fromkeys((*(c.bands or ()), *(other.bands or ())))) or None
    return Cube(b.add("merge_cubes", **pair, **more), c.t or other.t, bands)


def kernel(b: Builder, c: Cube) -> Cube:
    weights = b.one([[1, 2, 1]], [[0, 1, 0], [1, -4, 1], [0, 1, 0]], [[1] * 5] * 5)
    border = b.one(0, "replicate", "reflect", "wrap", 3)
    return c.after(b.on(c, "apply_kernel", kernel=weights, border=border, factor=0.5))


def slope(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, b.one("slope", "aspect")))


def resample(b: Builder, c: Cube) -> Cube:
    resolution, method = b.one(
        (5, "near"), (30, "near"), (15, "near"), (10, "near"), (15, "bilinear"), (40, "average"), (7, "max")
    )
    align = b.one("upper-left", "lower-right")
    return c.after(b.on(c, "resample_spatial", resolution=resolution, method=method, align=align))


def resample_like(b: Builder, c: Cube) -> Cube:
    rasters = [o for o in b.cubes if o.raster]
    target = b.one(*rasters) if rasters else b.load()
    created = b.on(
        c, "resample_cube_spatial", target={"from_node": target.id}, method=b.one("near", "bilinear")
    )
    return c.after(created)


def windows(b: Builder, c: Cube) -> Cube:
    size = b.one([2, 2], [3, 2])
    return c.after(
        b.on(c, "aggregate_spatial_window", reducer=b.numbers(), size=size, boundary=b.one("pad", "trim"))
    )


def periods(b: Builder, c: Cube) -> Cube:
    created = b.on(
        c, "aggregate_temporal_period", period=b.one("month", "week", "dekad"), reducer=b.numbers()
    )
    return c.after(created)


def intervals(b: Builder, c: Cube) -> Cube:
    spans = b.one([["2022-06-01", "2022-06-10"], ["2022-06-05", "2022-07-01"]], [["2022-06-08", None]])
    return c.after(b.on(c, "aggregate_temporal", intervals=spans, reducer=b.numbers()))


def zones(b: Builder, c: Cube) -> Cube:
    reducer = b.one(child("mean", data=DATA), child("max", data=DATA))
    return c.after(b.on(c, "aggregate_spatial", geometries=b.polygons(), reducer=reducer), raster=False)


def reduce_space(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "reduce_spatial", reducer=b.one(child("mean", data=DATA))), raster=False)


def rename_times(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "rename_dimension", source="t", target="time"), t=False)


def rename_bands(b: Builder, c: Cube) -> Cube:
    created = b.on(c, "rename_labels", dimension="bands", source=[c.bands[0]], target=["renamed"])
    return c.after(created, bands=("renamed", *c.bands[1:]))


def new_bands(b: Builder, c: Cube) -> Cube:
    if c.bands is not None:
        return apply(b, c)
    return c.after(b.on(c, "add_dimension", name="bands", label="new", type="bands"), bands=("new",))


def new_times(b: Builder, c: Cube) -> Cube:
    if c.t:
        return apply(b, c)
    return c.after(b.on(c, "add_dimension", name="t", label="2022-06-03", type="temporal"), t=True)


def drop(b: Builder, c: Cube) -> Cube:
    return c.after(b.on(c, "drop_dimension", name=b.one("t", "bands")))


def flatten(b: Builder, c: Cube) -> Cube:
    return c.after(
        b.on(c, "flatten_dimensions", dimensions=["bands", "t"], target_dimension="both"), t=False, bands=None
    )


def neighbours(b: Builder, c: Cube) -> Cube:
    edge = b.one(1, 4)
    size = [{"dimension": d, "value": edge, "unit": "px"} for d in ("x", "y")]
    process = child("cumsum", data=DATA) if edge == 1 and c.bands is None else child("add", x=DATA, y=2)
    if edge == 1 and c.bands is not None:
        size.append({"dimension": "bands", "value": 1, "unit": "px"})
        process = child("cumsum", data=DATA)
    return c.after(b.on(c, "apply_neighborhood", size=size, process=process))


def stored(b: Builder, c: Cube) -> Cube:
    if b.prefix:
        return apply(b, c)
    name = f"stored{len(b.stored)}"
    inner = Builder(b.draw, prefix="inner_", without=b.without)
    start = Cube(
        inner.add("apply", data={"from_parameter": "data"}, process=child("add", x=X, y=1)), c.t, c.bands
    )
    last = start
    for _ in range(b.draw(st.integers(1, 3))):
        last = inner.step(last)
    extent = {"from_parameter": "extent"}
    end = inner.add("filter_bbox", data={"from_node": last.id}, extent=extent)
    inner.nodes[end]["result"] = True
    declared = [
        {"name": "data", "description": "", "schema": {"type": "object", "subtype": "datacube"}},
        {"name": "extent", "description": "", "schema": {"type": "object"}},
    ]
    b.stored[name] = {"parameters": declared, "process_graph": inner.nodes}
    return last.after(b.on(c, name, extent={**b.box(), "crs": 32632}))


STEPS: dict[str, Step] = {
    "xy: filter_box": filter_box,
    "xy: filter_degrees": filter_degrees,
    "xy: filter_laea": filter_laea,
    "t: filter_times": filter_times,
    "b: filter_names": filter_names,
    "b: filter_labels": filter_labels,
    "xy: filter_shapes": filter_shapes,
    "apply": apply,
    "t: reduce_times": reduce_times,
    "b: reduce_bands": reduce_bands,
    "b: one_band": one_band,
    "b: two_bands": two_bands,
    "t: along_times": along_times,
    "b: index_of_bands": index_of_bands,
    "xy: mask": mask,
    "xy: mask_shapes": mask_shapes,
    "xy: merge": merge,
    "xy: kernel": kernel,
    "xy: slope": slope,
    "xy: resample": resample,
    "xy: resample_like": resample_like,
    "xy: windows": windows,
    "t: periods": periods,
    "t: intervals": intervals,
    "xy: zones": zones,
    "xy: reduce_space": reduce_space,
    "t: rename_times": rename_times,
    "b: rename_bands": rename_bands,
    "new_bands": new_bands,
    "new_times": new_times,
    "drop": drop,
    "t: flatten": lambda b, c: flatten(b, c) if c.bands is not None else apply(b, c),
    "xy: neighbours": neighbours,
    "xy: stored": stored,
}


@st.composite
def graphs(
    draw: Draw, without: frozenset[str] = frozenset(), last_step: Step | None = None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A process and the stored processes that it calls; ``without`` some steps, with a last one."""
    b = Builder(draw, without=without)
    last = b.load()
    b.cubes.append(last)
    for _ in range(draw(st.integers(1, 5))):
        last = b.step(last)
    ends = {
        "filter_box": last.raster,
        "filter_times": last.t,
        "filter_names": last.bands is not None,
    }
    for name, possible in ends.items():
        if possible and b.maybe():
            last = {"filter_box": filter_box, "filter_times": filter_times, "filter_names": filter_names}[
                name
            ](b, last)
    last = last_step(b, last) if last_step is not None and last.raster else last
    b.nodes[last.id]["result"] = True
    used: set[str] = set()
    waiting = [last.id]
    while waiting:
        id_ = waiting.pop()
        used.add(id_)
        for value in b.nodes[id_]["arguments"].values():
            if isinstance(value, dict) and "from_node" in value:
                waiting.append(value["from_node"])
    return {"process_graph": {k: v for k, v in b.nodes.items() if k in used}}, b.stored
