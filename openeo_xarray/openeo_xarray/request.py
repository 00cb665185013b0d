"""One request for all arrays that are computed together."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from openeo.internal.graph_building import PGNode

from openeo_xarray.array import RecordedArray
from openeo_xarray.collection import is_local
from openeo_xarray.elementwise import call
from openeo_xarray.lift import lift_bands
from openeo_xarray.lower import Lowering, find_source
from openeo_xarray.matching import allows_periods
from openeo_xarray.nodes import Axis, Constant, Node
from openeo_xarray.reading import read_json, read_netcdf, read_object

BANDS = "bands"
RESULT = "result"


@dataclass(frozen=True)
class Output:
    """A cube of a result: nodes with the same dimensions, which are its bands if there are several."""

    nodes: tuple[Node, ...]
    cube: PGNode
    labels: tuple[str, ...] | None
    """The labels of the bands, if it has this dimension."""


def compute_arrays(*arrays: RecordedArray) -> list[np.ndarray]:
    """Compute arrays with one request to their back-end."""
    nodes = {array.node.key: array.node for array in arrays}
    values = compute_nodes(list(nodes.values()))
    return [arrange(values[array.node.key], array) for array in arrays]


def arrange(values: xr.DataArray, array: RecordedArray) -> np.ndarray:
    """Values by dimension as the axes of an array."""
    names = [name for name in array.layout if name is not None]
    data = values.transpose(*names).values.reshape(array.shape)
    return convert(data, array.dtype)


def convert(data: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Values in the dtype that was recorded; integers wrap as those of NumPy."""
    if dtype.kind in "iu" and data.dtype.kind == "f":
        return np.where(np.isnan(data), 0, data).astype(np.int64).astype(dtype)
    return data.astype(dtype)


def compute_nodes(nodes: Sequence[Node]) -> dict[str, xr.DataArray]:
    """The values of nodes by their keys, with the dimensions and labels of the nodes."""
    values = {n.key: make_values(n) for n in nodes if isinstance(n, Constant) or 0 in n.shape}
    pending = [n for n in nodes if n.key not in values]
    if not pending:
        return values
    connection = find_source(pending[0]).connection
    outputs = make_outputs(pending)
    for output, data in zip(outputs, run_outputs(connection, outputs), strict=True):
        values |= split_output(output, data)
    return values


def make_values(node: Node) -> xr.DataArray:
    """The values of a node that needs no back-end: those of the client, or none."""
    data = node.values if isinstance(node, Constant) else np.empty(node.shape, node.dtype)
    return xr.DataArray(data, dims=[axis.name for axis in node.axes])


def make_outputs(nodes: Sequence[Node]) -> list[Output]:
    """The cubes of a result: nodes with the same dimensions share one."""
    groups: dict[frozenset[str], list[Node]] = {}
    for node in nodes:
        groups.setdefault(frozenset(axis.key for axis in node.axes), []).append(node)
    lowering = Lowering(allows_periods(list(groups.values())))
    return [make_output(lowering, group) for group in groups.values()]


def make_output(lowering: Lowering, nodes: list[Node]) -> Output:
    """One cube with nodes as its bands."""
    if len(nodes) == 1:
        return Output(tuple(nodes), lowering.lower(nodes[0]), None)
    lifted = lift_bands(nodes, BANDS)
    if lifted is not None:
        labels = tuple(str(v) for v in lifted.dims[BANDS].labels)
        return Output(tuple(nodes), lowering.lower(lifted), labels)
    labels = tuple(f"cube{i}" for i in range(len(nodes)))
    return Output(tuple(nodes), lowering._stack(nodes, BANDS), labels)


def split_output(output: Output, data: xr.Dataset | xr.DataArray) -> dict[str, xr.DataArray]:
    """The values of each node of a cube."""
    return {
        node.key: select_values(data, node, None if output.labels is None else output.labels[k], k)
        for k, node in enumerate(output.nodes)
    }


def select_values(data: Any, node: Node, label: str | None, position: int) -> xr.DataArray:
    """The values of one node from a cube."""
    if isinstance(data, xr.Dataset):
        variables = list_variables(data, node)
        if label is None and len(variables) > 1:
            return match_labels(stack_variables(data, variables, node), node)
        names = [v for v in variables if v == label]
        data = data[names[0] if names else variables[position if len(variables) > 1 else 0]]
        if names:
            label = None
    if label is not None and BANDS in data.dims:
        index = list(map(str, data[BANDS].values)).index(label) if BANDS in data.coords else position
        data = data.isel({BANDS: index}, drop=True)
    return match_labels(data, node)


def stack_variables(data: xr.Dataset, variables: list[Any], node: Node) -> xr.DataArray:
    """A cube whose bands are the variables of a file."""
    missing = [axis for axis in node.axes if axis.name not in data[variables[0]].dims]
    axis = next((axis for axis in missing if len(axis) == len(variables)), None)
    if axis is None:
        raise ValueError(f"the back-end returned {len(variables)} variables, one was expected")
    by_name = {str(v): v for v in variables}
    labels = [str(label) for label in axis.labels]
    ordered = [by_name[label] for label in labels] if set(labels) == set(by_name) else variables
    return xr.concat([data[v].drop_attrs() for v in ordered], axis.name)


def list_variables(data: xr.Dataset, node: Node) -> list[Any]:
    """The variables of a file that hold values, not grids or geometries."""
    names = [
        v
        for v in data.data_vars
        if "grid_mapping_name" not in data[v].attrs
        and "geometry_type" not in data[v].attrs
        and v not in ("crs", "spatial_ref", "geometry_container")
        and data[v].dims != ("node",)
    ]
    most = max((len(set(data[v].dims) & set(node.dims)) for v in names), default=0)
    return [v for v in names if len(set(data[v].dims) & set(node.dims)) == most]


def match_labels(data: xr.DataArray, node: Node) -> xr.DataArray:
    """The values with the dimensions of a node, in the order of its labels."""
    for dim in [d for d in data.dims if d not in node.dims and data.sizes[d] == 1]:
        data = data.isel({dim: 0}, drop=True)
    missing = [a for a in node.axes if a.name not in data.dims]
    for axis in missing:
        candidates = [d for d in data.dims if d not in node.dims and data.sizes[d] == len(axis)]
        data = data.rename({candidates[0]: axis.name}) if candidates else data.expand_dims(axis.name)
    for axis in node.axes:
        if data.sizes[axis.name] != len(axis):
            raise ValueError(
                f"the back-end returned {data.sizes[axis.name]} labels of {axis.name} instead of {len(axis)}"
            )
        positions = order_labels(data, axis)
        data = data.isel({axis.name: positions})
    return data.drop_vars(list(data.coords))


def order_labels(data: xr.DataArray, axis: Axis) -> list[int]:
    """Positions in a result of the labels of an axis; as they come if the result does not name them."""
    whole = list(range(len(axis)))
    if axis.name not in data.coords:
        return whole
    labels = data[axis.name].values
    if axis.kind == "time" and labels.dtype.kind == "M":
        keys, wanted = labels.astype("datetime64[ms]").tolist(), axis.labels.astype("datetime64[ms]").tolist()
    elif axis.kind in ("x", "y"):
        return np.argsort(labels)[np.argsort(np.argsort(axis.labels))].tolist()
    else:
        keys, wanted = list(map(str, labels)), list(map(str, axis.labels))
    if set(keys) != set(wanted) or len(set(keys)) < len(keys):
        return whole
    places = {key: i for i, key in enumerate(keys)}
    return [places[label] for label in wanted]


def save(cube: PGNode, file_format: str, **options: Any) -> PGNode:
    """The call that saves a cube."""
    return call("save_result", data=cube, format=file_format, options=options)


def run_outputs(connection: Any, outputs: Sequence[Output]) -> list[Any]:
    """The cubes of a result as xarray objects."""
    if is_local(connection):
        return [read_object(connection.execute(output.cube.flat_graph())) for output in outputs]
    formats = ["netCDF"] * len(outputs)
    if len(outputs) == 1:
        saved = save(outputs[0].cube, formats[0])
        return [read_file(connection.download(saved.flat_graph(), validate=False), formats[0])]
    return run_several(connection, outputs, formats)


def run_several(connection: Any, outputs: Sequence[Output], formats: Sequence[str]) -> list[Any]:
    """Several cubes with one request, answered by an archive; other back-ends are asked for each."""
    graph = make_graph(
        [
            save(o.cube, f, filename_prefix=f"{RESULT}{i:03d}x")
            for i, (o, f) in enumerate(zip(outputs, formats, strict=True))
        ]
    )
    content = connection.download(graph, validate=False)
    if not content.startswith(b"PK"):
        return [run_outputs(connection, [output])[0] for output in outputs]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        files = [next(n for n in names if n.startswith(f"{RESULT}{i:03d}x")) for i in range(len(outputs))]
        return [read_file(archive.read(n), f) for n, f in zip(files, formats, strict=True)]


def make_graph(results: Sequence[PGNode]) -> dict[str, Any]:
    """A flat process graph of several results; shared parts are in it once."""
    root = PGNode("array_create", arguments={"data": list(results)})
    graph = root.flat_graph()
    last = next(key for key, node in graph.items() if node.get("result"))
    references = [item["from_node"] for item in graph.pop(last)["arguments"]["data"]]
    graph[references[-1]]["result"] = True
    return dict(graph)


def read_file(content: bytes, file_format: str) -> Any:
    """The cube of a file."""
    if file_format == "JSON":
        return read_json(json.loads(content))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.nc"
        path.write_bytes(content)
        return read_netcdf(path)


def read_crs(source: Any, axes: Sequence[Axis]) -> Any:
    """The EPSG code of a collection from the file of a single pixel at a single time."""
    kinds = {axis.kind: axis for axis in axes}
    if is_local(source.connection):
        return find_epsg(source.connection.execute(source.load(None).flat_graph()).coords.to_dataset())
    cube = source.load([source.bands[0].name])
    if "time" in kinds:
        from openeo_xarray.labels import describe_interval

        interval = describe_interval(kinds["time"].labels, 0, 0)
        cube = call("filter_temporal", data=cube, extent=interval)
    content = source.connection.download(save(cube, "netCDF").flat_graph(), validate=False)
    data = read_file(content, "netCDF")
    return find_epsg(data)


def find_epsg(data: Any) -> int | None:
    """The EPSG code in the grid mapping of a file."""
    import re

    for variable in data.variables.values():
        text = str(variable.attrs.get("crs_wkt") or variable.attrs.get("spatial_ref") or "")
        codes = re.findall(r'(?:ID|AUTHORITY)\["EPSG",\s*"?(\d+)"?\]', text)
        if codes:
            return int(codes[-1])
    return None
