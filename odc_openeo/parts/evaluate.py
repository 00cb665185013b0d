"""Evaluate one part of a job: the lazy value of the whole, of which only what the part needs is built.

Grids, labels, types and no-data values are those of the whole, since each process sees cubes of that shape;
its loads deliver the pixels around the part and, in form only, what is outside of them. The tasks that the
part does not need are then dropped. If it turns out to need more pixels than the rules of processes said, it
is evaluated again with more of them: no part has other values than the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import dask.array as da
import xarray as xr
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.compute.dask_internals import cull_graph
from odc_openeo.cube.budget import Budget
from odc_openeo.cube.surround import OutsidePart, needs_outside
from odc_openeo.errors import Internal
from odc_openeo.formats import Output, get_format
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.parts.model import JobSplit, OutputTemplate, Part, PixelWindow
from odc_openeo.parts.stages import cut_process, reduce_part
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.environment import Environment
from odc_openeo.spatial.boxes import Box

RIMS: Final = (0, 8, 256)
"""Pixels of the output around a part that loads deliver beyond what rules say; the first that do."""


def evaluate_part(
    process: Mapping[str, Any],
    env: Environment,
    split: JobSplit,
    part: Part,
    graph_limits: GraphLimits | None = None,
) -> tuple[Any, list[Output]]:
    """Evaluate a part lazily; its grid, labels, type and attributes are those of the whole, cut.

    Returns:
        The value of the part, and the outputs that the graph saves, with the data of the part.
    """
    if split.is_whole:
        part_env = _make_environment(env)
        return evaluate(process, part_env, limits=graph_limits), part_env.outputs
    if split.stage is not None:
        return _evaluate_stage(process, env, split, part, graph_limits)
    for demand in _list_demands(split.template, part):
        part_env = _make_environment(env)
        try:
            value = evaluate(process, part_env, limits=graph_limits, part=demand)
            return _cut_values(value, part_env.outputs, split.template, part)
        except OutsidePart:
            continue
    raise Internal()


def _evaluate_stage(
    process: Mapping[str, Any],
    env: Environment,
    split: JobSplit,
    part: Part,
    graph_limits: GraphLimits | None,
) -> tuple[Any, list[Output]]:
    """The statistics of the pixels of a part, to be saved as the whole is."""
    assert split.stage is not None
    head = cut_process(process, split.stage.source)
    inner = JobSplit("space", (part,), template=split.stage.template)
    pixels, _ = evaluate_part(head, env, inner, part, graph_limits)
    statistics = reduce_part(split.stage, pixels)
    if split.template.format is None:
        return statistics, []
    return statistics, [Output(statistics, get_format(split.template.format), split.template.options)]


def _make_environment(env: Environment) -> Environment:
    """An environment for one evaluation more."""
    return replace(env, outputs=[], loads=[], budget=Budget())


def _list_demands(template: OutputTemplate, part: Part) -> Iterator[Demand]:
    """The demands to try for a part: at first what the rules of processes say, in the end everything."""
    if part.window is not None and template.transform is not None and template.crs is not None:
        for rim in RIMS:
            yield Demand(boxes=(find_box(template, part.window, rim),), in_part=True)
    elif part.bounds is not None and template.crs is not None:
        yield Demand(boxes=(_make_box(part.bounds, template.crs),), in_part=True)
    yield Demand(in_part=True)


def find_box(template: OutputTemplate, window: PixelWindow, rim: int) -> Box:
    """Return the box around a window of the output's grid and a rim of pixels around it."""
    assert template.transform is not None
    assert template.crs is not None
    grid = GeoBox(window.shape, _get_transform(template, window), template.crs).pad(rim)
    return _make_box(grid.boundingbox.bbox, template.crs)


def _make_box(bounds: Sequence[float], crs: str) -> Box:
    west, south, east, north = bounds
    code = CRS(crs).to_epsg()
    return Box(west, south, east, north, crs if code is None else code)


def _get_transform(template: OutputTemplate, window: PixelWindow) -> Affine:
    assert template.transform is not None
    return Affine(*template.transform) @ Affine.translation(window.columns[0], window.rows[0])


def _cut_values(
    value: Any, outputs: list[Output], template: OutputTemplate, part: Part
) -> tuple[Any, list[Output]]:
    if not outputs:
        return cut_part(value, template, part), []
    return value, [replace(output, data=cut_part(output.data, template, part)) for output in outputs]


def cut_part(data: xr.DataArray, template: OutputTemplate, part: Part) -> xr.DataArray:
    """Cut a lazy cube to a part and drop the tasks that the part does not need.

    Raises:
        OutsidePart: it needs pixels that were not delivered.
    """
    cut = slice_part(data, template, part)
    if not isinstance(cut.data, da.Array):
        return cut
    graph = cull_graph(cut.data.dask, cut.data.__dask_keys__())
    if needs_outside(graph.layers):
        raise OutsidePart("a part of the job needs pixels outside of it")
    array = da.Array(graph, cut.data.name, cut.data.chunks, meta=cut.data._meta)
    return cut.copy(data=array)


def slice_part(data: xr.DataArray, template: OutputTemplate, part: Part) -> xr.DataArray:
    """Return the labels and values of a part."""
    spans: dict[str, slice] = {}
    if part.window is not None and template.spatial_dims is not None:
        rows, columns = template.spatial_dims
        spans |= {rows: slice(*part.window.rows), columns: slice(*part.window.columns)}
    if part.times is not None and template.time_dimension is not None:
        spans[template.time_dimension] = slice(*part.times)
    if part.geometries is not None:
        spans[cube.GEOMETRY] = slice(*part.geometries)
    return data.isel(spans)
