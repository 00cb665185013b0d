"""Jobs in parts: the time to plan a national median NDVI, and what splitting costs where the whole fits.

Pixels are made instead of read, with the same plan and the same tasks: 60 tiles of 100 km in two zones,
100 dates.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from typing import Any

import dask
import numpy as np
import psutil

import odc_openeo.processes  # noqa: F401  (registers the processes)
from benchmarks.made_scenes import MadeCatalog, make_pixels
from odc_openeo.graph import evaluate
from odc_openeo.parts import JobSplit, PartLimits, combine_parts, evaluate_part, plan_parts
from odc_openeo.parts.measure import measure_value
from odc_openeo.registry.environment import Environment

DATA = {"from_parameter": "data"}


def make_process(extent: Any = None, dates: Any = None) -> dict[str, Any]:
    """Make the graph: NDVI where there is no cloud, its median over time."""
    nodes: dict[str, Any] = {
        "load": {
            "process_id": "load_collection",
            "arguments": {
                "id": "made",
                "spatial_extent": extent,
                "temporal_extent": dates,
                "bands": ["B04", "B08"],
            },
        },
        "ndvi": {
            "process_id": "ndvi",
            "arguments": {"data": {"from_node": "load"}, "red": "B04", "nir": "B08"},
        },
        "median": {
            "process_id": "reduce_dimension",
            "arguments": {
                "data": {"from_node": "ndvi"},
                "dimension": "t",
                "reducer": {
                    "process_graph": {
                        "m": {"process_id": "median", "arguments": {"data": DATA}, "result": True}
                    }
                },
            },
        },
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "median"}, "format": "GTiff"},
            "result": True,
        },
    }
    return {"process_graph": nodes}


def measure_planning(tiles: tuple[int, int], dates: int) -> None:
    """Print what planning and evaluating some parts of a large job takes."""
    env = Environment(MadeCatalog(*tiles, dates))
    process = make_process()
    before = _measure_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    split = plan_parts(process, env, PartLimits())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows, columns = (split.template.sizes[d] for d in ("y", "x"))
    size = f"{rows:,} x {columns:,} pixels, {split.input_bytes / 2**40:.1f} TiB"
    print(f"\n{tiles[0] * tiles[1]} tiles, {dates} dates: {size}")
    print(
        f"plan: {wall:.1f} s, CPU {cpu:.1f} s; {split.kind}, {len(split.parts)} parts; {split.reason or ''}"
    )
    print(
        f"tasks: {split.tasks:,} in all, estimated {max(p.tasks for p in split.parts):,} in the largest part"
    )
    print(f"memory of this process: {before:.0f} MB before, {_measure_memory():.0f} MB after planning")
    if not split.is_whole:
        _measure_some(process, env, split)


def _measure_some(process: dict[str, Any], env: Environment, split: JobSplit) -> None:
    some = split.parts[:: max(1, len(split.parts) // 8)]
    tasks, seconds = [], []
    for part in some:
        begin = time.perf_counter()
        _, outputs = evaluate_part(process, env, split, part)
        seconds.append(time.perf_counter() - begin)
        tasks.append(measure_value(outputs[0].data).tasks)
        outputs.clear()
    print(f"{len(some)} parts evaluated: largest {max(tasks):,} tasks, {statistics.median(seconds):.1f} s")
    print(f"memory of this process: {_measure_memory():.0f} MB after them")


def measure_overhead(pixels: int, dates: int, rounds: int) -> None:
    """Print the time of a job in four parts as a multiple of that of the whole."""
    env = Environment(MadeCatalog(1, 1, dates, pixels))
    process = make_process()
    limits = PartLimits(side=pixels // 2 // 512 * 512)
    whole_times, part_times = [], []
    with dask.config.set(scheduler="threads", num_workers=2):
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            evaluate(process, own := Environment(env.catalog))
            (whole,) = dask.compute(own.outputs[0].data)
            whole_times.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            split = plan_parts(process, env, limits)
            values = []
            for part in split.parts:
                _, outputs = evaluate_part(process, env, split, part)
                values += dask.compute(outputs[0].data)
            part_times.append(time.perf_counter() - begin)
    np.testing.assert_array_equal(combine_parts(split, values).values, whole.values)
    one, many = (statistics.median(times[1:]) for times in (whole_times, part_times))
    print(f"\n{pixels} x {pixels} pixels, {dates} dates, {len(split.parts)} parts, equal to the whole")
    print(f"whole {one:.2f} s, parts with planning {many:.2f} s: ratio {many / one:.2f}")


def _measure_memory() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs=2, default=(10, 6), help="tiles across and down")
    parser.add_argument("--dates", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=8192, help="side of the job that fits")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with make_pixels():
        measure_planning(tuple(options.tiles), options.dates)
        measure_overhead(options.pixels, 10, options.rounds)


if __name__ == "__main__":
    main()
