"""Random forests, against scikit-learn on the same numbers."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.formats import write_outputs
from odc_openeo.formats.ml_model import read_model
from odc_openeo.graph import evaluate
from odc_openeo.processes import learning
from odc_openeo.registry.environment import Environment
from odc_openeo.spatial import vector_cubes

BANDS = ["B02", "B04", "B08"]


def sites(count: int = 60) -> tuple[xr.DataArray, dict[str, Any], np.ndarray, np.ndarray]:
    """Predictors as a lazy vector cube, target as GeoJSON, and both as numpy."""
    random = np.random.default_rng(0)
    values = random.random((count, len(BANDS)))
    classes = (values[:, 0] + values[:, 2] > 1).astype(float) + 1
    points = shapely.points(random.uniform(8, 9, (count, 2)))
    frame = gpd.GeoDataFrame({"target": classes}, geometry=points, crs=4326)
    data = xr.DataArray(values, dims=("geometry", "bands"), coords={"geometry": points, "bands": BANDS})
    return (
        vector_cubes.index_geometries(data.chunk({"geometry": 20}), 4326),
        frame.__geo_interface__,
        values,
        classes,
    )


def pixels() -> xr.DataArray:
    values = np.random.default_rng(1).random((3, 8, 9))
    values[1, 2, 3] = np.nan
    return xr.DataArray(values, dims=("bands", "y", "x"), coords={"bands": BANDS})


def predicted(model: Any, data: xr.DataArray) -> xr.DataArray:
    """As the Python client writes it: a reducer whose context is the model."""
    predict = {
        "process_id": "predict_random_forest",
        "arguments": {"data": {"from_parameter": "data"}, "model": {"from_parameter": "context"}},
        "result": True,
    }
    reduce = {
        "process_id": "reduce_dimension",
        "arguments": {
            "data": {"from_parameter": "cube"},
            "dimension": "bands",
            "reducer": {"process_graph": {"p": predict}},
            "context": {"from_parameter": "model"},
        },
        "result": True,
    }
    with dask.config.set(scheduler=_refuse):
        return evaluate({"process_graph": {"r": reduce}}, parameters={"cube": data, "model": model})


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("dask computed during evaluation")


@pytest.mark.parametrize(
    ("fit", "forest"),
    [
        (learning.fit_class_random_forest, RandomForestClassifier),
        (learning.fit_regr_random_forest, RandomForestRegressor),
    ],
)
def test_every_chunk_is_predicted_as_scikit_learn_does(fit: Callable[..., Any], forest: Any) -> None:
    predictors, target, values, classes = sites()
    model = fit(predictors, target, max_variables=2, num_trees=20, seed=3)
    data = pixels()
    result = predicted(model, data.chunk({"bands": 1, "y": 3})).compute(scheduler="synchronous")
    truth = forest(n_estimators=20, max_features=2, random_state=3).fit(values, classes)
    rows = np.nan_to_num(data.values).reshape(3, -1).T
    expected = truth.predict(rows).reshape(8, 9)
    expected[2, 3] = np.nan
    np.testing.assert_array_equal(result.values, expected)


def test_a_model_is_saved_and_read_without_pickles(tmp_path: Path) -> None:
    predictors, target, values, _ = sites()
    model = learning.fit_class_random_forest(predictors, target, num_trees=5, seed=3)
    env = Environment()
    learning.save_ml_model(model, env=env)
    (asset,) = write_outputs(True, env.outputs, tmp_path)
    assert asset.path.suffix == ".skops"
    again = read_model(asset.path.read_bytes(), "load_ml_model", "id")
    original = model.estimator.compute(scheduler="synchronous")
    np.testing.assert_array_equal(again.predict(values), original.predict(values))


def test_files_that_are_no_models_are_refused() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(
            "schema.json", '{"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}'
        )
    for content in (b"", b"no archive", pickle.dumps({"a": 1}), archive.getvalue()):
        with pytest.raises(ProcessParameterInvalid):
            read_model(content, "load_ml_model", "id")


def test_errors_say_what_to_change() -> None:
    predictors, target, *_ = sites()
    model = learning.fit_class_random_forest(predictors, target, num_trees=2)
    with pytest.raises(ProcessParameterInvalid, match="3 values"):
        predicted(model, pixels().isel(bands=[0, 1]))
    with pytest.raises(ProcessParameterInvalid, match="order"):
        predicted(model, pixels().isel(bands=[1, 0, 2]))
    with pytest.raises(ProcessParameterInvalid, match="60"):
        learning.fit_class_random_forest(predictors, {**target, "features": target["features"][1:]})
    for feature in target["features"]:
        feature["properties"] = {}
    with pytest.raises(ProcessParameterInvalid, match="'target'"):
        learning.fit_class_random_forest(predictors, target)
    with pytest.raises(ProcessParameterInvalid, match="model"):
        predicted("no model", pixels())
