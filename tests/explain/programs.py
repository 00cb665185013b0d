"""Write a graph as a program, run the program by itself, and compare what it gives with the service."""

from __future__ import annotations

import ast
import contextlib
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo import cube
from odc_openeo.cube import LabeledArray
from odc_openeo.explain import Explanation, write_program
from odc_openeo.graph import prepare
from odc_openeo.registry.environment import Environment


@dataclass(frozen=True)
class Comparison:
    """What the service and the program gave."""

    explanation: Explanation
    expected: Any
    result: Any


def compare_program(
    process: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
    env: Environment | None = None,
    *,
    output: bool = True,
    lenient: bool = False,
    edge_pixels: int = 0,
    folder: Path | None = None,
) -> Comparison:
    """Evaluate a process, run its program, and check that both have the same value.

    The value is what is saved (not with ``output=False``). Programs that are not whole are not run if that is
    ``lenient``. So many ``edge_pixels`` may differ: those that a load on a coarser grid has at
    the edge of its extent. The program runs in ``folder``, else in one that is removed afterwards.
    """
    env = env or Environment()
    explanation = write_program(prepare(process, env.lookup), env, parameters)
    expected = env.outputs[0].data if env.outputs and output else explanation.value
    if lenient and explanation.incomplete:
        return Comparison(explanation, expected, None)
    if isinstance(expected, xr.DataArray | xr.Dataset):
        expected = expected.compute(scheduler="synchronous")
    cubes = {name: as_program_has_it(value) for name, value in (parameters or {}).items()}
    result = run_program(explanation, cubes, folder)
    check_equal(result, expected, edge_pixels)
    return Comparison(explanation, expected, result)


def run_program(explanation: Explanation, cubes: Mapping[str, Any], folder: Path | None = None) -> Any:
    """The result of a program that imports nothing of this package."""
    check_independence(explanation.program)
    names = dict(cubes)
    place = tempfile.TemporaryDirectory() if folder is None else contextlib.nullcontext(folder)
    # Where it is installed, numbagg would compile its functions, which takes longer than all programs.
    options = xr.set_options(use_numbagg=False)
    with warnings.catch_warnings(), options, place as path, contextlib.chdir(path):
        warnings.simplefilter("ignore")
        exec(compile(explanation.program, "<program>", "exec"), names)
        return eval(explanation.result, names)


def check_independence(source: str) -> None:
    """No import of a program is one of this package, or of the client but for user-defined functions."""
    for node in ast.walk(ast.parse(source)):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        packages = {m.split(".")[0] for m in modules if m != "openeo.udf"}
        assert not packages & {"odc_openeo", "openeo", "tests"}, modules


def as_program_has_it(value: Any) -> Any:
    """A cube as a program would have loaded it: floats with NaN for no-data."""
    if isinstance(value, xr.DataArray) and value.dtype.kind in "iu":
        value = cube.decode(value)
    if isinstance(value, xr.DataArray):
        value = value.drop_vars([cube.COMMON_NAME, cube.WAVELENGTH], errors="ignore")
    return _name_array(value) if isinstance(value, xr.DataArray) else value


def _name_array(value: xr.DataArray) -> xr.DataArray:
    return value.rename({cube.ARRAY: "element"}) if cube.ARRAY in value.dims else value


def check_equal(result: Any, expected: Any, edge_pixels: int = 0) -> None:
    """Check that a program's value is the value of the service, but for some pixels of a raster."""
    if isinstance(expected, xr.Dataset):
        assert isinstance(result, xr.Dataset), type(result)
        assert set(result.data_vars) == set(expected.data_vars)
        for name in expected.data_vars:
            check_cube(result[name], expected[name])
    elif isinstance(expected, xr.DataArray):
        assert isinstance(result, xr.DataArray), type(result)
        check_cube(result, expected, edge_pixels)
    else:
        check_json(result, expected)


def check_cube(result: xr.DataArray, expected: xr.DataArray, edge_pixels: int = 0) -> None:
    expected = _name_array(expected)
    assert set(result.dims) == set(expected.dims), (result.dims, expected.dims)
    result = result.transpose(*expected.dims)
    assert result.sizes == expected.sizes, (result.sizes, expected.sizes)
    for name in expected.dims:
        if name in expected.coords:
            check_labels(result.coords[name].values, expected.coords[name].values)
    a, b = result.values, cube.decode(expected).values
    if b.dtype.kind in "OUS" or a.dtype.kind in "OUS":
        same = (a == b) | ((a != a) & (b != b))
        assert np.all(same), (a, b)
        return
    same = np.isclose(a.astype(complex), b.astype(complex), rtol=1e-5, atol=1e-6, equal_nan=True)
    if {"y", "x"} <= set(expected.dims):
        rest = tuple(i for i, name in enumerate(expected.dims) if name not in ("y", "x"))
        if (~same).any(axis=rest).sum() <= edge_pixels:
            return
    assert same.all(), (f"{(~same).sum()} of {same.size} values differ", a[~same][:5], b[~same][:5])


def check_labels(result: np.ndarray, expected: np.ndarray) -> None:
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(result.astype(float), expected, rtol=1e-10)
    elif expected.dtype.kind == "O" and expected.size and hasattr(expected.flat[0], "geom_type"):
        assert all(a.equals_exact(b, 1e-9) for a, b in zip(result.flat, expected.flat, strict=True))
    else:
        np.testing.assert_array_equal(result, expected)


def check_json(result: Any, expected: Any) -> None:
    """Check JSON values, whatever types of numpy the program has."""
    if isinstance(result, np.generic):
        result = result.item()
    if isinstance(result, np.ndarray):
        result = result.tolist()
    if isinstance(expected, LabeledArray):
        assert isinstance(result, dict), result
        check_json(list(result), list(expected.labels))
        check_json(list(result.values()), list(expected.values))
    elif isinstance(expected, Mapping):
        assert result.keys() == expected.keys()
        for name in expected:
            check_json(result[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert isinstance(result, list | tuple), result
        assert len(result) == len(expected), (result, expected)
        for one, other in zip(result, expected, strict=True):
            check_json(one, other)
    elif isinstance(expected, bool) or expected is None or isinstance(expected, str):
        assert type(result) is type(expected), (result, expected)
        assert result == expected, (result, expected)
    else:
        assert isinstance(result, int | float), result
        assert not isinstance(result, bool)
        np.testing.assert_allclose(float(result), float(expected), rtol=1e-10, atol=1e-10)
