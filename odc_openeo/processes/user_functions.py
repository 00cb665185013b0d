"""Run user-defined functions: the process `run_udf`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import as_sequence
from odc_openeo.errors import ProcessGraphComplexity, ProcessParameterInvalid, UdfResultInvalid
from odc_openeo.processes.user_code import open_function
from odc_openeo.registry.child_results import FROM_USER_CODE
from odc_openeo.registry.environment import NODES, Environment
from odc_openeo.registry.process import PROCESSES, Schema, process
from odc_openeo.registry.schemas import AnyValue
from odc_openeo.spatial import vector_cubes
from odc_openeo.udf.cube_messages import (
    PlainCube,
    decode_outputs,
    describe_sizes,
    encode_cube,
    encode_features,
)
from odc_openeo.udf.functions import UserFunction
from odc_openeo.udf.lazy_calls import (
    CallRules,
    Geometries,
    describe_surroundings,
    make_result_cube,
    order_dimensions,
    run_on_chunks,
    to_plain_cube,
)

BLOCK_PARENTS: Final = frozenset({"apply_neighborhood", "apply_polygon", "chunk_polygon"})
"""Processes that cut out the blocks that a function gets."""
PIXEL_PARENTS: Final = frozenset({"aggregate_spatial", "aggregate_spatial_window", "reduce_spatial"})
"""Processes that reduce pixels that have no order."""
ELEMENT_PARENTS: Final = frozenset({"array_apply", "array_filter", "count", "merge_cubes"})
"""Processes that need a value per value, whatever labels a function gives them."""
PIXELS: Final = "pixels"
MEMORY_SHARE: Final = 4
"""A cube that user code gets at once may take this fraction of its memory: one quarter."""

Udf = Annotated[
    str,
    Schema(
        [
            {
                "description": "Absolute URL to a UDF",
                "type": "string",
                "format": "uri",
                "subtype": "uri",
                "pattern": "^https?://",
            },
            {
                "description": "Path to a UDF in your files.",
                "type": "string",
                "subtype": "file-path",
                "pattern": "^[^\r\n\\:'\"]+$",
            },
            {
                "description": "The source code of a UDF; it must contain a line break.",
                "type": "string",
                "subtype": "udf-code",
                "pattern": "(\r\n|\r|\n)",
            },
        ]
    ),
]
Runtime = Annotated[str, Schema({"type": "string", "subtype": "udf-runtime"})]
Version = Annotated[
    str | None,
    Schema(
        [
            {"type": "string", "subtype": "udf-runtime-version"},
            {"title": "Default runtime version", "type": "null"},
        ]
    ),
]
ANYTHING: Final = {"title": "Any", "description": "Any data type."}
Result = Annotated[Any, Schema(ANYTHING)]


@process(categories=["cubes", "import", "udf"], pure=False)
def run_udf(
    data: AnyValue,
    udf: Udf,
    runtime: Runtime,
    version: Version = None,
    context: AnyValue = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Result:
    """Run a user-defined function (UDF).

    The function gets what the parent process hands out, chunk by chunk where the parent process leaves that
    open: with `reduce_dimension`, all values along the dimension with all bands of some pixels; with
    `apply_neighborhood` each block with its overlap; without a parent process the whole cube. It must return
    what the parent process asks for. It runs in isolation, with limits of time and memory.

    Args:
        data: The data for the function.
        udf: The source code, or the URL or the path in your files of a script.
        runtime: The name of a runtime, see `GET /udf_runtimes`, in any casing.
        version: The version of the runtime; null for the default.
        context: Additional data for the function.

    Returns:
        The result of the function.

    Raises:
        InvalidRuntime: There is no such runtime.
        InvalidVersion: The runtime has no such version.
        FileNotFound: You have no such file.
    """
    context = _to_json(context, "context", "Pass data cubes as 'data'.")
    parent = find_parent()
    data = _prepare_data(data, parent)
    function = open_function(env, udf, runtime, version, context)
    if isinstance(data, xr.Dataset):
        env.require_run()
        return _run_on_everything(function, data)
    if not isinstance(data, xr.DataArray):
        env.require_run()
        return _run_on_json(function, data)
    if parent is None:
        env.require_run()
        return _run_on_everything(function, data)
    return _run_for_parent(function, data, parent)


def find_parent() -> str | None:
    """Find the process whose child process is being evaluated; None at the top level of a process graph."""
    for _, process_id in NODES.get()[1:]:
        declared = PROCESSES.get(process_id)
        if declared is not None and any(p.child_schema is not None for p in declared.parameters.values()):
            return process_id
    return None


def _prepare_data(data: Any, parent: str | None) -> Any:
    """Return a cube, or JSON; values of pixels in an array are one cube with a dimension for the array.

    Raises:
        ProcessParameterInvalid: it contains whole data cubes.
    """
    if parent is not None and isinstance(data, list | tuple | cube.LabeledArray):
        data = as_sequence(data, "run_udf")
    advice = "Merge several data cubes into one, for example by 'merge_cubes'."
    if parent is None and isinstance(data, xr.DataArray) and ARRAY in data.dims:
        raise ProcessParameterInvalid(process="run_udf", parameter="data", reason=_NOT_JSON + advice)
    return data if cube.is_cube(data) else _to_json(data, "data", advice)


_NOT_JSON: Final = "it contains a data cube where JSON is needed. "


def _to_json(value: Any, parameter: str, advice: str) -> Any:
    """Return JSON for user code: arrays as lists, numbers as such.

    Raises:
        ProcessParameterInvalid: there is a data cube in it, or anything else that is not JSON.
    """
    if isinstance(value, cube.LabeledArray):
        value = list(value.values)
    if isinstance(value, Mapping):
        return {str(name): _to_json(item, parameter, advice) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, parameter, advice) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    reason = (
        _NOT_JSON if cube.is_cube(value) else f"it contains a {type(value).__name__}, which is not JSON. "
    )
    raise ProcessParameterInvalid(process="run_udf", parameter=parameter, reason=reason + advice)


def _run_for_parent(function: UserFunction, data: xr.DataArray, parent: str) -> xr.DataArray:
    names = _find_names(data, parent)
    named = _as_floats(data).rename(names)
    named.attrs = {k: v for k, v in named.attrs.items() if k not in (cube.ARRAY_NAME, FROM_USER_CODE)}
    geometries = _find_geometries(data, names)
    result = run_on_chunks(function, named, _choose_rules(named, names.get(ARRAY), parent), geometries)
    if parent in ELEMENT_PARENTS:
        joined = names.get(ARRAY) if parent == "merge_cubes" else None
        result = _keep_labels(function, result, named, joined)
    back = {new: old for old, new in names.items() if new in result.dims}
    return result.rename(back).assign_attrs({FROM_USER_CODE: True})


def _find_geometries(data: xr.DataArray, names: Mapping[str, str]) -> Geometries | None:
    dimension = vector_cubes.find_geometry_dimension(data)
    if dimension is None:
        return None
    return Geometries(names.get(dimension, dimension), vector_cubes.to_frame(data, dimension))


def _keep_labels(
    function: UserFunction, result: xr.DataArray, before: xr.DataArray, reduced: str | None
) -> xr.DataArray:
    """Give a result the labels from before: others would not be aligned with the values of the parent.

    Dimensions with one label may be missing, ``reduced`` must be.
    """
    expected = {str(d): n for d, n in before.sizes.items() if d != reduced and (n != 1 or d in result.dims)}
    given = {str(d): n for d, n in result.sizes.items()}
    if given != expected:
        reason = (
            f"one value per value is needed here: it must be {describe_sizes(expected)}, not "
            f"{describe_sizes(given)}."
        )
        raise UdfResultInvalid(reason=reason, node=function.target.node)
    labels = {
        d: c for d, c in before.coords.items() if d in result.coords and set(c.dims) <= set(result.dims)
    }
    return result.assign_coords(labels)


def _find_names(data: xr.DataArray, parent: str) -> dict[str, str]:
    """Find the real names of the dimensions that have others inside of a child process."""
    default = PIXELS if parent in PIXEL_PARENTS else "array"
    name = str(data.attrs.get(cube.ARRAY_NAME, default))
    hidden = [str(d) for d in data.dims if str(d).startswith("__")]
    if len(hidden) > 1 or name in data.dims:
        return {old: f"array_{i}" for i, old in enumerate(hidden)}
    return dict.fromkeys(hidden, name)


def _choose_rules(data: xr.DataArray, array: str | None, parent: str) -> CallRules:
    if parent in BLOCK_PARENTS:
        return CallRules(frozenset(map(str, data.dims)), single_call=True)
    whole = {str(d) for d in data.dims if cube.dimension_type(data, d) == "bands"}
    if array is None:
        return CallRules(frozenset(whole))
    if array not in whole:
        whole |= {str(d) for d in data.dims if cube.dimension_type(data, d) == "temporal"}
    reduces = parent != "apply_dimension"
    return CallRules(frozenset({array, *whole}), reduced=array if reduces else None)


def _as_floats(data: xr.DataArray) -> xr.DataArray:
    if data.dtype.kind not in "iufb":
        reason = "user-defined functions take cubes of numbers, not of strings or objects."
        raise ProcessParameterInvalid(process="run_udf", parameter="data", reason=reason)
    return cube.decode(data)


# --- Without a parent process --------------------------------------------------------------------


@dataclass(frozen=True)
class _Outputs:
    """All that a function returned."""

    cubes: list[PlainCube]
    frames: list[Any]
    documents: list[Any]


def _call(function: UserFunction, inputs: list[Any], arrays: list[np.ndarray], proj: Any = None) -> _Outputs:
    reply, results = function.call({"call": "run", "proj": proj, "inputs": inputs}, arrays)
    try:
        cubes, frames, documents = (decode_outputs(reply, results, k) for k in ("cube", "features", "json"))
    except UdfResultInvalid as error:
        function.name_node(error)
        raise
    return _Outputs(cubes, frames, documents)


def _run_on_json(function: UserFunction, value: Any) -> Any:
    """Run a function on a JSON value, which it gets as structured data; on nothing it is not called."""
    if isinstance(value, list) and not value:
        return None
    outputs = _call(function, [{"kind": "json", "value": value}], [])
    if outputs.cubes:
        (first, *_) = outputs.cubes
        return first.values.tolist()
    return _get_documents(function, outputs)


def _get_documents(function: UserFunction, outputs: _Outputs) -> Any:
    if not outputs.documents:
        reason = "it returned neither a data cube nor structured data."
        raise UdfResultInvalid(reason=reason, node=function.target.node)
    return outputs.documents[0] if len(outputs.documents) == 1 else outputs.documents


def _run_on_everything(function: UserFunction, data: xr.DataArray | xr.Dataset) -> Any:
    """Run a function on a whole cube at once, now: what it returns can have any form."""
    dimension = vector_cubes.find_geometry_dimension(data)
    values = _make_values(data, dimension)
    _check_size(function, values)
    source = order_dimensions(_as_floats(values)).compute()
    about, arrays = describe_surroundings(source), list[np.ndarray]()
    plain = to_plain_cube(source)
    inputs = [encode_cube(plain, about.types, about.attrs, arrays)]
    frame = None
    if dimension is not None:
        frame = vector_cubes.to_frame(data, dimension)
        inputs.append(encode_features(frame, arrays))
    outputs = _call(function, inputs, arrays, about.proj)
    if outputs.documents and not (_is_changed(outputs.cubes, plain) or outputs.frames):
        return _get_documents(function, outputs)
    if dimension is not None:
        return _make_vectors(function, outputs, source, frame, dimension)
    if outputs.frames and not outputs.cubes:
        return vector_cubes.from_frame(outputs.frames[0])
    return _make_raster(function, outputs, source)


def _is_changed(cubes: list[PlainCube], before: PlainCube) -> bool:
    """Whether there is a cube that is not just the one that the function was given."""
    return any(c.dims != before.dims or not np.array_equal(c.values, before.values, True) for c in cubes)


def _make_values(data: xr.DataArray | xr.Dataset, dimension: str | None) -> xr.DataArray:
    """The values of a cube; geometries without any have one that is no-data."""
    if isinstance(data, xr.DataArray):
        return data
    if data.data_vars:
        return data.to_array(cube.BANDS)
    if dimension is None:
        raise ProcessParameterInvalid(process="run_udf", parameter="data", reason="the cube has no values.")
    geometries = data.coords[dimension]
    return xr.DataArray(np.full(geometries.size, np.nan), dims=dimension, coords={dimension: geometries})


def _check_size(function: UserFunction, values: xr.DataArray) -> None:
    most = function.settings.limits.memory_bytes // MEMORY_SHARE
    if values.size * 4 > most:
        reason = (
            f"without a parent process, a user-defined function gets the whole cube, which has "
            f"{values.size * 4 / 2**20:,.0f} MiB, and {most / 2**20:,.0f} MiB are possible. Use "
            "'apply_neighborhood', 'apply_dimension' or 'reduce_dimension', or a smaller extent."
        )
        raise ProcessGraphComplexity(reason=reason)


def _get_cube(function: UserFunction, outputs: _Outputs) -> PlainCube:
    if len(outputs.cubes) != 1:
        reason = f"one data cube is needed here, not {len(outputs.cubes)}."
        raise UdfResultInvalid(reason=reason, node=function.target.node)
    return outputs.cubes[0]


def _make_raster(function: UserFunction, outputs: _Outputs, before: xr.DataArray) -> xr.DataArray:
    result = _get_cube(function, outputs)
    return make_result_cube(function, result, before)


def _make_vectors(
    function: UserFunction, outputs: _Outputs, before: xr.DataArray, frame: Any, dimension: str
) -> Any:
    """Make the vector cube of the geometries and values that a function returned."""
    geometries = outputs.frames[0] if outputs.frames else frame
    if not outputs.cubes or not _is_changed(outputs.cubes, to_plain_cube(before)) and np.isnan(before).all():
        return vector_cubes.from_frame(geometries)
    result = make_result_cube(function, _get_cube(function, outputs), before)
    if result.sizes.get(dimension) != len(geometries):
        reason = (
            f"there must be one geometry per label of '{dimension}'; there are {len(geometries)} geometries "
            f"and {result.sizes.get(dimension, 0)} labels."
        )
        raise UdfResultInvalid(reason=reason, node=function.target.node)
    bare = result.drop_vars([n for n, c in result.coords.items() if dimension in c.dims])
    coords = vector_cubes.make_geometry_coordinates(geometries, list(map(str, bare.coords)), dimension)
    return vector_cubes.index_geometries(bare.assign_coords(coords), geometries.crs, dimension)
