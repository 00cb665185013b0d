"""The examples of docs/udfs.md, with the values that the same calculations give by hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import xarray as xr
from sklearn.ensemble import RandomForestClassifier

from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from odc_openeo.udf.runtimes import ask_interpreter
from tests.conftest import Site
from tests.processes.rasters import grid, raster
from tests.support.graphs import child, value
from tests.support.wheels import declare
from tests.udf.conftest import Run, make_shared_folder, udf

DOCUMENT = (Path(__file__).parents[2] / "docs" / "udfs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
EXAMPLES = [block for block in BLOCKS if "def apply_" in block]
SMOOTH, COMPONENTS, BEST, BREAKS, CHANGE, SEGMENTS, CLASSES = EXAMPLES
VALUES = np.random.default_rng(0).random((6, 3, 20, 24)).astype("float32")
CUBE = value("cube")
CHUNKS = {"t": 1, "y": 10, "x": 12}


def test_smoothing(run: Run) -> None:
    values = VALUES.copy()
    values[2, 0, 3, 4] = np.nan
    data = raster(values, grid(20, 24), CHUNKS)
    process = udf(SMOOTH, context={"length": 5})
    result = run(data, "apply_dimension", data=CUBE, process=process, dimension="t")
    filled = data.compute().to_series().unstack("t").interpolate(axis=1)
    expected = scipy.signal.savgol_filter(filled.to_numpy(), 5, 2, axis=1)
    series = result.transpose("bands", "y", "x", "t").values.reshape(-1, 6)
    np.testing.assert_allclose(series, expected, atol=1e-5)


def test_components(run: Run) -> None:
    data = raster(VALUES, grid(20, 24), CHUNKS)
    size = [{"dimension": d, "value": 256, "unit": "px"} for d in ("x", "y")]
    result = run(data, "apply_neighborhood", data=CUBE, process=udf(COMPONENTS), size=size)
    assert result.coords["bands"].values.tolist() == ["pc1", "pc2"]
    assert "common_name" not in result.coords
    rows = np.moveaxis(VALUES, 1, -1).reshape(-1, 3)
    rows = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    expected = np.moveaxis((rows @ axes[:2].T).reshape(6, 20, 24, 2), -1, 1)
    np.testing.assert_allclose(np.abs(result.values), np.abs(expected), atol=1e-4)


def test_best_dates(run: Run) -> None:
    data = raster(VALUES, grid(20, 24), CHUNKS)
    reducer = udf(BEST, context={"score": "B03"})
    result = run(data, "reduce_dimension", data=CUBE, reducer=reducer, dimension="t")
    best = VALUES[:, 2].argmax(0)
    expected = np.take_along_axis(VALUES, best[None, None], axis=0)[0]
    np.testing.assert_array_equal(result.values, expected)


def find_break(series: np.ndarray, least: int) -> tuple[int, float]:
    """Find the step that leaves the least squares around the means of both sides, by trying all."""
    best, most = None, np.inf
    for k in range(1, len(series)):
        left, right = (part[np.isfinite(part)] for part in (series[:k], series[k:]))
        if min(left.size, right.size) < least:
            continue
        rest = left.var() * left.size + right.var() * right.size
        if rest < most - 1e-12:
            best, most = (k, right.mean() - left.mean()), rest
    return best


def test_breaks(run: Run) -> None:
    values = np.random.default_rng(1).random((20, 1, 6, 8))
    values[12:, :, :3] += 3
    values[5:, :, 3:] -= 2
    values[3, 0, 0] = np.nan
    values[:, 0, 5, 7] = np.nan
    data = raster(values, grid(6, 8), {"t": 1, "y": 3, "x": 4})
    more = {"dimension": "t", "target_dimension": "bands"}
    process = udf(BREAKS, context={"least": 3})
    result = run(data, "apply_dimension", data=CUBE, process=process, **more)
    assert result.coords["bands"].values.tolist() == ["break", "step"]
    days = (data.t.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    values[:, 0, 5, 7] = 0
    expected = [[find_break(values[:, 0, y, x], 3) for x in range(8)] for y in range(6)]
    given = result.values
    assert np.isnan(given[:, 5, 7]).all()
    for y in range(6):
        for x in range(8 - (y == 5)):
            place, step = expected[y][x]
            np.testing.assert_allclose(given[:, y, x], [days[place], step], rtol=1e-5)
    assert set(given[0, :3].ravel()) == {days[12]}


@pytest.fixture(scope="module")
def polygons() -> dict[str, Any]:
    """Two squares on the grid."""
    rings = [
        [[x, 5151900], [x + 50, 5151900], [x + 50, 5151850], [x, 5151850], [x, 5151900]]
        for x in (680000, 680100)
    ]
    shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in rings]
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
        "features": [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes],
    }


def test_change_of_series(run: Run, polygons: dict[str, Any]) -> None:
    data = raster(VALUES, grid(20, 24), CHUNKS)
    mean = child("mean", data=value("data"))
    means = run(data, "aggregate_spatial", data=CUBE, geometries=polygons, reducer=mean)
    result = run(means, "apply_dimension", data=CUBE, process=udf(CHANGE), dimension="t")
    for number, columns in enumerate((slice(0, 5), slice(10, 15))):
        for band in range(3):
            series = VALUES[:, band, 10:15, columns].mean((1, 2))
            expected = pd.Series(series).interpolate().diff().fillna(0)
            np.testing.assert_allclose(result.values[number, :, band], expected, atol=1e-6)


# --- With libraries that are not among those of the service -------------------------------------------

PYTHON = os.environ.get("ODC_OPENEO_TEST_UDF_PYTHON", sys.executable)
"""The interpreter of user code."""
BLOCKS_OF_8 = [{"dimension": d, "value": 8, "unit": "px"} for d in ("x", "y")]


def use_runtime(environment: Environment, *libraries: str, **settings: Any) -> Environment:
    """The environment of a run whose user code has these libraries."""
    missing = set(libraries) - set(ask_interpreter(PYTHON).libraries)
    if missing:
        pytest.skip(f"the interpreter of user code lacks {', '.join(sorted(missing))}")
    config = environment.catalog.config.model_copy(update={"udf_pythons": PYTHON, **settings})
    return replace(environment, catalog=SimpleNamespace(config=config))


def apply_to_blocks(
    environment: Environment, data: xr.DataArray, code: str, overlap: int, **more: Any
) -> xr.DataArray:
    arguments = {"data": CUBE, "process": udf(code, **more), "size": BLOCKS_OF_8}
    if overlap:
        arguments["overlap"] = [{**size, "value": overlap} for size in BLOCKS_OF_8]
    node = {"process_id": "apply_neighborhood", "arguments": arguments, "result": True}
    result: xr.DataArray = evaluate({"process_graph": {"it": node}}, environment, {"cube": data})
    return result


FELZENSZWALB = """
import sys
import numpy
from skimage.segmentation import felzenszwalb
images = numpy.load(sys.argv[1])
numpy.save(sys.argv[1], [felzenszwalb(image, scale=2, sigma=0.5, min_size=10) for image in images])
"""


def make_fields() -> np.ndarray:
    """An image of two fields, with three bands."""
    values = np.zeros((1, 3, 16, 16), "float32")
    values[:, :, 3:6, 2:7] = 1
    values[:, 1, 10:, 9:] = 2
    return values


def check_segments(result: xr.DataArray, values: np.ndarray, folder: Path, packages: Path | None) -> None:
    """Compare segments with those that the library gives for each block."""
    places = [np.s_[y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
    np.save(folder / "images.npy", [np.moveaxis(values[0], 0, -1)[place] for place in places])
    variables = {} if packages is None else {"PYTHONPATH": str(packages)}
    python = PYTHON if packages is None else sys.executable
    subprocess.run([python, "-c", FELZENSZWALB, folder / "images.npy"], check=True, env=variables)
    assert result.coords["bands"].values.tolist() == ["segment"]
    assert result.dtype == np.int32
    for place, expected in zip(places, np.load(folder / "images.npy"), strict=True):
        np.testing.assert_array_equal(result.values[0][place], expected)
    assert result.values.max() >= 1


def test_segments(environment: Environment, tmp_path: Path) -> None:
    allowed = use_runtime(environment, "scikit-image")
    values = make_fields()
    data = raster(values, grid(16, 16), {"y": 8})
    result = apply_to_blocks(allowed, data, SEGMENTS, 0, context={"scale": 2})
    check_segments(result, values, tmp_path, None)


@pytest.mark.skipif(find_spec("skimage") is not None, reason="the runtime has scikit-image")
def test_segments_with_a_library_that_is_installed(environment: Environment, tmp_path: Path) -> None:
    """A block of requirements leads to an environment with the library, from the index of pip."""
    question = [sys.executable, "-m", "pip", "index", "versions", "--retries", "0", "scikit-image"]
    if subprocess.run(question, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("no index of pip with scikit-image answers")
    values = make_fields()
    data = raster(values, grid(16, 16), {"y": 8})
    with make_shared_folder() as cache:
        changes = {"udf_install": True, "udf_cache_dir": cache / "cache"}
        config = environment.catalog.config.model_copy(update=changes)
        allowed = replace(environment, catalog=SimpleNamespace(config=config))
        code = declare("scikit-image>=0.24", code=SEGMENTS)
        result = apply_to_blocks(allowed, data, code, 0, context={"scale": 2})
        (library,) = (cache / "cache" / "packages").glob("*/skimage")
        check_segments(result, values, tmp_path, library.parent)
        assert not (library.parent / "numpy").exists()


def test_classes_of_a_model(environment: Environment, site: Site) -> None:
    skl2onnx = pytest.importorskip("skl2onnx", reason="models of scikit-learn cannot be converted to ONNX")
    allowed = use_runtime(environment, "onnxruntime", outgoing_allow="127.0.0.1")
    values = np.random.default_rng(2).random((1, 3, 20, 18)).astype("float32")
    padded = np.pad(values[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    rows = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 27)
    model = RandomForestClassifier(5, max_depth=4, random_state=0).fit(
        rows, (rows.sum(1) * 3).astype(int) % 3
    )
    types = [("X", skl2onnx.common.data_types.FloatTensorType([None, 27]))]
    converted = skl2onnx.convert_sklearn(model, initial_types=types, options={"zipmap": False})
    with zipfile.ZipFile(site.folder / "classifier.zip", "w") as archive:
        archive.writestr("classifier.onnx", converted.SerializeToString())
    allowed = replace(allowed, archives=(f"{site.root}/classifier.zip#models",))
    data = raster(values, grid(20, 18), {"y": 5})
    result = apply_to_blocks(allowed, data, CLASSES, 1)
    assert result.coords["bands"].values.tolist() == ["class"]
    np.testing.assert_array_equal(result.values[0], model.predict(rows).reshape(20, 18))
    assert len(np.unique(result.values)) == 3
