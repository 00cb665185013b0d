"""What the sandbox costs: user code on chunks, against the same function in process.

Run: python -m benchmarks.udf [interpreter with scipy, scikit-image, onnxruntime] [calls]

The same function is applied by `xarray.apply_ufunc` in this process if it has the libraries, else within one
call in the sandbox, whose time without the passage of arrays counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import xarray as xr

from odc_openeo.udf.calls import UdfCode, UdfSettings, call_udf

SHAPE = (12, 512, 512)
CODES = {
    "trivial": "def apply(x):\n    return x + 1\n",
    "Savitzky-Golay over t": (
        "from scipy.signal import savgol_filter\n"
        "def apply(x):\n    return savgol_filter(x, 5, 2, axis=0).astype('float32')\n"
    ),
    "scikit-image filter": (
        "import numpy as np\nfrom skimage.filters import gaussian\n"
        "def apply(x):\n    return np.stack([gaussian(image, 2) for image in x]).astype('float32')\n"
    ),
}
CALL = """
import time
def call(header, arrays):
    start = time.perf_counter()
    results = [apply(array) for array in arrays]
    return {"seconds": time.perf_counter() - start}, results
"""


def measure(function: Callable[[], object], calls: int) -> float:
    """Return the median seconds of a call, after a first one."""
    function()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def compare(name: str, source: str, settings: UdfSettings, calls: int) -> None:
    """Print what a function takes in process and in the sandbox."""
    values = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    cube = xr.DataArray(values, dims=("t", "y", "x"))
    code = UdfCode(source + CALL, style="plain")
    inside: list[float] = []

    def in_sandbox() -> None:
        reply = call_udf(settings, "benchmark", code, {}, [values])
        inside.append(reply.header["seconds"])

    sandboxed = measure(in_sandbox, calls)
    namespace: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    try:
        exec(source, namespace)
        plain = measure(lambda: xr.apply_ufunc(namespace["apply"], cube), calls)
        how = "in process"
    except ImportError:
        plain, how = median(inside), "the function alone"
    cost = sandboxed - plain
    print(
        f"{name:24s} {how} {plain * 1e3:8.1f} ms, in the sandbox {sandboxed * 1e3:8.1f} ms, "
        f"{sandboxed / plain:5.2f} x, {cost * 1e3:6.1f} ms more per call, "
        f"{cost * 1e3 / (values.nbytes / 1e6):5.2f} ms more per MB"
    )


def main() -> None:
    """Compare all functions; first what a call without work costs."""
    settings = UdfSettings(pythons=(sys.argv[1],)) if len(sys.argv) > 1 else UdfSettings()
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    small, code = np.zeros(10), UdfCode("def apply(x):\n    return x\n" + CALL, style="plain")
    start = time.perf_counter()
    call_udf(settings, "benchmark", code, {}, [small])
    print(f"first call, with tests of the sandbox: {time.perf_counter() - start:.2f} s")
    per_call = measure(lambda: call_udf(settings, "benchmark", code, {}, [small]), 500)
    print(f"a call without work: {per_call * 1e6:.0f} µs")
    for name, source in CODES.items():
        compare(name, source, settings, calls)


if __name__ == "__main__":
    main()
