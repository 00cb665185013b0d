"""What the sandbox costs: user code on chunks, against the same function in process.

Run: python -m benchmarks.udf [interpreter of user code] [calls]

With scikit-image, onnxruntime and skl2onnx in this environment all functions are measured, else those that
there are libraries for; the interpreter of user code needs the first two, and is this one by default.

Each function is called as `run_udf` calls it for a chunk, with labels, and applied by `xarray.apply_ufunc`
to the same array in this process, in turns: the machine may be busy. CPU time counts both processes.
Libraries of linear algebra have one thread in both.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import psutil
import xarray as xr
from threadpoolctl import threadpool_limits

from odc_openeo.udf.calls import UdfCode, UdfSettings
from odc_openeo.udf.cube_messages import PlainCube
from odc_openeo.udf.functions import CubeSurroundings, UserFunction
from odc_openeo.udf.pool import pool
from odc_openeo.udf.user_logs import LogTarget

SHAPE: Final = (12, 512, 512)
DIMS: Final = ("t", "y", "x")
TARGET: Final = 1.15
"""How much longer functions other than the trivial one may take in the sandbox."""

TRIVIAL = "def apply(x):\n    return x + 1\n"
SMOOTH = """
from scipy.signal import savgol_filter

def apply(x):
    return savgol_filter(x, 5, 2, axis=0)
"""
FILTER = """
import numpy as np
from skimage.filters import gaussian

def apply(x):
    return np.stack([gaussian(image, 2) for image in x])
"""
MODEL = """
import base64
import functools

import numpy as np
import onnxruntime

@functools.lru_cache(maxsize=1)
def load_model():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(base64.b64decode("{model}"), options)

def apply(x):
    rows = np.ascontiguousarray(x.reshape(12, -1).T)
    (labels,) = load_model().run(["label"], {{"X": rows}})
    return labels.reshape(1, *x.shape[1:]).astype("float32")
"""
FUNCTION = """
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    return xarray.DataArray(apply(cube.values), dims=cube.dims)
"""


def make_model() -> bytes:
    """Train a small classifier of pixels with 12 values; return it as ONNX."""
    import skl2onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    values = np.random.default_rng(0).random((500, 12), dtype=np.float32)
    model = MLPClassifier((32, 16), max_iter=200, random_state=0).fit(
        values, (values.sum(1) * 2).astype(int) % 4
    )
    converted = skl2onnx.convert_sklearn(
        model, initial_types=[("X", FloatTensorType([None, 12]))], options={"zipmap": False}
    )
    return bytes(converted.SerializeToString())


def list_codes() -> dict[str, str]:
    """List the functions that this environment has libraries for."""
    codes = {"trivial": TRIVIAL, "Savitzky-Golay over t": SMOOTH}
    try:
        import skimage  # noqa: F401, PLC0415

        codes["scikit-image filter"] = FILTER
        import onnxruntime  # noqa: F401, PLC0415

        codes["small ONNX model"] = MODEL.format(model=base64.b64encode(make_model()).decode())
    except ImportError as error:
        print(f"left out: {error}")
    return codes


@dataclass
class Timings:
    """Seconds of calls, by the clock and of the processors."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, function: Callable[[], Any]) -> Any:
        """Call a function and keep what it took, with the processes of user code."""
        cpu, wall = count_cpu_seconds(), time.perf_counter()
        result = function()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(count_cpu_seconds() - cpu)
        return result


def count_cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children so far."""
    total = time.process_time()
    for child in psutil.Process().children():
        for task in Path(f"/proc/{child.pid}/task").glob("*/schedstat"):
            total += int(task.read_text().split()[0]) / 1e9
    return total


def compare(source: str, calls: int) -> tuple[Timings, Timings]:
    """Measure a function in process and in the sandbox, in turns; with the same results."""
    values = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    labels = {"t": np.arange(12).astype("datetime64[D]").astype("datetime64[ns]")}
    labels |= {name: np.arange(512.0) for name in ("y", "x")}
    cube, plain = xr.DataArray(values, dims=DIMS), PlainCube(values, DIMS, labels)
    types = {"t": "temporal", "y": "spatial", "x": "spatial"}
    about = CubeSurroundings(types, {"crs": "EPSG:32632"}, {"EPSG": 32632})
    function = make_function(source + FUNCTION)
    namespace: dict[str, Any] = {"__name__": "udf"}
    exec(source, namespace)
    core = {"input_core_dims": [DIMS], "output_core_dims": [DIMS], "exclude_dims": {"t"}}
    within, sandboxed = Timings(), Timings()
    for _ in range(calls + 1):
        expected = within.measure(lambda: xr.apply_ufunc(namespace["apply"], cube, **core))
        result = sandboxed.measure(lambda: function.run_on_cube(plain, about))
        np.testing.assert_allclose(result.values, expected.values, atol=1e-5)
        # As in a run of many chunks, no result is kept.
        del expected, result
    for timings in (within, sandboxed):
        del timings.wall[0], timings.cpu[0]
    return within, sandboxed


def make_function(source: str) -> UserFunction:
    """Make a function that logs to nowhere."""
    settings = UdfSettings(pythons=tuple(sys.argv[1:2]) or UdfSettings.pythons)
    return UserFunction(settings, "benchmark", UdfCode(source), {}, LogTarget("nowhere", ()))


def report(name: str, within: Timings, sandboxed: Timings) -> bool:
    """Print the figures of a function; return whether it costs no more than is allowed."""
    megabytes = np.prod(SHAPE) * 4 / 1e6
    ratios = []
    for text, choose in (("median", median), ("least", min)):
        before, after = choose(within.wall) * 1e3, choose(sandboxed.wall) * 1e3
        before_cpu, after_cpu = choose(within.cpu) * 1e3, choose(sandboxed.cpu) * 1e3
        ratios.append(after / before)
        print(
            f"{name:22s} {text:6s} in process {before:7.1f} ms, in the sandbox {after:7.1f} ms: "
            f"{after / before:5.2f} x, {(after - before) / megabytes:5.2f} ms more per MB; "
            f"CPU {before_cpu:7.1f} and {after_cpu:7.1f} ms: {after_cpu / max(before_cpu, 1e-9):5.2f} x"
        )
    return min(ratios) <= TARGET


def measure_calls() -> None:
    """Print what first calls and calls without work take."""
    small = PlainCube(np.zeros((2, 2), np.float32), ("y", "x"))
    about = CubeSurroundings({"y": "spatial", "x": "spatial"})
    source = "def apply(x):\n    return x\n" + FUNCTION
    names = ("first call, with tests of the sandbox", "first call of a second code", "and of a third one")
    for number, text in enumerate(names):
        function, timings = make_function(f"{source}# {number}\n"), Timings()
        timings.measure(partial(function.run_on_cube, small, about))
        print(f"{text}: {timings.wall[0]:.2f} s")
        time.sleep(5)
    timings = Timings()
    for _ in range(300):
        timings.measure(partial(function.run_on_cube, small, about))
    typical, least = (choose(timings.wall) * 1e6 for choose in (median, min))
    print(f"a call without work: median {typical:.0f} µs, least {least:.0f} µs")


def main() -> int:
    """Compare all functions; first what calls without work cost."""
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    measure_calls()
    codes = list_codes()
    with threadpool_limits(1):
        good = {name: report(name, *compare(code, calls)) for name, code in codes.items()}
    pool.stop()
    return 0 if all(fine for name, fine in good.items() if name != "trivial") else 1


if __name__ == "__main__":
    sys.exit(main())
