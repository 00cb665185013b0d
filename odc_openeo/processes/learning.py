"""Random forests: trained with values at places that are known, applied to all pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from odc_openeo import cube, geometry, jobs, results
from odc_openeo.cube import ARRAY
from odc_openeo.errors import JobNotFound, ProcessParameterInvalid
from odc_openeo.formats import Output
from odc_openeo.formats.learned import EXTENSION, MODEL, TrainedModel, read
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes.geometry_schemas import Geometries, GeometryCube
from odc_openeo.processes.schemas import JsonArray
from odc_openeo.processes.sequences import field, labels, numbers, whole_arrays
from odc_openeo.storage import storage

TARGET: Final = "target"
_MODEL: Final = {"type": "object", "subtype": "ml-model"}

Forest = Annotated[TrainedModel, Schema(_MODEL)]
MaxVariables = Annotated[int | None, Schema([{"type": "integer", "minimum": 1}, {"type": "null"}])]
Trees = Annotated[int, Schema({"type": "integer", "minimum": 1})]
Seed = Annotated[int | None, Schema({"type": ["integer", "null"], "minimum": 0})]
Features = Annotated[JsonArray, Schema({"type": "array", "items": {"type": ["number", "null"]}})]
ModelId = Annotated[str, Schema({"type": "string", "subtype": "job-id"})]
ModelOptions = Annotated[Mapping[str, Any], Schema({"type": "object", "additionalProperties": False})]
Saved = Annotated[bool, Schema({"type": "boolean"})]


@process(categories=["machine learning"], experimental=True)
def fit_class_random_forest(
    predictors: GeometryCube,
    target: Geometries,
    max_variables: MaxVariables = None,
    num_trees: Trees = 100,
    seed: Seed = None,
) -> Forest:
    """Train a random forest to tell classes apart.

    Args:
        predictors: A vector cube with the values that classes are told by, for example from
            `aggregate_spatial`: all values of a geometry together describe it. Geometries with no-data are
            left out.
        target: The same geometries in the same order with the number of their class: the only value of each
            geometry in a vector cube, or the property `target` (or the only number among the properties).
        max_variables: How many predictors are tried at a split. By default a third of them.
        num_trees: The number of trees.
        seed: Makes the training repeatable.

    Returns:
        The model. It is trained when it is first needed.
    """
    from sklearn.ensemble import RandomForestClassifier

    return _fit(RandomForestClassifier, "fit_class_random_forest", predictors, target,
                max_variables, num_trees, seed)  # fmt: skip


@process(categories=["machine learning"], experimental=True)
def fit_regr_random_forest(
    predictors: GeometryCube,
    target: Geometries,
    max_variables: MaxVariables = None,
    num_trees: Trees = 100,
    seed: Seed = None,
) -> Forest:
    """Train a random forest to estimate a number.

    Args:
        predictors: A vector cube with the values that the number depends on, for example from
            `aggregate_spatial`: all values of a geometry together describe it. Geometries with no-data are
            left out.
        target: The same geometries in the same order with the number: the only value of each geometry in a
            vector cube, or the property `target` (or the only number among the properties).
        max_variables: How many predictors are tried at a split. By default a third of them.
        num_trees: The number of trees.
        seed: Makes the training repeatable.

    Returns:
        The model. It is trained when it is first needed.
    """
    from sklearn.ensemble import RandomForestRegressor

    return _fit(RandomForestRegressor, "fit_regr_random_forest", predictors, target,
                max_variables, num_trees, seed)  # fmt: skip


def _fit(
    forest: Callable[..., Any], process: str, predictors: Any, target: Any,
    max_variables: int | None, num_trees: int, seed: int | None,
) -> TrainedModel:  # fmt: skip
    frame = geometry.read(predictors, process, "predictors")
    if not isinstance(predictors, xr.DataArray) or predictors.dtype.kind not in "iufb":
        raise _invalid(process, "predictors", "the vector cube has no numbers.")
    wanted = geometry.read(target, process, "target")
    _require_same_places(process, frame, wanted)
    known = _target_values(process, target, wanted)
    dimension = str(geometry.geometry_dimension(predictors))
    others = [str(d) for d in predictors.dims if d != dimension]
    features = ["_".join(map(str, names)) for names in _combinations(predictors, others)]
    table = cube.decode(predictors).transpose(dimension, *others).data
    most = min(max_variables or max(1, len(features) // 3), len(features))
    estimator = forest(n_estimators=num_trees, max_features=most, random_state=seed)
    return TrainedModel(dask.delayed(_trained)(estimator, table, known, process), features)


def _combinations(data: xr.DataArray, dimensions: list[str]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = [()]
    for dimension in dimensions:
        found = [(*before, label) for before in found for label in cube.labels(data, dimension)]
    return found


def _require_same_places(process: str, ours: gpd.GeoDataFrame, theirs: gpd.GeoDataFrame) -> None:
    if len(ours) != len(theirs):
        reason = f"it has {len(theirs)} geometries, but there are {len(ours)} in 'predictors'."
        raise _invalid(process, "target", reason)
    same = shapely.equals_exact(ours.geometry.to_numpy(), theirs.geometry.to_numpy(), tolerance=1e-9)
    if ours.crs == theirs.crs and not same.all():
        reason = f"geometry {int(np.argmin(same))} is another one than in 'predictors'."
        raise _invalid(process, "target", reason)


def _target_values(process: str, target: Any, frame: gpd.GeoDataFrame) -> Any:
    """A number for each geometry, lazily if the cube is."""
    if isinstance(target, xr.DataArray) and target.size == len(frame) and target.dtype.kind in "iufb":
        return cube.decode(target).data.reshape(-1)
    columns = frame.drop(columns=frame.geometry.name).select_dtypes(["number", "bool"])
    if TARGET in frame.columns and TARGET not in columns:
        raise _invalid(process, "target", f"the property '{TARGET}' must be a number in each geometry.")
    candidates = [TARGET] if TARGET in columns else [c for c in columns if c != geometry.ID]
    if len(candidates) != 1:
        reason = f"give each geometry a number in the property '{TARGET}'."
        raise _invalid(process, "target", reason)
    return columns[candidates[0]].to_numpy(float)


def _trained(estimator: Any, table: np.ndarray, known: np.ndarray, process: str) -> Any:
    """The trained estimator; rows that lack a value are left out."""
    rows = table.reshape(len(table), -1).astype(float)
    complete = np.isfinite(rows).all(axis=1) & np.isfinite(known)
    if not complete.any():
        raise _invalid(process, "predictors", "no geometry has all values and a target.")
    return estimator.fit(rows[complete], known[complete])


@process(categories=["machine learning", "reducer"], experimental=True)
def predict_random_forest(
    data: Features, model: Forest
) -> Annotated[Any, Schema({"type": ["number", "null"]})]:
    """What a random forest makes of the values of a pixel: a class or a number.

    To be used in `reduce_dimension`, the model given as its `context`.

    Args:
        data: As many values in the same order as the predictors that the model was trained with.
        model: A model of `fit_class_random_forest`, `fit_regr_random_forest` or `load_ml_model`.

    Returns:
        The class or number; no-data if any of the values is.
    """
    if not isinstance(model, TrainedModel):
        raise _invalid("predict_random_forest", "model", "it must be a model, of load_ml_model for example.")
    values = numbers(data, "predict_random_forest")
    if isinstance(values, list):
        values = cube.stack(values)
    _require_features(values, model)
    whole = whole_arrays(cube.decode(values))
    axis = whole.get_axis_num(ARRAY)
    source = da.asarray(whole.data)
    meta = np.empty((0,) * (source.ndim - 1), float)
    found = source.map_blocks(
        _predicted, model=model.estimator, axis=axis, drop_axis=axis, dtype=float, meta=meta
    )
    return field(whole, found)


def _require_features(values: xr.DataArray, model: TrainedModel) -> None:
    count = values.sizes[ARRAY]
    if model.features and count != len(model.features):
        reason = (
            f"the model was trained with {len(model.features)} values ({', '.join(model.features)}), "
            f"but there are {count} here."
        )
        raise _invalid("predict_random_forest", "data", reason)
    given = [str(name) for name in labels(values)] if ARRAY in values.coords else None
    if model.features and given and set(given) == set(model.features) and given != list(model.features):
        reason = f"the values must be in the order {', '.join(model.features)}."
        raise _invalid("predict_random_forest", "data", reason)


def _predicted(block: np.ndarray, model: Any, axis: int) -> np.ndarray:
    moved = np.moveaxis(block, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    if rows.shape[1] != model.n_features_in_:
        reason = f"the model was trained with {model.n_features_in_} values, not {rows.shape[1]}."
        raise _invalid("predict_random_forest", "data", reason)
    complete = np.isfinite(rows).all(axis=1)
    found = np.full(len(rows), np.nan)
    if complete.any():
        found[complete] = model.predict(rows[complete].astype(float))
    return found.reshape(moved.shape[:-1])


@process(categories=["machine learning", "export"], experimental=True, pure=False)
def save_ml_model(
    data: Forest,
    options: ModelOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Saved:
    """Save a model as a file among the results of a batch job.

    Args:
        data: The model.
        options: There are none.

    Returns:
        True.
    """
    if not isinstance(data, TrainedModel):
        raise _invalid("save_ml_model", "data", "it must be a model, of fit_class_random_forest for example.")
    env.outputs.append(Output(data, MODEL))
    return True


@process(categories=["machine learning", "import"], experimental=True, pure=False)
def load_ml_model(id: ModelId, *, env: Environment) -> Forest:
    """Load a model that a batch job has saved.

    Args:
        id: The id of one of your batch jobs that has saved a single model with `save_ml_model`.

    Returns:
        The model.

    Raises:
        JobNotFound: You have no such batch job.
    """
    if env.catalog is None or env.user is None:
        raise JobNotFound(identifier=id)
    config = env.catalog.config
    found = results.find(config, jobs.get(config, UUID(env.user), id))
    assets = [] if found is None else [a["name"] for a in found.assets if a["name"].endswith(f".{EXTENSION}")]
    if found is None or len(assets) != 1:
        reason = f"the job has saved {len(assets) or 'no'} models; it must be exactly one."
        raise _invalid("load_ml_model", "id", reason)
    with storage(config).open(f"{found.folder}/{assets[0]}") as file:
        estimator = read(file.read(), "load_ml_model", "id")
    return TrainedModel(dask.delayed(estimator), ())


def _invalid(process: str, parameter: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
