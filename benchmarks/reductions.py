"""Peak memory of each reduction over a cube of 40 times its chunk size: ``python -m benchmarks.reductions``.

Each reduction runs in a separate process, once on one thread and once on two; the peak is the growth of the
resident set since the graph was ready. Chunks contain random numbers. Reductions that work chunk by chunk get
40 dates of one area; those that need all values of a pixel at once, and so a column of chunks, get 5 dates of
8 areas.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from typing import Any, Final

CHUNK_MB: Final = 16
CHUNKS: Final = 40
THREADS: Final = (1, 2)
REDUCERS: Final = (
    "min", "max", "sum", "product", "mean", "sd", "variance", "count", "first", "last",
)  # fmt: skip
WHOLE: Final = ("median", "quantiles", "sort", "order", "array_interpolate_linear")
SERIES: Final = ("cumsum", *WHOLE[2:])


def make_graph(process_id: str) -> dict[str, Any]:
    """Make a graph that applies the process along time, then averages the area, for a small result."""
    options = {"probabilities": [0.5]} if process_id == "quantiles" else {}
    data = {"from_parameter": "data"}
    inner = {"it": {"process_id": process_id, "arguments": {"data": data, **options}, "result": True}}
    if process_id == "quantiles":
        only = {"data": {"from_node": "it"}, "index": 0}
        inner["it"].pop("result")
        inner["one"] = {"process_id": "array_element", "arguments": only, "result": True}
    outer, name = ("apply_dimension", "process") if process_id in SERIES else ("reduce_dimension", "reducer")
    arguments = {"data": {"from_parameter": "cube"}, "dimension": "t", name: {"process_graph": inner}}
    mean = {"it": {"process_id": "mean", "arguments": {"data": data}, "result": True}}
    return {
        "process_graph": {
            "reduced": {"process_id": outer, "arguments": arguments},
            "mean": {
                "process_id": "reduce_spatial",
                "arguments": {"data": {"from_node": "reduced"}, "reducer": {"process_graph": mean}},
                "result": True,
            },
        }
    }


def measure_reduction(process_id: str, threads: int) -> tuple[float, float]:
    """Measure the peak memory in chunks and the seconds of one reduction, in this process."""
    import dask
    import dask.array as da
    import numpy as np
    import psutil
    import xarray as xr

    import odc_openeo.processes  # noqa: F401  (registers the processes)
    from odc_openeo.graph import evaluate

    side = 1448  # a chunk of 1448² float64 has 16 MB
    dates, areas = (5, 8) if process_id in WHOLE else (40, 1)
    shape, chunks = (dates, side, areas * side), (1, side, side)
    data = da.random.default_rng(1).random(shape, chunks=chunks)
    times = np.datetime64("2022-01-01", "ns") + np.arange(shape[0]) * np.timedelta64(1, "D")
    cube = xr.DataArray(data, dims=("t", "y", "x"), coords={"t": times})
    result = evaluate(make_graph(process_id), parameters={"cube": cube})
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch_memory() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    before, start = process.memory_info().rss, time.perf_counter()
    watcher = threading.Thread(target=watch_memory)
    watcher.start()
    with dask.config.set(scheduler="threads", num_workers=threads):
        result.compute()
    done.set()
    watcher.join()
    return (peak[0] - before) / (CHUNK_MB * 2**20), time.perf_counter() - start


def measure_apart(process_id: str, threads: int) -> tuple[float, float]:
    """Measure a reduction in a separate process."""
    # Freed chunks return to the system at once, so that the resident set equals the memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, "-m", "benchmarks.reductions", process_id, "--threads", str(threads)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    chunks, seconds = map(float, printed.split())
    return chunks, seconds


def main() -> None:
    """Measure all reductions, each in a separate process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="?", help="one reduction, in this process")
    parser.add_argument("--threads", type=int, default=1, help="threads of the one reduction")
    options = parser.parse_args()
    if options.only:
        print(*measure_reduction(options.only, options.threads))
        return
    print(f"cube of {CHUNKS} chunks of {CHUNK_MB} MB")
    print(f"{'process':26}{'threads':>8}{'peak in chunks':>16}{'seconds':>10}")
    for process_id in (*REDUCERS, "cumsum", *WHOLE):
        for threads in THREADS:
            chunks, seconds = measure_apart(process_id, threads)
            print(f"{process_id:26}{threads:8}{chunks:16.1f}{seconds:10.1f}", flush=True)


if __name__ == "__main__":
    main()
