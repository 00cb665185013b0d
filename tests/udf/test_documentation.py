"""The examples of docs/udfs.md, with the values that the same calculations give by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.signal

from tests.processes.rasters import grid, raster
from tests.support.graphs import value
from tests.udf.conftest import Run, udf

DOCUMENT = (Path(__file__).parents[2] / "docs" / "udfs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
SMOOTH, COMPONENTS, BEST, CHANGE = (block for block in BLOCKS if "def apply_" in block)
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


def test_change_of_series(run: Run) -> None:
    values = VALUES[:, :, :4, :4]
    data = raster(values, grid(4, 4), {})
    result = run(data, "apply_dimension", data=CUBE, process=udf(CHANGE), dimension="t")
    expected = pd.Series(values[:, 1, 2, 3]).diff().fillna(0)
    np.testing.assert_allclose(result.values[:, 1, 2, 3], expected, atol=1e-6)
