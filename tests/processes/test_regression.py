"""Curves fitted to pixels, against numpy's and scipy's least squares."""

from __future__ import annotations

import pickle
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import DimensionNotAvailable, ProcessParameterInvalid
from odc_openeo.graph import evaluate
from odc_openeo.processes.temporal import aggregate_temporal_period
from tests.processes.rasters import grid, nothing_computes, raster

YEAR = 31557600


def call(process_id: str, **arguments: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": arguments}


def node(id_: str) -> dict[str, str]:
    return {"from_node": id_}


def parameter(name: str) -> dict[str, str]:
    return {"from_parameter": name}


def element(index: int) -> dict[str, Any]:
    return call("array_element", data=parameter("parameters"), index=index)


def graph(result: str, **nodes: Any) -> dict[str, Any]:
    nodes[result] = {**nodes[result], "result": True}
    return {"process_graph": nodes}


def season() -> dict[str, Any]:
    """p0 + p1 cos(w x) + p2 sin(w x), w = 2 pi a year."""
    return graph(
        "y",
        p0=element(0),
        p1=element(1),
        p2=element(2),
        w=call("multiply", x=parameter("x"), y=2 * np.pi / YEAR),
        c=call("cos", x=node("w")),
        s=call("sin", x=node("w")),
        a=call("multiply", x=node("p1"), y=node("c")),
        b=call("multiply", x=node("p2"), y=node("s")),
        ab=call("add", x=node("a"), y=node("b")),
        y=call("add", x=node("p0"), y=node("ab")),
    )


def decay() -> dict[str, Any]:
    """p0 exp(-p1 x)."""
    return graph(
        "y",
        p0=element(0),
        p1=element(1),
        px=call("multiply", x=node("p1"), y=parameter("x")),
        minus=call("multiply", x=node("px"), y=-1),
        e=call("exp", p=node("minus")),
        y=call("multiply", x=node("p0"), y=node("e")),
    )


def fitted(cube: xr.DataArray, model: dict[str, Any], start: list[float], **more: Any) -> xr.DataArray:
    fit = call("fit_curve", data=parameter("data"), parameters=start, function=model, **more)
    apply = call(
        "apply_dimension",
        data=parameter("cube"),
        dimension="t",
        target_dimension="param",
        process=graph("fit", fit=fit),
    )
    with dask.config.set(scheduler=_refuse):
        return evaluate(graph("it", it=apply), parameters={"cube": cube})


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("dask computed during evaluation")


def series(seed: int = 0, dates: int = 40, side: int = 6) -> xr.DataArray:
    random = np.random.default_rng(seed)
    t = np.datetime64("2020-01-05", "ns") + np.arange(dates) * np.timedelta64(20, "D")
    return xr.DataArray(
        random.normal(0.5, 0.2, (dates, side, side)),
        dims=("t", "y", "x"),
        coords={"t": t, "y": np.arange(side)[::-1] * 10.0, "x": np.arange(side) * 10.0},
    )


def seconds(cube: xr.DataArray) -> np.ndarray:
    return cube.t.values.astype("datetime64[ns]").astype(float) / 1e9


def test_a_seasonal_model_is_fitted_as_numpy_does() -> None:
    cube = series()
    cube[3, 1, 2] = np.nan
    cube[:-2, 0, 0] = np.nan
    result = fitted(cube.chunk({"t": 7, "y": 3}), season(), [1, 1, 1])
    assert result.dims == ("param", "y", "x")
    w = 2 * np.pi / YEAR * seconds(cube)
    matrix = np.column_stack([np.ones_like(w), np.cos(w), np.sin(w)])
    computed = result.compute(scheduler="synchronous")
    for y in range(6):
        for x in range(6):
            values = cube.values[:, y, x]
            used = np.isfinite(values)
            expected = np.full(3, np.nan)
            if used.sum() >= 3:
                expected = np.linalg.lstsq(matrix[used], values[used], rcond=None)[0]
            np.testing.assert_allclose(computed.values[:, y, x], expected, atol=1e-9)


def test_an_exponential_is_fitted_as_scipy_does() -> None:
    cube = series(1, dates=12)
    x = np.arange(12.0)
    cube = (3 * np.exp(-0.3 * x)[:, None, None] + 0.1 * cube).assign_coords(t=x)
    result = fitted(cube.chunk({"y": 2}), decay(), [1, 1]).compute(scheduler="synchronous")
    expected, _ = scipy.optimize.curve_fit(
        lambda x, a, b: a * np.exp(-b * x), x, cube.values[:, 2, 3], [1, 1]
    )
    np.testing.assert_allclose(result.values[:, 2, 3], expected, rtol=1e-6)


def test_no_data_is_kept_on_request() -> None:
    cube = series()
    cube[3, 1, 2] = np.nan
    result = fitted(cube, season(), [1, 1, 1], ignore_nodata=False)
    assert result.isel(y=1, x=2).isnull().all()
    assert int(result.isnull().sum()) == 3


def test_fitted_curve_predicts_like_numpy() -> None:
    cube = series()
    parameters = fitted(cube.chunk({"y": 3}), season(), [1, 1, 1])
    labels = ["2021-03-01", "2021-09-01T12:00:00Z"]
    predict = call(
        "predict_curve", parameters=parameter("p"), function=season(), dimension="t", labels=labels
    )
    with dask.config.set(scheduler=_refuse):
        result = evaluate(graph("it", it=predict), parameters={"p": parameters})
    assert result.dims == ("t", "y", "x")
    assert list(result.t.values) == [np.datetime64("2021-03-01"), np.datetime64("2021-09-01T12:00")]
    w = 2 * np.pi / YEAR * seconds(result)[:, None, None]
    p = parameters.compute(scheduler="synchronous").values
    np.testing.assert_allclose(
        result.compute(scheduler="synchronous"), p[0] + p[1] * np.cos(w) + p[2] * np.sin(w)
    )


def test_prediction_needs_labels() -> None:
    cube = xr.DataArray(np.ones((3, 2, 2)), dims=("param", "y", "x"))
    predict = call("predict_curve", parameters=parameter("p"), function=season(), dimension="t")
    with pytest.raises(ProcessParameterInvalid, match="labels"):
        evaluate(graph("it", it=predict), parameters={"p": cube})


def test_json_values_are_fitted() -> None:
    fit = call(
        "fit_curve", data=[3, None, 3 * np.exp(-0.5), 3 * np.exp(-0.75)], parameters=[1, 1], function=decay()
    )
    result = evaluate(graph("it", it=fit))
    np.testing.assert_allclose(result, [3, 0.25], rtol=1e-9)


def test_a_model_may_use_outer_parameters_but_no_cubes() -> None:
    model = decay()
    model["process_graph"]["p0"] = call("add", x=parameter("offset"), y=element(0)["arguments"]["index"])
    fit = call("fit_curve", data=[3, 2, 1, 0.5], parameters=[1, 1], function=model)
    result = evaluate(graph("it", it=fit), parameters={"offset": 3})
    assert result is not None
    with pytest.raises(ProcessParameterInvalid, match="'offset'"):
        evaluate(graph("it", it=fit), parameters={"offset": xr.DataArray(1.0)})


def test_fits_can_be_sent_to_other_processes() -> None:
    result = fitted(series().chunk({"y": 3}), season(), [1, 1, 1])
    again = pickle.loads(pickle.dumps(result))
    xr.testing.assert_identical(
        again.compute(scheduler="synchronous"), result.compute(scheduler="synchronous")
    )


# --- Cubes ---------------------------------------------------------------------------------------


def seasonal_cube(chunks: Any = None) -> tuple[xr.DataArray, np.ndarray]:
    """A cube of values that a seasonal model describes exactly, and its parameters by band and pixel."""
    times = pd.date_range("2020-01-01", "2021-12-31", freq="17D")
    fitted = np.random.default_rng(5).normal(size=(3, 2, 4, 5)) + np.array([9, 1, 2])[:, None, None, None]
    angle = 2 * np.pi / YEAR * (times - pd.Timestamp(0)).total_seconds().to_numpy()
    values = np.einsum("pbyx,pt->tbyx", fitted, [np.ones(angle.size), np.cos(angle), np.sin(angle)])
    return raster(values, grid(4, 5), chunks).assign_coords(t=times.to_numpy()), fitted


@pytest.mark.parametrize("chunks", [None, {"t": 20, "x": 2}])
@pytest.mark.parametrize("dimension", ["t", None])
def test_curves_are_fitted_along_a_dimension_of_a_cube(chunks: Any, dimension: str | None) -> None:
    data, fitted = seasonal_cube(chunks)
    node = call("fit_curve", data=parameter("cube"), parameters=[1, 1, 1], function=season())
    if dimension:
        node["arguments"]["dimension"] = dimension
    with nothing_computes():
        result = evaluate(graph("it", it=node), parameters={"cube": data})
    assert result.dims == ("param", "bands", "y", "x")
    assert result.param.values.tolist() == [0, 1, 2]
    assert result.odc.geobox == data.odc.geobox
    np.testing.assert_allclose(result.values, fitted, rtol=1e-6)


def test_gaps_of_a_cube_are_predicted() -> None:
    data, _ = seasonal_cube({"x": 2})
    gaps = np.random.default_rng(1).random(data.shape) < 0.3
    holey = data.where(~gaps)
    nodes = {
        "fit": call(
            "fit_curve", data=parameter("cube"), parameters=[1, 1, 1], function=season(), dimension="t"
        ),
        "filled": call(
            "predict_curve",
            data=parameter("cube"),
            parameters=node("fit"),
            function=season(),
            dimension="t",
            labels=None,
        ),
    }
    with nothing_computes():
        result = evaluate(graph("filled", **nodes), parameters={"cube": holey})
    assert result.dims == data.dims
    np.testing.assert_allclose(result.values, data.values, rtol=1e-6)
    np.testing.assert_array_equal(result.values[~gaps], data.values[~gaps])


def test_new_labels_of_a_cube_are_predicted_with_fixed_parameters() -> None:
    data, _ = seasonal_cube({"x": 2})
    labels = ["2022-01-01", "2022-07-02T12:00:00Z"]
    arguments = {"parameters": [3, 2, 1], "function": season(), "dimension": "t", "labels": labels}
    result = evaluate(
        graph("it", it=call("predict_curve", data=parameter("cube"), **arguments)), parameters={"cube": data}
    )
    seconds = (pd.DatetimeIndex(["2022-01-01", "2022-07-02T12:00"]) - pd.Timestamp(0)).total_seconds()
    angle = 2 * np.pi / YEAR * seconds.to_numpy()
    expected = 3 + 2 * np.cos(angle) + np.sin(angle)
    assert dict(result.sizes) == {**data.sizes, "t": 2}
    np.testing.assert_allclose(result.isel(bands=0, y=0, x=0).values, expected)
    with pytest.raises(ProcessParameterInvalid, match="'data'"):
        evaluate(graph("it", it=call("predict_curve", **arguments)))


def test_months_are_fitted_at_their_start() -> None:
    data, _ = seasonal_cube()
    months = aggregate_temporal_period(data, "month", lambda data, context: data.mean("__array__"))
    starts = months.assign_coords(t=pd.DatetimeIndex([f"{m}-01" for m in months.t.values]).to_numpy())
    fits = [
        evaluate(
            graph("it", it=call("fit_curve", data=parameter("c"), parameters=[1, 1, 1], function=season())),
            parameters={"c": c},
        )
        for c in (months, starts)
    ]
    np.testing.assert_array_equal(fits[0].values, fits[1].values)


def test_cubes_without_the_dimension() -> None:
    data, _ = seasonal_cube()
    fit = call("fit_curve", data=parameter("c"), parameters=[1, 1, 1], function=season(), dimension="time")
    with pytest.raises(DimensionNotAvailable, match="Use 't' instead of 'time'"):
        evaluate(graph("it", it=fit), parameters={"c": data})
