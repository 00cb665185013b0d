"""Pixels and their neighbours: resampling, kernels, windows, blocks."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.emitters.cubes import spread
from odc_openeo.explain.emitters.load import write_geobox
from odc_openeo.explain.snippets import clouds, grids
from odc_openeo.spatial.warp import is_same_grid, pixel_scale

RESAMPLING: Final = {
    "near": "nearest",
    "cubicspline": "cubic_spline",
}
SMOOTHING: Final = ("bilinear", "cubic", "cubicspline", "lanczos")
SCIPY_MODES: Final = {
    "replicate": "nearest",
    "reflect": "reflect",
    "reflect_pixel": "mirror",
    "wrap": "grid-wrap",
}


@emits("resample_spatial")
def write_resample_spatial(call: Call) -> str:
    """The cube warped to a new grid."""
    data = call["data"]
    if is_same_grid(data.value.odc.geobox, call.value.odc.geobox):
        return data.code
    grid = call.assign("grid", write_geobox(call.value.odc.geobox))
    return _reproject(call, data, grid, call.value.odc.geobox)


@emits("resample_cube_spatial")
def write_resample_cube_spatial(call: Call) -> str:
    """The cube warped to the grid of another one."""
    data, target = call["data"], call["target"]
    if is_same_grid(data.value.odc.geobox, call.value.odc.geobox):
        return data.code
    return _reproject(call, data, f"{target.atom}.odc.geobox", target.value.odc.geobox)


def _reproject(call: Call, data: Operand, grid: str, target: GeoBox) -> str:
    method = call.json("method")
    name = RESAMPLING.get(method, method)
    values = data.code if data.value.dtype != bool or method == "near" else f"{data.atom}.astype(float)"
    smoothing = ""
    if method in SMOOTHING:
        # GDAL guesses the ratio of the pixels from the sizes of the arrays, which need not cover the same.
        x, y = (repr(1 / scale) for scale in pixel_scale(data.value.odc.geobox, target))
        smoothing = f", XSCALE={x}, YSCALE={y}"
    code = f"xr_reproject({values}, {grid}, resampling={write_string(name)}{smoothing})"
    if target.dimensions != ("y", "x"):
        y, x = target.dimensions
        code += f'.rename({y}="y", {x}="x")'
    return code


@emits("apply_kernel")
def write_apply_kernel(call: Call) -> str:
    """A correlation with the kernel, which scipy has; values that are not finite count as a number."""
    data = call["data"]
    kernel, factor, border = call.json("kernel"), call.json("factor"), call.json("border")
    weights = f"np.array({write_literal(kernel)}, dtype=float)"
    if factor != 1:
        weights += f" * {call['factor'].operand}"
    name = call.assign("kernel", weights)
    values = f"{data.atom}.astype(float)" if data.value.dtype.kind in "biu" else data.atom
    filled = f"{values}.where(np.isfinite({data.code}), {call['replace_invalid'].code})"
    mode = (
        f"mode={write_string(SCIPY_MODES[border])}"
        if isinstance(border, str)
        else f'mode="constant", cval={border}'
    )
    call.helper(grids.correlate)
    return f"correlate({filled}, {name}, {mode})"


@emits("aggregate_spatial_window")
def write_windows(call: Call) -> str:
    """The reducer on windows of pixels, into which the cube is cut."""
    data, (width, height) = call["data"], call.json("size")
    align = call.json("align")
    sides = {
        "x": "left" if align.endswith("left") else "right",
        "y": "left" if align.startswith("upper") else "right",
    }
    descending = data.value["y"].values[0] > data.value["y"].values[-1] if data.value.sizes["y"] > 1 else True
    if not descending:
        raise NoProgram("the rows of the cube run from south to north.")
    side = "" if set(sides.values()) == {"left"} else f", side={write_literal(sides)}"
    source = f"{data.atom}.astype(float)" if data.value.dtype == bool else data.atom
    code = (
        f"{source}.coarsen(x={width}, y={height}, boundary={write_string(call.json('boundary'))}{side})"
        '.construct(x=("x", "column"), y=("y", "row")).drop_vars(["x", "y"])'
        '.stack(window=["row", "column"], create_index=False)'
    )
    windows = call.assign("windows", code)
    result = call.inline("reducer", data=Operand(windows, None, "window"), context=call["context"])
    like = Operand(windows, call.writer.trace.parameters[f"{call.path}."]["data"], "window")
    reduced = Operand(_spread_windows(call, result, like), call.value)
    return f"{reduced.atom}.assign_coords({_write_axis(call.value, 'x')}, {_write_axis(call.value, 'y')})"


def _spread_windows(call: Call, result: Operand, like: Operand) -> str:
    if result.is_cube:
        return spread(call, result, like)
    target = f"{like.atom}.isel(window=0, drop=True)"
    value = "np.nan" if result.value is None else result.code
    return f"xr.full_like({target}, {value}, dtype=float)"


def _write_axis(data: Any, dimension: str) -> str:
    labels = data[dimension].values
    first, last = (repr(float(v)) for v in (labels[0], labels[-1]))
    return f"{dimension}=np.linspace({first}, {last}, {labels.size})"


@emits("apply_neighborhood")
def write_neighborhood(call: Call) -> str:
    """The process on each block of the cube, with pixels around it; what is outside of the cube is NaN."""
    data = call["data"]
    sizes = _count_pixels(call, "size")
    overlaps = _count_pixels(call, "overlap")
    blocks = {d: sizes.get(d, data.value.sizes[d]) for d in map(str, data.value.dims)}
    given = call.writer.trace.parameters.get(f"{call.path}.", {}).get("data")
    if given is None:
        raise NoProgram("its process was not called.")
    dimension = None
    if ARRAY in given.dims:
        dimension = next(str(d) for d in data.value.dims if d not in given.dims)
        blocks = {dimension: blocks[dimension]}
    function = call.define("process", "data", wish="apply_to_block", dimension=dimension)
    margins = {d: n for d, n in overlaps.items() if n}
    helper = call.helper(grids.map_blocks)
    around = f", {write_literal(margins)}" if margins else ""
    return f"{helper}({function}, {data.code}, {write_literal(blocks)}{around})"


def _count_pixels(call: Call, name: str) -> dict[str, int]:
    counts = {}
    grid = call["data"].value.odc.geobox
    for extent in call.json(name) or []:
        dimension, value, unit = extent["dimension"], extent["value"], extent.get("unit")
        if isinstance(value, str):
            raise NoProgram("its blocks are durations or calendar periods.")
        if unit != "px" and dimension in ("x", "y"):
            value = round(value / abs(grid.resolution.x if dimension == "x" else grid.resolution.y))
        counts[dimension] = int(value)
    return counts


@emits("slope", "aspect")
def write_terrain(call: Call) -> str:
    """Angles from the gradient over 3 x 3 pixels (Horn)."""
    data = call["data"]
    east, north = call.program.take_name("east"), call.program.take_name("north")
    call.add_line(f"{east}, {north} = {call.helper(grids.find_gradient)}({data.code})")
    if call.node.process_id == "slope":
        return f"np.rad2deg(np.arctan(np.hypot({east}, {north})))"
    return f"(np.rad2deg(np.arctan2(-{east}, -{north})) % 360).where(({east} != 0) | ({north} != 0))"


@emits("to_scl_dilation_mask", "mask_scl_dilation")
def write_scl_dilation(call: Call) -> str:
    """The dilated classes of the scene classification."""
    from odc_openeo.processes.filters import find_band_positions

    data = call["data"]
    classes, bands = data.code, cube.dimensions_of_type(data.value, "bands")
    is_mask = call.node.process_id == "to_scl_dilation_mask"
    for name in bands:
        (position,) = find_band_positions(data.value, name, call.json("scl_band_name"))
        index = f"[{position}]" if is_mask else str(position)
        drop = "" if is_mask else ", drop=True"
        classes = f"{Operand(classes, None).atom}.isel({{{write_string(name)}: {index}}}{drop})"
    helper = call.helper(clouds.mark_clouds)
    sizes = [
        call[n].code
        for n in ("erosion_kernel_size", "mask1_values", "mask2_values", "kernel1_size", "kernel2_size")
    ]
    code = f"{helper}({', '.join([classes, *sizes])})"
    return code if is_mask else f"{data.atom}.where(~{code})"


@emits("convert_data_type")
def write_data_type(call: Call) -> str:
    """Integers are truncated; what does not fit becomes NaN, as no-data is in this program."""
    data = call["data"]
    if not isinstance(data.value, type(call.value)) or not hasattr(call.value, "dtype"):
        raise NoProgram("it converts the properties of a vector cube.")
    dtype = call.value.dtype
    if dtype.kind == "f":
        return f"{data.atom}.astype({write_string(dtype.name)})"
    limits = np.iinfo(dtype)
    whole = call.assign("whole", f"np.trunc({data.atom}.astype(float))")
    return (
        f"{whole}.where(({whole} >= {limits.min}) & ({whole} <= {limits.max}){_write_missing(call, whole)})"
    )


def _write_missing(call: Call, whole: str) -> str:
    missing = cube.nodata(call.value)
    return "" if missing is None else f" & ({whole} != {int(missing)})"
