"""Random forests: trained with the values of reference geometries, applied to all pixels."""

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

from odc_openeo import cube, jobs
from odc_openeo.cube import ARRAY
from odc_openeo.cube.arrays import as_numbers, get_labels, make_field, rechunk_whole_arrays
from odc_openeo.errors import JobNotFound, ProcessParameterInvalid
from odc_openeo.formats import Output
from odc_openeo.formats.ml_model import EXTENSION, MODEL, TrainedModel, read_model
from odc_openeo.jobs import results
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.geometry_schemas import Geometries, GeometryCube
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import JsonArray
from odc_openeo.spatial import vector_cubes
from odc_openeo.storage import get_storage

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

FITTING: Final = "a model is fitted to all of its data at once"


@process(categories=["machine learning"], experimental=True, whole_because=FITTING)
def fit_class_random_forest(
    predictors: GeometryCube,
    target: Geometries,
    max_variables: MaxVariables = None,
    num_trees: Trees = 100,
    seed: Seed = None,
) -> Forest:
    """Train a random forest for classification.

    Args:
        predictors: A vector cube with the values to predict the class from, for example from
            `aggregate_spatial`; each geometry is one sample with all of its values. Geometries with no-data
            are left out.
        target: The same geometries in the same order, with the number of their class: the only value of each
            geometry in a vector cube, or the property `target` (or the only numeric property).
        max_variables: How many predictors to consider at each split. By default a third of them.
        num_trees: The number of trees.
        seed: A seed for the random numbers, to make the training reproducible.

    Returns:
        The model. It is trained when it is first used.
    """
    from sklearn.ensemble import RandomForestClassifier

    return _fit_forest(RandomForestClassifier, "fit_class_random_forest", predictors, target,
                max_variables, num_trees, seed)  # fmt: skip


@process(categories=["machine learning"], experimental=True, whole_because=FITTING)
def fit_regr_random_forest(
    predictors: GeometryCube,
    target: Geometries,
    max_variables: MaxVariables = None,
    num_trees: Trees = 100,
    seed: Seed = None,
) -> Forest:
    """Train a random forest for regression.

    Args:
        predictors: A vector cube with the values to predict the number from, for example from
            `aggregate_spatial`; each geometry is one sample with all of its values. Geometries with no-data
            are left out.
        target: The same geometries in the same order, with the number to learn: the only value of each
            geometry in a vector cube, or the property `target` (or the only numeric property).
        max_variables: How many predictors to consider at each split. By default a third of them.
        num_trees: The number of trees.
        seed: A seed for the random numbers, to make the training reproducible.

    Returns:
        The model. It is trained when it is first used.
    """
    from sklearn.ensemble import RandomForestRegressor

    return _fit_forest(RandomForestRegressor, "fit_regr_random_forest", predictors, target,
                max_variables, num_trees, seed)  # fmt: skip


def _fit_forest(
    forest: Callable[..., Any], process: str, predictors: Any, target: Any,
    max_variables: int | None, num_trees: int, seed: int | None,
) -> TrainedModel:  # fmt: skip
    frame = vector_cubes.read_geometries(predictors, process, "predictors")
    if not isinstance(predictors, xr.DataArray) or predictors.dtype.kind not in "iufb":
        raise _invalid_parameter(process, "predictors", "the vector cube has no numeric values.")
    target_frame = vector_cubes.read_geometries(target, process, "target")
    _check_same_geometries(process, frame, target_frame)
    targets = _target_values(process, target, target_frame)
    dimension = str(vector_cubes.find_geometry_dimension(predictors))
    other_dimensions = [str(d) for d in predictors.dims if d != dimension]
    features = ["_".join(map(str, names)) for names in _label_combinations(predictors, other_dimensions)]
    table = cube.decode(predictors).transpose(dimension, *other_dimensions).data
    max_features = min(max_variables or max(1, len(features) // 3), len(features))
    estimator = forest(n_estimators=num_trees, max_features=max_features, random_state=seed)
    return TrainedModel(dask.delayed(_train_estimator)(estimator, table, targets, process), features)


def _label_combinations(data: xr.DataArray, dimensions: list[str]) -> list[tuple[Any, ...]]:
    combinations: list[tuple[Any, ...]] = [()]
    for dimension in dimensions:
        combinations = [(*before, label) for before in combinations for label in cube.labels(data, dimension)]
    return combinations


def _check_same_geometries(process: str, predictors: gpd.GeoDataFrame, target: gpd.GeoDataFrame) -> None:
    if len(predictors) != len(target):
        reason = f"it has {len(target)} geometries, but there are {len(predictors)} in 'predictors'."
        raise _invalid_parameter(process, "target", reason)
    same = shapely.equals_exact(predictors.geometry.to_numpy(), target.geometry.to_numpy(), tolerance=1e-9)
    if predictors.crs == target.crs and not same.all():
        reason = f"geometry {int(np.argmin(same))} differs from the one in 'predictors'."
        raise _invalid_parameter(process, "target", reason)


def _target_values(process: str, target: Any, frame: gpd.GeoDataFrame) -> Any:
    """Return a number for each geometry, lazily if the cube is lazy."""
    if isinstance(target, xr.DataArray) and target.size == len(frame) and target.dtype.kind in "iufb":
        return cube.decode(target).data.reshape(-1)
    columns = frame.drop(columns=frame.geometry.name).select_dtypes(["number", "bool"])
    if TARGET in frame.columns and TARGET not in columns:
        raise _invalid_parameter(
            process, "target", f"the property '{TARGET}' must be a number in each geometry."
        )
    candidates = [TARGET] if TARGET in columns else [c for c in columns if c != vector_cubes.ID]
    if len(candidates) != 1:
        reason = f"each geometry must have a number in the property '{TARGET}'."
        raise _invalid_parameter(process, "target", reason)
    return columns[candidates[0]].to_numpy(float)


def _train_estimator(estimator: Any, table: np.ndarray, targets: np.ndarray, process: str) -> Any:
    """Train the estimator; rows with missing values are left out."""
    rows = table.reshape(len(table), -1).astype(float)
    complete = np.isfinite(rows).all(axis=1) & np.isfinite(targets)
    if not complete.any():
        raise _invalid_parameter(process, "predictors", "no geometry has all values and a target.")
    return estimator.fit(rows[complete], targets[complete])


@process(categories=["machine learning", "reducer"], experimental=True)
def predict_random_forest(
    data: Features, model: Forest
) -> Annotated[Any, Schema({"type": ["number", "null"]})]:
    """Predict a class or a number with a random forest.

    Use it as the reducer of `reduce_dimension`, and pass the model as the `context`.

    Args:
        data: The values of a pixel, in the order of the predictors that the model was trained with.
        model: A model from `fit_class_random_forest`, `fit_regr_random_forest` or `load_ml_model`.

    Returns:
        The class or number; no-data if any of the values is no-data.
    """
    if not isinstance(model, TrainedModel):
        raise _invalid_parameter(
            "predict_random_forest", "model", "it must be a model, for example from load_ml_model."
        )
    values = as_numbers(data, "predict_random_forest")
    if isinstance(values, list):
        values = cube.stack(values)
    _check_features(values, model)
    arrays = rechunk_whole_arrays(cube.decode(values))
    axis = arrays.get_axis_num(ARRAY)
    source = da.asarray(arrays.data)
    meta = np.empty((0,) * (source.ndim - 1), float)
    predictions = source.map_blocks(
        _predict_block, model=model.estimator, axis=axis, drop_axis=axis, dtype=float, meta=meta
    )
    return make_field(arrays, predictions)


def _check_features(values: xr.DataArray, model: TrainedModel) -> None:
    count = values.sizes[ARRAY]
    if model.features and count != len(model.features):
        reason = (
            f"the model was trained with {len(model.features)} values ({', '.join(model.features)}), "
            f"but there are {count} here."
        )
        raise _invalid_parameter("predict_random_forest", "data", reason)
    names = [str(name) for name in get_labels(values)] if ARRAY in values.coords else None
    if model.features and names and set(names) == set(model.features) and names != list(model.features):
        reason = f"the values must be in the order {', '.join(model.features)}."
        raise _invalid_parameter("predict_random_forest", "data", reason)


def _predict_block(block: np.ndarray, model: Any, axis: int) -> np.ndarray:
    moved = np.moveaxis(block, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    if rows.shape[1] != model.n_features_in_:
        reason = f"the model was trained with {model.n_features_in_} values, not {rows.shape[1]}."
        raise _invalid_parameter("predict_random_forest", "data", reason)
    complete = np.isfinite(rows).all(axis=1)
    predictions = np.full(len(rows), np.nan)
    if complete.any():
        predictions[complete] = model.predict(rows[complete].astype(float))
    return predictions.reshape(moved.shape[:-1])


@process(categories=["machine learning", "export"], experimental=True, pure=False, whole_because=FITTING)
def save_ml_model(
    data: Forest,
    options: ModelOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> Saved:
    """Save a model to the results of a batch job.

    Args:
        data: The model.
        options: Must be empty; there are no options.

    Returns:
        True.
    """
    if not isinstance(data, TrainedModel):
        raise _invalid_parameter(
            "save_ml_model", "data", "it must be a model, for example from fit_class_random_forest."
        )
    env.outputs.append(Output(data, MODEL))
    return True


@process(categories=["machine learning", "import"], experimental=True, pure=False)
def load_ml_model(id: ModelId, *, env: Environment) -> Forest:
    """Load a model saved by a batch job.

    Args:
        id: The id of one of your batch jobs, which must have saved exactly one model with `save_ml_model`.

    Returns:
        The model.

    Raises:
        JobNotFound: You have no such batch job.
    """
    if env.user is None:
        env.require_run()
    if env.catalog is None or env.user is None:
        raise JobNotFound(identifier=id)
    config = env.catalog.config
    job_results = results.find_results(config, jobs.get_job(config, UUID(env.user), id))
    if job_results is None:
        env.require_run()
    assets = (
        []
        if job_results is None
        else [a["name"] for a in job_results.assets if a["name"].endswith(f".{EXTENSION}")]
    )
    if job_results is None or len(assets) != 1:
        reason = f"the job has saved {len(assets) or 'no'} models; it must be exactly one."
        raise _invalid_parameter("load_ml_model", "id", reason)
    with get_storage(config).open(f"{job_results.folder}/{assets[0]}") as file:
        estimator = read_model(file.read(), "load_ml_model", "id")
    return TrainedModel(dask.delayed(estimator), ())


def _invalid_parameter(process: str, parameter: str, reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process=process, parameter=parameter, reason=reason)
