"""Batch jobs over four times the memory of the dask workers: do they finish, and how much memory is used?

Two workers with 1 GB and one thread each; scenes with 8 GB of pixels, whose files are small as they repeat a
pattern. The resident memory of every process of the stack is sampled continuously.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import openeo
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import scenes
from benchmarks.running import index_documents
from odc_openeo.config import Config
from odc_openeo.indexing.cog import write_cog
from odc_openeo.indexing.documents import Dataset, Measurement
from odc_openeo.stack.embedded import Stack, free_port

WORKERS, LIMIT = 2, "1GB"
SIZE, DATES = 8192, 15
GRID = scenes.make_square(32632, 680000, 5160000, SIZE)
SAMPLE_SECONDS = 0.1


def make_files(folder: Path) -> list[Path]:
    """Make the datasets of all dates, which share the files of the first one."""
    folder.mkdir()
    rows, columns = np.mgrid[0:512, 0:512]
    for number, name in enumerate(scenes.FINE):
        pattern = (1000 + 500 * number + rows + columns % 128).astype("uint16")
        repeated = np.tile(pattern, (SIZE // 512, SIZE // 512))
        write_cog(folder / f"{name}.tif", repeated, GRID, 0, averaged=True, title=name)
    scl = GRID.zoom_out(2)
    classes = np.full(scl.shape.yx, 4, "uint8")
    write_cog(folder / "SCL.tif", classes, scl, 0, averaged=False, title="SCL")
    return [_write_document(folder, scenes.FIRST + timedelta(days=5 * n)) for n in range(DATES)]


def _write_document(folder: Path, when: datetime) -> Path:
    target = folder / f"{when.astimezone(UTC):%Y-%m-%d}"
    target.mkdir()
    for name in (*scenes.FINE, "SCL"):
        os.link(folder / f"{name}.tif", target / f"{name}.tif")
    grids = {**dict.fromkeys(scenes.FINE, GRID), "SCL": GRID.zoom_out(2)}
    measurements = {name: Measurement(f"{name}.tif", grid) for name, grid in grids.items()}
    dataset = Dataset(
        scenes.BOX.product, f"MEMORY_{when:%Y%m%d}", when, measurements, {"eo:platform": "none"}
    )
    return dataset.write(target / "dataset.odc-metadata.yaml")


@contextmanager
def watch_memory(stack: Stack) -> Iterator[dict[str, int]]:
    """Track the largest resident memory of a process of each kind while the block runs."""
    peaks: defaultdict[str, int] = defaultdict(int)
    done = threading.Event()

    def sample_memory() -> None:
        while not done.wait(SAMPLE_SECONDS):
            for part in stack.parts:
                for kind, process in _iterate_processes(part.name, part.process.pid):
                    try:
                        peaks[kind] = max(peaks[kind], process.memory_info().rss)
                    except psutil.Error:
                        continue

    thread = threading.Thread(target=sample_memory)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _iterate_processes(name: str, pid: int) -> Iterator[tuple[str, psutil.Process]]:
    kind = "job process" if name.startswith("job worker") else "dask worker" if "dask w" in name else name
    try:
        process = psutil.Process(pid)
        yield kind, process
        for child in process.children(recursive=True):
            yield kind, child
    except psutil.Error:
        return


def list_cubes(connection: openeo.Connection) -> dict[str, openeo.DataCube]:
    """The computed cubes by title, each over all pixels."""
    west, south, east, north = GRID.boundingbox.bbox
    extent = {"west": west, "south": south, "east": east, "north": north, "crs": str(GRID.crs)}
    cube = connection.load_collection(
        scenes.BOX.product, extent, ["2022-05-01", "2022-12-01"], list(scenes.FINE), fetch_metadata=False
    )
    red, nir = cube.band("B04"), cube.band("B08")
    return {
        "median of all dates → COG": cube.reduce_dimension("t", "median").save_result("GTiff"),
        "mean NDVI of all dates → COG": ((nir - red) / (nir + red)).mean_time().save_result("GTiff"),
        "every pixel of every date → Zarr": cube.save_result("Zarr"),
    }


def run_job(stack: Stack, title: str, cube: openeo.DataCube, table: Table) -> None:
    """Run one job and add a row to the table."""
    job = cube.create_job(title=title)
    read = job.estimate()["input_size"]
    began = time.perf_counter()
    with watch_memory(stack) as peaks:
        job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    seconds = time.perf_counter() - began
    description = job.describe()
    stored = description["usage"]["storage"]["value"]
    held = [peaks["dask worker"], peaks["job process"], peaks["dask scheduler"]]
    cpu = description["usage"]["cpu"]["value"]
    figures = [f"{read / 1e9:.2f}", f"{stored / 1e9:.2f}", f"{seconds:.0f}", f"{cpu:.0f}"]
    table.add_row(title, *figures, *(f"{peak / 1e6:.0f}" for peak in held))
    job.delete()


def main() -> None:
    """Measure and print."""
    table = Table(f"batch jobs on {WORKERS} dask workers of {LIMIT}")
    for column in ("read GB", "stored GB", "seconds", "CPU s", "worker MB", "job MB", "scheduler MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        documents = make_files(folder / "scenes")
        config = Config(
            data_dir=folder / "data",
            port=free_port(),
            workers=WORKERS,
            threads_per_worker=1,
            worker_memory=LIMIT,
            job_workers=1,
            gunicorn_workers=1,
        )
        with Stack(config, samples=False, say=lambda text: None) as stack:
            index_documents(stack, [scenes.BOX.write_definition(folder)], documents)
            connection = openeo.connect(stack.url).authenticate_basic("demo", "demo")
            for title, cube in list_cubes(connection).items():
                run_job(stack, title, cube, table)
    Console(width=120).print(table, "MB: the largest resident memory of one such process")


if __name__ == "__main__":
    main()
