"""A job in parts over 16 times the memory of the dask workers, from real files.

A median NDVI of 64 dates of 8192 x 8192 pixels in two bands: 17.2 GB of pixels in compressed COGs of their
own, on two workers of 512 MB. Prints the parts, their tasks, and the largest resident memory of each kind of
process in each third of the run; samples of the result are compared with numpy, straight from the files.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
import openeo
import rasterio
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table

from benchmarks import scenes
from benchmarks.memory import watch_memory
from benchmarks.running import index_documents
from odc_openeo.config import Config
from odc_openeo.jobs.part_progress import list_parts
from odc_openeo.stack.embedded import Stack, free_port

WORKERS, LIMIT_MB = 2, 512
SAMPLE, SAMPLES = 96, 24
BANDS = {"B04": "uint16", "B08": "uint16"}


def draw_waves(number: int, band: str, shape: tuple[int, int]) -> np.ndarray:
    """Slopes with another phase at each date, some noise that compresses well, holes of no-data."""
    rows, columns = (np.arange(size, dtype="uint16") for size in shape)
    place = sum(map(ord, band)) % 7
    values = (rows[:, None] * np.uint16(place + 1) + columns[None, :] * np.uint16(3)) % np.uint16(1999)
    noise = np.random.default_rng([number, place]).integers(0, 4, (64, shape[1]), "uint16")
    values += np.tile(noise, (shape[0] // 64, 1)) + np.uint16(300 + 61 * (number * 37 % 64))
    holes = (np.sin(rows[:, None] / 310 + number) * np.cos(columns[None, :] / 270 - number)) > 0.7
    values[holes] = 0
    return values


def make_scenes(size: int, dates: int) -> scenes.Scenes:
    """Describe the scenes: one grid, as many files as bands and dates."""
    grid = scenes.make_square(32632, 600000, 5300000, size)
    return scenes.Scenes("bench_parts", grid, dates, BANDS, draw_waves, days=3)


def make_cube(connection: openeo.Connection, made: scenes.Scenes) -> openeo.DataCube:
    """The median NDVI over all dates, as COGs."""
    west, south, east, north = made.grid.boundingbox.bbox
    extent = {"west": west, "south": south, "east": east, "north": north, "crs": str(made.grid.crs)}
    cube = connection.load_collection(
        made.product, extent, ["2022-01-01", "2024-01-01"], list(BANDS), fetch_metadata=False
    )
    red, nir = cube.band("B04"), cube.band("B08")
    return ((nir - red) / (nir + red)).reduce_dimension("t", "median").save_result("GTiff")


def run_job(stack: Stack, cube: openeo.DataCube) -> tuple[openeo.BatchJob, float, list[dict[str, int]]]:
    """Run the job; return it, its seconds, and the peaks of memory in each third of its parts."""
    job = cube.create_job(title="median NDVI")
    began, peaks = time.perf_counter(), []
    job.start()
    for third in (33, 66, 100):
        with watch_memory(stack) as held:
            while (described := job.describe())["status"] in ("queued", "running"):
                if described.get("progress", 0) >= third:
                    break
                time.sleep(0.5)
        peaks.append(dict(held))
    while job.status() in ("queued", "running"):
        time.sleep(0.2)
    assert job.status() == "finished", job.logs()
    return job, time.perf_counter() - began, peaks


def compare_samples(result: str, made: scenes.Scenes, cache: Path) -> float:
    """Return the largest difference of samples of the result from numpy, which reads the files itself."""
    dice, worst = np.random.default_rng(7), 0.0
    size = made.grid.shape.x
    with rasterio.open(result) as file:
        for _ in range(SAMPLES):
            column, row = (int(v) for v in dice.integers(0, size - SAMPLE, 2))
            window = Window(column, row, SAMPLE, SAMPLE)
            expected = compute_sample(made, cache, window)
            pixels = file.read(1, window=window)
            missing = np.isnan(expected)
            np.testing.assert_array_equal(np.isnan(pixels), missing)
            worst = max(worst, float(np.abs(pixels - expected)[~missing].max(initial=0)))
    return worst


def compute_sample(made: scenes.Scenes, cache: Path, window: Window) -> np.ndarray:
    """Compute the median NDVI of a window with rasterio and numpy."""
    layers = []
    for number in range(made.dates):
        red, nir = (_read_band(made.get_band_file(cache, number, band), window) for band in BANDS)
        layers.append((nir - red) / (nir + red))
    with np.errstate(all="ignore"):
        return np.nanmedian(layers, axis=0)


def _read_band(path: Path, window: Window) -> np.ndarray:
    with rasterio.open(path) as file:
        values = file.read(1, window=window).astype("float64")
    return np.where(values == 0, np.nan, values)


def run_benchmark(folder: Path, size: int, dates: int, limit_mb: int, part_bytes: int) -> None:
    """Make the files, run the job and print."""
    made, cache = make_scenes(size, dates), folder / "scenes"
    cache.mkdir()
    documents = made.write_scenes(cache)
    stored = sum(path.stat().st_size for path in cache.rglob("*.tif"))
    config = Config(
        data_dir=folder / "data",
        port=free_port(),
        workers=WORKERS,
        threads_per_worker=1,
        worker_memory=f"{limit_mb}MB",
        job_workers=1,
        gunicorn_workers=1,
        part_bytes=part_bytes,
    )
    with Stack(config, samples=False, say=lambda text: None) as stack:
        index_documents(stack, [made.write_definition(cache)], documents)
        connection = openeo.connect(stack.url).authenticate_basic("demo", "demo")
        job, seconds, peaks = run_job(stack, make_cube(connection, made))
        read = job.estimate()["input_size"]
        parts = [json.loads(text)["tasks"] for text in list_parts(stack.config, UUID(job.job_id)).values()]
        job.get_results().download_files(folder / "results")
    worst = compare_samples(str(folder / "results" / "result.vrt"), made, cache)
    memory = f"{WORKERS} workers of {limit_mb} MB, {read / 1e6 / WORKERS / limit_mb:.1f} times their memory"
    pixels = f"{read / 1e9:.1f} GB of pixels ({stored / 1e9:.1f} GB in {2 * dates} files)"
    print(f"{pixels} on {memory}; {seconds:.0f} s")
    print(f"{len(parts)} parts, {sum(parts):,} tasks, {max(parts):,} in the largest part; ", end="")
    print(f"{SAMPLES} samples of {SAMPLE} x {SAMPLE} pixels differ from numpy by {worst:.1e} at most")
    print_memory(peaks)


def print_memory(peaks: Sequence[Mapping[str, int]]) -> None:
    """Print the largest resident memory of a process of each kind, in each third of the parts."""
    load = "load " + " ".join(f"{value:.1f}" for value in os.getloadavg())
    table = Table("MB", "first third", "second third", "last third", title=load)
    for kind in sorted(set().union(*peaks)):
        table.add_row(kind, *(f"{held.get(kind, 0) / 1e6:.0f}" for held in peaks))
    Console(width=100).print(table)


def main() -> None:
    """Measure and print; what it makes is removed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192, help="rows and columns")
    parser.add_argument("--dates", type=int, default=64)
    parser.add_argument("--limit", type=int, default=LIMIT_MB, help="memory of a worker in MB")
    parser.add_argument("--part-bytes", type=int, default=2**30, help="most bytes that a part reads")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        Path(name).chmod(0o711)
        run_benchmark(Path(name), given.size, given.dates, given.limit, given.part_bytes)


if __name__ == "__main__":
    main()
