"""Fit models to the values along a dimension and predict values with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import BLOCK_BYTES, apply_along_array, as_numbers, get_labels
from odc_openeo.cube.coordinates import make_coordinate
from odc_openeo.cube.elementwise import blockwise
from odc_openeo.cube.instants import find_instants, parse_instant
from odc_openeo.errors import DimensionAmbiguous, ProcessParameterInvalid
from odc_openeo.processes.apply import apply_dimension
from odc_openeo.registry.child_results import drop_dimensions, restore_coordinates
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import Boolean, Cube, JsonArray, String, StringOrNull, datacube_schema

_MAX_STEPS: Final = 200
_BATCH_VALUES: Final = 2**21
_PIXEL: Final = "__pixel__"
_VARIABLE: Final = "__variable__"

_NUMBERS: Final = {"type": "array", "minItems": 1, "items": {"type": "number"}}
PARAMETERS: Final = "param"
"""The dimension of the parameters of a model that was fitted to a cube."""


def _model_schema(variable: Any) -> Schema:
    """Build the schema of a model function; ``variable`` is the JSON Schema of the independent variable."""
    parameters = [
        {"name": "x", "description": "The independent variable.", "schema": variable},
        {"name": "parameters", "description": "The parameters of the model.", "schema": _NUMBERS},
    ]
    returns = {"description": "The value of the model.", "schema": {"type": "number"}}
    return Schema(
        {"type": "object", "subtype": "process-graph", "parameters": parameters, "returns": returns}
    )


LabeledNumbers = Annotated[
    JsonArray | xr.Dataset,
    Schema(
        {"type": "array", "subtype": "labeled-array", "items": {"type": "number"}},
        accepts=[{"type": "array", "items": {"type": ["number", "null"]}}, datacube_schema()],
    ),
]
CurveParameters = Annotated[
    Sequence[float] | xr.DataArray | xr.Dataset,
    Schema(datacube_schema(), accepts=[datacube_schema(), _NUMBERS]),
]
CubeOrNull = Annotated[xr.DataArray | xr.Dataset | None, Schema([datacube_schema(), {"type": "null"}])]
Parameters = Annotated[Sequence[float], Schema(_NUMBERS)]
FittedModel = Annotated[Callable[..., Any], _model_schema({"type": ["number", "null"]})]
Model = Annotated[Callable[..., Any], _model_schema({"type": "number"})]
_LABEL: Final = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "format": "date", "subtype": "date"},
        {"type": "string", "format": "date-time", "subtype": "date-time"},
    ]
}
NewLabels = Annotated[
    Sequence[float | str] | None,
    Schema([{"type": "null"}, {"type": "array", "uniqueItems": True, "items": _LABEL}]),
]

_LINE: Final = {
    "process_graph": {
        "a": {
            "process_id": "array_element",
            "arguments": {"data": {"from_parameter": "parameters"}, "index": 0},
        },
        "b": {
            "process_id": "array_element",
            "arguments": {"data": {"from_parameter": "parameters"}, "index": 1},
        },
        "bx": {
            "process_id": "multiply",
            "arguments": {"x": {"from_node": "b"}, "y": {"from_parameter": "x"}},
        },
        "y": {
            "process_id": "add",
            "arguments": {"x": {"from_node": "a"}, "y": {"from_node": "bx"}},
            "result": True,
        },
    }
}


def _fitting_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    dimension = arguments.get("dimension")
    return {} if dimension is None else {"data": demand.along_dimensions(dimension, PARAMETERS)}


@process(
    categories=["arrays", "math"],
    experimental=True,
    needs=_fitting_needs,
    examples=[
        Example(
            {"data": [1, 3, 5, 7], "parameters": [0, 0], "function": _LINE},
            [1, 2],
            "The straight line 1 + 2 x through values at 0, 1, 2 and 3.",
        )
    ],
)
def fit_curve(
    data: LabeledNumbers,
    parameters: Parameters,
    function: FittedModel,
    ignore_nodata: Boolean = True,
    dimension: StringOrNull = None,
) -> Annotated[Any, Schema(_NUMBERS)]:
    """Fit a model to values by least squares.

    The labels of the array are the independent variable `x`, its values are the values to approximate. Dates
    are converted to seconds since 1970-01-01T00:00:00Z; without labels, `x` is 0, 1, 2, …. To fit a model to
    each pixel, use it in `apply_dimension` with a target dimension, or give a data cube and a dimension.

    The Levenberg-Marquardt method is used, starting from the initial guess. The parameters of a pixel are
    no-data if it has fewer values than the model has parameters or if the method does not converge.

    Args:
        data: The labelled values, or a data cube.
        parameters: An initial guess for each parameter of the model.
        function: The model: a child process that takes `x` and the array `parameters` and returns the value.
        ignore_nodata: Ignore no-data. If false, the parameters of a pixel with any no-data are no-data.
        dimension: The dimension of the data cube to fit the model along; by default the temporal one.

    Returns:
        The parameters of the best fit, in the order of the initial guess; for a data cube, along a dimension
        `param` in place of the given one.
    """
    if isinstance(data, xr.DataArray | xr.Dataset) and ARRAY not in data.dims:
        along = cube.get_temporal_dimension(data) if dimension is None else dimension
        fitting = partial(_fit_pixels_of_cube, parameters, function, ignore_nodata)
        return apply_dimension(data=data, process=fitting, dimension=along, target_dimension=PARAMETERS)
    values = as_numbers(data, "fit_curve")
    fit = _CurveFit(
        _make_portable(function),
        _independent_variable(get_labels(data) if isinstance(values, list) else values),
        np.asarray(parameters, float),
        ignore_nodata,
    )
    fit.check_model()
    if isinstance(values, xr.DataArray):
        decoded = cube.decode(values).astype(np.float64)
        return apply_along_array(fit, decoded, np.dtype(float), len(parameters))
    table = np.array([[np.nan if v is None else float(v) for v in values]])
    return [None if np.isnan(v) else float(v) for v in fit(table, axis=1)[0]]


def _fit_pixels_of_cube(
    parameters: Sequence[float], function: Callable[..., Any], ignore_nodata: bool, data: Any, context: Any
) -> Any:
    return fit_curve(data=data, parameters=parameters, function=function, ignore_nodata=ignore_nodata)


def _make_portable(function: Callable[..., Any]) -> Callable[..., Any]:
    make_portable = getattr(function, "make_portable", None)
    if make_portable is None:
        return function
    try:
        return make_portable("x", "parameters")
    except ValueError as error:
        raise ProcessParameterInvalid(process="fit_curve", parameter="function", reason=str(error)) from error


def _independent_variable(data: Any) -> np.ndarray:
    """Return the labels of an array as numbers; dates as seconds since 1970."""
    values = None
    if isinstance(data, xr.DataArray) and ARRAY in data.coords:
        instants = find_instants(data.coords[ARRAY])
        values = data.coords[ARRAY].values if instants is None else instants
    if values is None:
        values = np.asarray(get_labels(data) if isinstance(data, xr.DataArray) else data)
    return _labels_as_numbers(values, "fit_curve", "data")


def _labels_as_numbers(values: np.ndarray, process: str, parameter: str) -> np.ndarray:
    if values.dtype.kind in "OU":
        times = [parse_instant(v) if isinstance(v, str) else None for v in values]
        if any(t is None for t in times):
            reason = "its labels must be numbers or dates."
            raise ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
        values = np.array(times, "datetime64[ns]")
    if values.dtype.kind == "M":
        return (values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    return values.astype(float)


# --- Least squares for many pixels at once -------------------------------------------------------


@dataclass(frozen=True)
class _CurveFit:
    """Fits one model to many pixels: a kernel for `apply_along_array`, picklable.

    ``x`` is the independent variable, ``start`` the initial guess.
    """

    function: Callable[..., Any]
    x: np.ndarray
    start: np.ndarray
    ignore_nodata: bool

    def __call__(self, block: np.ndarray, axis: int) -> np.ndarray:
        """Replace the values along the axis by the ``len(start)`` fitted parameters."""
        moved = np.moveaxis(block, axis, -1)
        if not block.size:
            return np.moveaxis(np.full((*moved.shape[:-1], len(self.start)), np.nan), -1, axis)
        pixels = moved.reshape(-1, len(self.x))
        fitted = np.empty((len(pixels), len(self.start)))
        size = max(1, _BATCH_VALUES // (len(self.x) * (len(self.start) + 1)))
        for first in range(0, len(pixels), size):
            fitted[first : first + size] = self._fit_pixels(pixels[first : first + size])
        return np.moveaxis(fitted.reshape(*moved.shape[:-1], -1), -1, axis)

    def check_model(self) -> None:
        """Call the function once.

        Raises:
            ProcessParameterInvalid: it returns neither a number nor a field of numbers.
        """
        result = self.function(
            x=xr.DataArray(self.x, dims=_VARIABLE),
            parameters=xr.DataArray(self.start[None], dims=(_PIXEL, ARRAY)),
        )
        scalar = result is None or isinstance(result, bool | int | float)
        pixels = isinstance(result, xr.DataArray) and result.dtype.kind in "biuf"
        if not scalar and not (pixels and set(result.dims) <= {_PIXEL, _VARIABLE}):
            reason = "it must return a number. Its result node must be a process that calculates one."
            raise ProcessParameterInvalid(process="fit_curve", parameter="function", reason=reason)

    def evaluate_model(self, parameters: np.ndarray) -> np.ndarray:
        """Evaluate the model at all x for parameters ``(pixel, parameter)``; returns ``(pixel, x)``."""
        result = self.function(
            x=xr.DataArray(self.x, dims=_VARIABLE),
            parameters=xr.DataArray(parameters, dims=(_PIXEL, ARRAY)),
        )
        shape = (len(parameters), len(self.x))
        if not isinstance(result, xr.DataArray):
            return np.full(shape, np.nan if result is None else result, float)
        ordered = result.transpose(*(d for d in (_PIXEL, _VARIABLE) if d in result.dims))
        values = ordered.values[:, None] if ordered.dims == (_PIXEL,) else ordered.values
        return np.broadcast_to(values, shape).astype(float)

    def compute_jacobian(self, parameters: np.ndarray) -> np.ndarray:
        """Compute central differences ``(pixel, x, parameter)``.

        Differences to one side would need a step so small that rounding moves the solution where parameters
        depend on each other, as with an offset and a slope far from zero.
        """
        count = len(self.start)
        typical = np.where(self.start == 0, 1.0, np.abs(self.start))
        step = np.cbrt(np.finfo(float).eps) * np.maximum(np.abs(parameters), typical)
        moves = step[:, None] * np.eye(count)
        above, below = (
            self.evaluate_model((parameters[:, None] + shift).reshape(-1, count)).reshape(
                *moves.shape[:2], -1
            )
            for shift in (moves, -moves)
        )
        span = (parameters + step) - (parameters - step)
        return ((above - below) / span[..., None]).transpose(0, 2, 1)

    def _fit_pixels(self, y: np.ndarray) -> np.ndarray:
        used = np.isfinite(y) if self.ignore_nodata else np.ones(y.shape, bool)
        solvable = used.sum(axis=1) >= len(self.start)
        fitted = np.full((len(y), len(self.start)), np.nan)
        if solvable.any():
            fitted[solvable] = self._minimize_error(np.where(used, y, 0)[solvable], used[solvable])
        return fitted

    def _minimize_error(self, y: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Take damped Gauss-Newton steps for all pixels at once; NaN for pixels that do not converge."""
        best = np.repeat(self.start[None], len(y), axis=0)
        predicted = self.evaluate_model(best)
        cost = _squared_error(y, predicted, used)
        damping = np.full(len(y), _MIN_DAMPING)
        done = np.zeros(len(y), bool)
        for _ in range(_MAX_STEPS):
            active = np.nonzero(~done & np.isfinite(cost) & (damping < _MAX_DAMPING))[0]
            if not len(active):
                break
            mask = used[active]
            jacobian = self.compute_jacobian(best[active]) * mask[..., None]
            residual = np.where(mask, y[active] - predicted[active], 0)
            step, small = _marquardt_step(jacobian, residual, best[active], cost[active], damping[active])
            new_predicted = self.evaluate_model(best[active] + step)
            new_cost = _squared_error(y[active], new_predicted, mask)
            better = new_cost <= cost[active]
            done[active] = small
            damping[active] = np.where(better, damping[active] / 10, np.maximum(damping[active], 1e-7) * 10)
            improved = active[better]
            best[improved] += step[better]
            predicted[improved], cost[improved] = new_predicted[better], new_cost[better]
        best[~done] = np.nan
        return best


_MIN_DAMPING: Final = 1e-10
"""Small enough that the first step fits a model that is linear in its parameters."""
_MAX_DAMPING: Final = 1e12


def _squared_error(y: np.ndarray, predicted: np.ndarray, used: np.ndarray) -> np.ndarray:
    return (np.where(used, y - predicted, 0) ** 2).sum(axis=1)


def _marquardt_step(
    jacobian: np.ndarray, residual: np.ndarray, parameters: np.ndarray, cost: np.ndarray, damping: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the steps of all pixels (Marquardt 1963), and whether they are negligibly small.

    Parameters are scaled by the norm of their columns, so that their units don't matter.
    """
    length = np.sqrt((jacobian**2).sum(axis=1))
    scale = np.where((length > 0) & np.isfinite(length), length, 1)
    scaled = np.nan_to_num(jacobian / scale[:, None], nan=0, posinf=0, neginf=0)
    gradient = np.einsum("pxi,px->pi", scaled, residual)
    normal = np.einsum("pxi,pxj->pij", scaled, scaled)
    normal += damping[:, None, None] * np.eye(normal.shape[-1])
    step = np.linalg.solve(normal, gradient[..., None])[..., 0]
    gain = (step * gradient).sum(axis=1)
    size = np.sqrt(((parameters * scale) ** 2).sum(axis=1))
    small = (np.sqrt((step**2).sum(axis=1)) <= 1e-9 * size) | (gain <= 1e-12 * cost)
    return step / scale, small & np.isfinite(step).all(axis=1)


# --- Prediction ----------------------------------------------------------------------------------


def _prediction_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    if arguments.get("data") is not None:
        # Both cubes must have the same pixels.
        return {}
    return {"parameters": demand.along_dimensions(arguments.get("dimension"))}


@process(categories=["cubes", "math"], experimental=True, needs=_prediction_needs, pointwise=True)
def predict_curve(
    parameters: CurveParameters,
    function: Model,
    dimension: String,
    labels: NewLabels = None,
    data: CubeOrNull = None,
) -> Cube:
    """Predict values with a model whose parameters were fitted for each pixel.

    The parameters are read along the dimension named in `dimension` if the cube has it, otherwise along its
    only dimension of type `other`. The result has the dimension named in `dimension`, with the given labels,
    in its place. Dates are passed to the model as seconds since 1970-01-01T00:00:00Z, as in `fit_curve`.

    Args:
        parameters: A cube with the parameters of the model along a dimension, or an array of parameters that
            are the same for all pixels of `data`.
        function: The model: a child process that takes `x` and the array `parameters` and returns the value.
        dimension: The name of the dimension of the predicted values.
        labels: Numbers or dates to predict values for. If null, only the no-data values of `data` are
            predicted.
        data: The cube that the model was fitted to. It is only needed if there are no labels, or if the
            parameters are an array.

    Returns:
        A cube with the predicted values.

    Raises:
        DimensionNotAvailable: The cube has no dimension that could hold the parameters.
        DimensionAmbiguous: Several dimensions could hold the parameters.
    """
    if isinstance(data, xr.Dataset):
        reason = "a vector cube with several properties can't be filled. Select one property first."
        raise ProcessParameterInvalid(process="predict_curve", parameter="data", reason=reason)
    if data is not None:
        return _predict_for_cube(data, parameters, function, dimension, labels)
    if not isinstance(parameters, xr.DataArray | xr.Dataset):
        reason = "parameters that are no cube need 'data', the cube to predict values for."
        raise ProcessParameterInvalid(process="predict_curve", parameter="parameters", reason=reason)
    if isinstance(parameters, xr.Dataset):
        if not parameters.data_vars:
            reason = "the vector cube has no values, only geometries."
            raise ProcessParameterInvalid(process="predict_curve", parameter="parameters", reason=reason)
        return parameters.map(predict_curve, args=(function, dimension, labels), keep_attrs=True)
    if not labels:
        reason = "it must list the labels to predict values for; there is no cube whose gaps could be filled."
        raise ProcessParameterInvalid(process="predict_curve", parameter="labels", reason=reason)
    type_ = "temporal" if isinstance(labels[0], str) else "other"
    coord = make_coordinate(dimension, list(labels), type_)
    return _predict_at(coord, parameters, function, dimension)


def _predict_at(
    coord: xr.DataArray, parameters: xr.DataArray, function: Callable[..., Any], dimension: str
) -> xr.DataArray:
    """Predict values for the labels of a coordinate."""
    source = _parameter_dimension(parameters, dimension)
    decoded = cube.decode(parameters).drop_vars(source, errors="ignore")
    instants = find_instants(coord)
    labels = coord.values if instants is None else instants
    x = xr.DataArray(_labels_as_numbers(labels, "predict_curve", "labels"), dims=dimension)
    predicted = function(x=_chunk_labels(x, decoded, source), parameters=decoded.rename({source: ARRAY}))
    like = decoded.isel({source: 0}, drop=True)
    if not isinstance(predicted, xr.DataArray):
        predicted = x.copy(data=np.full(x.shape, np.nan if predicted is None else float(predicted)))
    predicted = predicted.broadcast_like(like).broadcast_like(x)
    order = [dimension if d == source else d for d in parameters.dims]
    return predicted.transpose(*order).assign_coords({**like.coords, dimension: coord})


def _predict_for_cube(
    data: xr.DataArray, parameters: Any, function: Callable[..., Any], dimension: str, labels: Any
) -> cube.Cube:
    """Predict values for new labels, or those that a cube lacks."""
    cube.require_dimension(data, dimension)
    if not cube.is_cube(parameters):
        spread = drop_dimensions(data, dimension).expand_dims({PARAMETERS: len(parameters)}, axis=-1)
        values = xr.DataArray(np.asarray(parameters, float), dims=PARAMETERS)
        parameters = restore_coordinates(xr.zeros_like(spread, float) + values, spread)
    if labels:
        return predict_curve(parameters=parameters, function=function, dimension=dimension, labels=labels)
    coord = data.coords.get(dimension, xr.DataArray(np.arange(data.sizes[dimension]), dims=dimension))
    predicted = _predict_at(coord.reset_coords(drop=True), parameters, function, dimension)
    decoded = cube.decode(data)
    filled = blockwise(_fill_gaps, decoded, predicted.transpose(*data.dims))
    return restore_coordinates(filled.transpose(*data.dims), data)


def _fill_gaps(values: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), predicted, values)


def _parameter_dimension(parameters: xr.DataArray, dimension: str) -> str:
    if dimension in parameters.dims:
        return dimension
    candidates = cube.dimensions_of_type(parameters, "other")
    if not candidates:
        raise cube.make_missing_dimension_error(parameters, dimension)
    if len(candidates) > 1:
        raise DimensionAmbiguous(
            f"The parameters could be along any of {', '.join(candidates)}; keep one dimension of type other."
        )
    return candidates[0]


def _chunk_labels(x: xr.DataArray, parameters: xr.DataArray, source: str) -> xr.DataArray:
    """Chunk the labels so that blocks of predicted values stay small."""
    if not isinstance(parameters.data, da.Array):
        return x
    pixels = int(np.prod([max(c) for d, c in parameters.chunksizes.items() if d != source], dtype=np.int64))
    return x.chunk(max(1, BLOCK_BYTES // (8 * max(1, pixels))))
