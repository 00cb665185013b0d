"""Models: forests, curves, and the detector of clouds."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY
from odc_openeo.explain.calls import ELEMENT, Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.emitters.array_operands import list_values, needs_json, write_array
from odc_openeo.explain.snippets import clouds, models
from odc_openeo.processes.clouds import find_cloud_bands
from odc_openeo.processes.regression import PARAMETERS
from odc_openeo.spatial import vector_cubes

FORESTS: Final = {
    "fit_class_random_forest": "RandomForestClassifier",
    "fit_regr_random_forest": "RandomForestRegressor",
}


@emits(*FORESTS)
def write_fit_forest(call: Call) -> str:
    """A forest of scikit-learn on the complete rows of the predictors."""
    predictors, target = call["predictors"], call["target"]
    name = str(vector_cubes.find_geometry_dimension(predictors.value))
    rest = [str(d) for d in predictors.value.dims if d != name]
    count = int(np.prod([predictors.value.sizes[d] for d in rest]))
    features = min(call.json("max_variables") or max(1, count // 3), count)
    seed = f", random_state={call['seed'].code}" if call.has("seed") else ""
    trees = call["num_trees"].code
    forest = f"{FORESTS[call.node.process_id]}(n_estimators={trees}, max_features={features}{seed})"
    ordered = f"{predictors.atom}.transpose({', '.join(map(write_string, [name, *rest]))})"
    return f"{call.helper(models.fit_rows)}({forest}, {ordered}, {_write_targets(target)})"


def _write_targets(target: Operand) -> str:
    if isinstance(target.value, xr.DataArray):
        return f"{target.atom}.values.ravel()"
    if target.is_cube:
        return f'{target.atom}["target"].values'
    features = target.value.get("features", [])
    if not all("target" in (f.get("properties") or {}) for f in features) or not features:
        raise NoProgram("its target is not in the property 'target' of each feature.")
    return f"np.array({write_literal([f['properties']['target'] for f in features])}, dtype=float)"


@emits("predict_random_forest")
def write_predict_forest(call: Call) -> str:
    """The predictions of a model for the values along a dimension; NaN where one is missing."""
    array = write_array(call, call["data"])
    dimension = write_string(array.dimension or ELEMENT)
    return f"{call.helper(models.predict_along)}({call['model'].code}, {array.code}, {dimension})"


@emits("fit_curve")
def write_fit_curve(call: Call) -> Operand:
    """The parameters by least squares, from the same start."""
    data, start = call["data"], call["parameters"]
    count = len(start.value)
    x = xr.DataArray(np.arange(3.0), dims="x")
    call.probe("function", x=x, parameters=xr.DataArray(np.ones(count), dims=ARRAY))
    function = call.define("function", "x", "parameters", wish="model", dimension=ELEMENT)
    helper = call.helper(models.fit_curve)
    ignore = "" if call.json("ignore_nodata") is not False else ", ignore_nodata=False"
    if needs_json(data) and not data.is_cube:
        labels = write_literal(list(data.value.labels)) if data.is_labeled else f"range(len({data.code}))"
        values = list_values(call, data)
        return Operand(f"{helper}({function}, {labels}, {values}, {start.code}{ignore}).tolist()", call.value)
    inside = data.is_array_of_cube
    along = (
        (data.dimension or ELEMENT)
        if inside
        else (call.json("dimension") or cube.get_temporal_dimension(data.value))
    )
    target = ELEMENT if inside else PARAMETERS
    helper = call.helper(models.fit_along)
    names = f"{write_string(along)}, {start.code}, {write_string(target)}"
    code = f"{helper}({function}, {data.code}, {names}{ignore})"
    return Operand(code, call.value, target if inside else None)


@emits("predict_curve")
def write_predict_curve(call: Call) -> str:
    """The values of a function at labels, or in the gaps of a cube."""
    parameters, dimension = call["parameters"], call.json("dimension")
    if not isinstance(parameters.value, xr.DataArray):
        raise NoProgram("its parameters are not a cube.")
    source = (
        dimension
        if dimension in parameters.value.dims
        else cube.dimensions_of_type(parameters.value, "other")[0]
    )
    function = call.define("function", "x", "parameters", wish="model", dimension=source)
    if call.has("labels") and call.json("labels"):
        from odc_openeo.explain.emitters.dimensions import write_labels

        labels = write_labels(call.value, dimension)
    else:
        labels = f"{call['data'].atom}[{write_string(dimension)}].values"
    helper = call.helper(models.predict_at)
    names = f"{write_string(source)}, {write_string(dimension)}"
    code = f"{helper}({function}, {parameters.code}, {names}, {labels})"
    return f"{call['data'].atom}.fillna({code})" if call.has("data") and not call.json("labels") else code


@emits("cloud_detection")
def write_cloud_detection(call: Call) -> str:
    """The probabilities of s2cloudless for the ten bands that it takes."""
    data = call["data"]
    dimension = cube.get_bands_dimension(data.value)
    labels = cube.labels(data.value, dimension)
    chosen = write_literal([labels[i] for i in find_cloud_bands(data.value, dimension)])
    bands = f"{data.atom}.sel({{{write_string(dimension)}: {chosen}}})"
    return f"{call.helper(clouds.find_cloud_probabilities)}({bands}, {write_string(dimension)})"
