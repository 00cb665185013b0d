"""Run user-defined functions on cubes, chunk by chunk where the cube is lazy.

Before anything is read, the form of the results is determined: see `ResultLayout` and
``docs/adr/0017-results-of-user-functions.md``.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import dask.array as da
import geopandas as gpd
import numpy as np
import xarray as xr
from odc.geo import CRS

from odc_openeo import cube
from odc_openeo.cube.coordinates import make_coordinate
from odc_openeo.errors import OpenEOError, UdfFailed, UdfResultInvalid
from odc_openeo.udf.cube_messages import Labels, PlainCube, get_plain_labels, list_labels
from odc_openeo.udf.functions import CubeSurroundings, UserFunction
from odc_openeo.udf.result_layouts import ResultLayout, observe_layout

CHUNK_BYTES: Final = 64 * 2**20
"""Size of a chunk above which it is split along x and y, where the parent process leaves that open."""
TRIAL_LENGTH: Final = 32
"""Longest side of the chunk on which a function is tried, along dimensions that may be split."""
MOST_LAYOUTS: Final = 512
ORDER: Final = (cube.T, cube.BANDS, cube.Y, cube.X)
"""The order in which user code gets the dimensions, as in the client; all others come before them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallRules:
    """How a function is called for a parent process.

    Args:
        whole: dimensions that are never split: each call gets all of their labels.
        single_call: the cube is one chunk, of which x and y may have another size in the next cube.
        reduced: the dimension that the result must not have any more.
    """

    whole: frozenset[str]
    single_call: bool = False
    reduced: str | None = None


def run_on_chunks(
    function: UserFunction, data: xr.DataArray, rules: CallRules, geometries: Geometries | None = None
) -> xr.DataArray:
    """Run a function on a cube of floats, lazily if the cube is lazy.

    Functions that take geometries get those of each chunk.

    Returns:
        A cube with the dimensions and labels of the results, and the other coordinates that still fit.

    Raises:
        UdfResultInvalid: a result has not the form that is needed.
        OpenEOError: user code failed.
    """
    ordered = order_dimensions(data)
    about = describe_surroundings(ordered)
    names = frozenset(map(str, ordered.dims))
    split = names & {cube.X, cube.Y} if rules.single_call else names - rules.whole
    if not ordered.size:
        return _make_empty_result(ordered, rules)
    if not isinstance(ordered.data, da.Array):
        chunk = add_features(to_plain_cube(ordered), geometries)
        result = function.run_on_cube(chunk, about)
        layout = _observe(function, chunk, result, split, about)
        return _to_cube(layout.fit(result, chunk), layout, ordered)
    chunked = _rechunk(ordered, rules)
    layout = find_layout(function, chunked, about, split, rules, geometries)
    return _to_cube(_call_lazily(function, chunked, about, split, layout, geometries), layout, ordered)


@dataclass(frozen=True)
class Geometries:
    """The geometries along a dimension of a vector cube, with their properties."""

    dimension: str
    frame: gpd.GeoDataFrame


def add_features(chunk: PlainCube, geometries: Geometries | None) -> PlainCube:
    """Add the geometries of a chunk; their labels are their positions."""
    if geometries is None or geometries.dimension not in chunk.labels:
        return chunk
    frame = geometries.frame.iloc[chunk.labels[geometries.dimension]]
    return replace(chunk, features=frame.reset_index(drop=True))


def order_dimensions(data: xr.DataArray) -> xr.DataArray:
    """Transpose a cube to the order in which user code gets it."""
    return data.transpose(*(d for d in data.dims if d not in ORDER), *(d for d in ORDER if d in data.dims))


def describe_surroundings(data: xr.DataArray) -> CubeSurroundings:
    """Describe a cube to user code."""
    types = {str(d): cube.dimension_type(data, d) for d in data.dims}
    reference = data.coords.get(cube.SPATIAL_REF)
    wkt = None if reference is None else reference.attrs.get("spatial_ref", reference.attrs.get("crs_wkt"))
    epsg = None if wkt is None else _find_epsg(wkt)
    if epsg is None:
        return CubeSurroundings(types, {} if wkt is None else {"crs": wkt})
    return CubeSurroundings(types, {"crs": f"EPSG:{epsg}"}, {"EPSG": epsg})


@lru_cache(maxsize=64)
def _find_epsg(wkt: str) -> int | None:
    return CRS(wkt).to_epsg()


def to_plain_cube(data: xr.DataArray) -> PlainCube:
    """Take values and labels of a cube in memory."""
    names = tuple(map(str, data.dims))
    return PlainCube(data.values, names, _list_labels(data, names))


def _list_labels(data: xr.DataArray, names: Sequence[str]) -> dict[str, Labels]:
    labels = {name: get_plain_labels(data, name) for name in names}
    return {name: values for name, values in labels.items() if values is not None}


def _rechunk(data: xr.DataArray, rules: CallRules) -> xr.DataArray:
    if rules.single_call:
        return data.chunk(-1)
    array = data.data.rechunk({i: -1 for i, d in enumerate(data.dims) if d in rules.whole})
    sides = {i: "auto" for i, d in enumerate(data.dims) if d in (cube.X, cube.Y) and d not in rules.whole}
    largest = array.dtype.itemsize * np.prod([max(c) for c in array.chunks], dtype=np.int64)
    if largest > CHUNK_BYTES and sides:
        array = array.rechunk(sides, block_size_limit=CHUNK_BYTES)
    return data.copy(data=array)


# --- The form of results -------------------------------------------------------------------------

_layouts: OrderedDict[Hashable, ResultLayout] = OrderedDict()
_lock = threading.Lock()


def find_layout(
    function: UserFunction,
    data: xr.DataArray,
    about: CubeSurroundings,
    split: frozenset[str],
    rules: CallRules,
    geometries: Geometries | None = None,
) -> ResultLayout:
    """Determine the form of results by a call with a small chunk of made-up values."""
    sizes = _choose_trial_sizes(data, split, rules)
    labels = {name: all_labels[: sizes[name]] for name, all_labels in _list_labels(data, list(sizes)).items()}
    key = _make_key(function, sizes, labels, about, split, data.dtype)
    with _lock:
        if key in _layouts:
            _layouts.move_to_end(key)
            return _layouts[key]
    # Functions may fail on constants, or on nothing but no-data.
    values = np.random.default_rng(0).random(tuple(sizes.values())).astype(data.dtype)
    chunk = add_features(PlainCube(values, tuple(sizes), labels), geometries)
    layout = _try_function(function, chunk, about, split, rules)
    with _lock:
        _layouts[key] = layout
        while len(_layouts) > MOST_LAYOUTS:
            _layouts.popitem(last=False)
    return layout


def _choose_trial_sizes(data: xr.DataArray, split: frozenset[str], rules: CallRules) -> dict[str, int]:
    sizes = {str(d): int(max(chunks)) for d, chunks in zip(data.dims, data.data.chunks, strict=True)}
    if rules.single_call:
        return sizes
    return {name: min(size, TRIAL_LENGTH) if name in split else size for name, size in sizes.items()}


def _make_key(
    function: UserFunction,
    sizes: Mapping[str, int],
    labels: Mapping[str, Labels],
    about: CubeSurroundings,
    split: frozenset[str],
    dtype: np.dtype,
) -> Hashable:
    fixed = tuple((name, None if name in split else size) for name, size in sizes.items())
    digest = hashlib.sha256()
    for name, values in labels.items():
        if name not in split:
            digest.update(repr((name, values.tolist())).encode())
    return function.key, fixed, digest.hexdigest(), tuple(about.types.items()), dtype.str


def _try_function(
    function: UserFunction,
    chunk: PlainCube,
    about: CubeSurroundings,
    split: frozenset[str],
    rules: CallRules,
) -> ResultLayout:
    try:
        result = function.run_on_cube(chunk, about, quiet=True)
    except UdfFailed as error:
        log.debug("a user-defined function cannot be tried on random values: %s", error)
        return _assume_layout(function, chunk, about, split, rules)
    return _observe(function, chunk, result, split, about)


def _observe(
    function: UserFunction,
    chunk: PlainCube,
    result: PlainCube,
    split: frozenset[str],
    about: CubeSurroundings,
) -> ResultLayout:
    try:
        layout = observe_layout(chunk, result, split)
        return _rename_labels(layout, function.find_announced_labels(chunk, about), chunk)
    except UdfResultInvalid as error:
        function.name_node(error)
        raise


def _assume_layout(
    function: UserFunction,
    chunk: PlainCube,
    about: CubeSurroundings,
    split: frozenset[str],
    rules: CallRules,
) -> ResultLayout:
    """Assume what the parent process asks for: the dimensions, labels and type of the chunk."""
    dims = tuple(name for name in chunk.dims if name != rules.reduced)
    sizes = {name: chunk.sizes[name] for name in dims if name not in split}
    announced = function.find_announced_labels(chunk, about)
    for name, texts in announced.items():
        if name in sizes and texts:
            sizes[name] = len(texts)
    labels = {name: chunk.labels[name] for name in sizes if name in chunk.labels}
    return _rename_labels(ResultLayout(dims, sizes, chunk.values.dtype, labels), announced, chunk)


def _rename_labels(
    layout: ResultLayout, announced: Mapping[str, list[str] | None], chunk: PlainCube
) -> ResultLayout:
    """Give dimensions the labels that user code announces, unless these are just those of the chunk."""
    labels, renamed = dict(layout.labels), set(layout.renamed)
    for name, texts in announced.items():
        before = chunk.labels.get(name)
        if not texts or name not in layout.sizes or (before is not None and before.tolist() == texts):
            continue
        if len(texts) != layout.sizes[name]:
            reason = (
                f"'apply_metadata' announces {len(texts)} labels of '{name}' ({list_labels(texts)}), but the "
                f"function returns {layout.sizes[name]}."
            )
            raise UdfResultInvalid(reason=reason)
        labels[name] = np.array(texts, dtype=object)
        renamed.add(name)
    return replace(layout, labels=labels, renamed=frozenset(renamed))


# --- Calls ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkCall:
    """The call of a function for one chunk, in a dask task.

    ``labels`` are those of dimensions that are not split; those of ``labelled`` ones come with each chunk.
    """

    function: UserFunction
    about: CubeSurroundings
    dims: tuple[str, ...]
    labels: Mapping[str, Labels]
    labelled: tuple[str, ...]
    layout: ResultLayout
    geometries: Geometries | None = None

    def __call__(self, values: Any, *labels: np.ndarray) -> np.ndarray:
        """Return the values of the result for a chunk; dask nests those of single chunks in lists."""
        while isinstance(values, list):
            (values,) = values
        by_name = {**self.labels, **dict(zip(self.labelled, labels, strict=True))}
        chunk = PlainCube(values, self.dims, {name: by_name[name] for name in self.dims if name in by_name})
        chunk = add_features(chunk, self.geometries)
        try:
            return self.layout.fit(self.function.run_on_cube(chunk, self.about), chunk)
        except OpenEOError as error:
            self.function.name_node(error)
            raise


def _call_lazily(
    function: UserFunction,
    data: xr.DataArray,
    about: CubeSurroundings,
    split: frozenset[str],
    layout: ResultLayout,
    geometries: Geometries | None,
) -> da.Array:
    names = tuple(map(str, data.dims))
    labels = _list_labels(data, names)
    chunks = dict(zip(names, data.data.chunks, strict=True))
    labelled = tuple(name for name in names if name in split and name in labels)
    rest = {name: values for name, values in labels.items() if name not in split}
    call = ChunkCall(function, about, names, rest, labelled, layout, geometries)
    output = tuple(name if name in split else f"{name} of results" for name in layout.dims)
    more: list[Any] = []
    for name in labelled:
        more += [da.from_array(labels[name], chunks=(chunks[name],)), (name,)]
    return da.blockwise(
        call,
        output,
        data.data,
        names,
        *more,
        new_axes={f"{name} of results": size for name, size in layout.sizes.items()},
        dtype=layout.dtype,
        meta=np.empty((0,) * len(output), layout.dtype),
        concatenate=None,
        name=None,
        token="run-udf",
        align_arrays=False,
    )


def _to_cube(values: Any, layout: ResultLayout, before: xr.DataArray) -> xr.DataArray:
    """Make a cube of results; the coordinates along dimensions that are as before stay."""
    layout, before = _select_geometries(layout, before)
    same = {d for d in layout.dims if d in before.dims and _has_same_labels(layout, before, d)}
    # A coordinate of a name that is now that of a dimension would get in its way.
    gone = set(before.dims) - same
    taken = set(layout.dims) - same
    # The coordinates as they are: those of geometries have an index of their own.
    dropped = [name for name, coord in before.coords.items() if gone & set(coord.dims) or name in taken]
    # Units, scales and offsets belong to the values from before.
    dropped += [name for name in cube.list_packing_coordinates(before) if name not in dropped]
    kept = before.drop_vars(dropped).coords
    result = xr.DataArray(values, dims=layout.dims, coords=kept, attrs=_keep_attributes(before))
    new = {d: labels for d, labels in layout.labels.items() if d not in same}
    return result.assign_coords({d: _make_labels(d, labels, before) for d, labels in new.items()})


def _select_geometries(layout: ResultLayout, before: xr.DataArray) -> tuple[ResultLayout, xr.DataArray]:
    """Select the geometries whose positions are the labels of the result."""
    for name in [str(d) for d in before.dims if cube.dimension_type(before, d) == "geometry"]:
        labels = layout.labels.get(name)
        if (
            labels is None
            or labels.dtype.kind not in "iu"
            or not set(labels) < set(range(before.sizes[name]))
        ):
            continue
        before = before.isel({name: labels})
        layout = replace(layout, labels={**layout.labels, name: np.arange(labels.size)})
    return layout, before


def make_result_cube(function: UserFunction, result: PlainCube, before: xr.DataArray) -> xr.DataArray:
    """Make a cube of the result of a function for a whole cube in memory, whatever its dimensions are."""
    chunk = to_plain_cube(before)
    layout = _observe(function, chunk, result, frozenset(), describe_surroundings(before))
    return _to_cube(layout.fit(result, chunk), layout, before)


def _has_same_labels(layout: ResultLayout, before: xr.DataArray, name: str) -> bool:
    if name not in layout.sizes:
        return True
    labels, old = layout.labels.get(name), get_plain_labels(before, name)
    if layout.sizes[name] != before.sizes[name] or (labels is None) != (old is None):
        return False
    return labels is None or np.array_equal(labels, old)  # type: ignore[arg-type]


def _make_labels(name: str, labels: Labels, before: xr.DataArray) -> xr.DataArray:
    if labels.dtype.kind != "O":
        return xr.DataArray(labels, dims=name)
    if name not in before.dims:
        return xr.DataArray(np.array(labels.tolist()), dims=name)
    return make_coordinate(name, labels.tolist(), cube.dimension_type(before, name))


def _keep_attributes(before: xr.DataArray) -> dict[Any, Any]:
    return {k: v for k, v in before.attrs.items() if k not in (cube.NODATA, cube.TYPE)}


def _make_empty_result(data: xr.DataArray, rules: CallRules) -> xr.DataArray:
    """Return no values: functions are not called for nothing."""
    if rules.reduced is None or rules.reduced not in data.dims:
        return data
    return xr.full_like(data.sum(rules.reduced, keep_attrs=True), np.nan, dtype=data.dtype)
