"""A service with a few scenes of 1536 x 1024 pixels, whose jobs run in parts or, by other settings, whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psutil
import rasterio

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo import jobs
from odc_openeo.config import Config, child_environment
from odc_openeo.formats import write_outputs
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.jobs import Job, JobDraft
from odc_openeo.jobs.part_progress import find_parts_progress
from odc_openeo.jobs.results import find_results
from odc_openeo.stack import postgres
from odc_openeo.storage import get_storage
from odc_openeo.user_data.run_environment import make_environment
from tests.catalog.scenes import PRODUCT, Grid, Index, document, product

PRODUCT_NAME = "wide"
TORN = "torn"
"""A product with one scene, in a file of which a tile cannot be read."""
GRID = Grid(600000, 5200000, 10, (1024, 1536))
TIMES = ("2022-06-01T10:00:00Z", "2022-06-11T10:00:00Z", "2022-06-21T10:00:00Z")
TORN_SHAPE = (1024, 6144)
PART_BYTES = 17 * 2**19
"""So that a job over all pixels of all dates has six parts, and one over the torn scene three."""


def make_pixels(seed: int, shape: tuple[int, int] = GRID.shape) -> np.ndarray:
    """Smooth values with a hole of no-data, which compress well."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    values = (rows * (seed + 1) + columns * 2 + 10 * seed) % 4000 + 1
    values[100 * seed : 100 * seed + 300, 400:900] = 0
    return values.astype("uint16")


def add_scenes(index: Index, folder: Path, shape: tuple[int, int] = GRID.shape) -> None:
    """Make the product and index a scene for each date."""
    measurements = [m for m in PRODUCT["measurements"] if m["name"] in ("B04", "B08")]
    for name in (PRODUCT_NAME, TORN):
        index.add_product(product(name, measurements=measurements))
    for seed, date in enumerate(TIMES):
        add_scene(index, folder / f"scene-{seed}", PRODUCT_NAME, seed, date, shape)
    add_scene(index, folder / "torn", TORN, 0, TIMES[0], TORN_SHAPE)
    tear_tile(folder / "torn" / "B08.tif", 5, 1)


def add_scene(index: Index, path: Path, name: str, seed: int, date: str, shape: tuple[int, int]) -> None:
    """Write a scene and add it to a product."""
    path.mkdir(parents=True)
    for number, band in enumerate(("B04", "B08")):
        write_band(path / f"{band}.tif", make_pixels(seed + number, shape))
    files = {band: {"path": f"{band}.tif", "grid": "default"} for band in ("B04", "B08")}
    index.add(document(path, files, {"default": replace(GRID, shape=shape)}, name, date))


def tear_tile(path: Path, column: int, row: int) -> None:
    """Overwrite a tile of a file with bytes that cannot be decoded."""
    with rasterio.open(path) as file:
        offset, size = (
            int(file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1))
            for what in ("OFFSET", "SIZE")
        )
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)


def write_band(path: Path, values: np.ndarray) -> None:
    """Write a tiled GeoTIFF of one band."""
    profile = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    place = {"transform": GRID.transform, "crs": f"EPSG:{GRID.epsg}", "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", **profile, **tiles, **place) as file:
        file.write(values, 1)


def node(process: str, *, result: bool = False, **arguments: Any) -> dict[str, Any]:
    """A node of a process graph."""
    return {"process_id": process, "arguments": arguments, **({"result": True} if result else {})}


def load(**arguments: Any) -> dict[str, Any]:
    """A node that loads all pixels of all dates."""
    extents = {"spatial_extent": None, "temporal_extent": None, "bands": ["B04", "B08"]}
    return node("load_collection", **{"id": PRODUCT_NAME, **extents, **arguments})


def reduce_graph(format_: str, options: Mapping[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """The maximum over time, saved in a format."""
    reducer = {"process_graph": {"max": node("max", data={"from_parameter": "data"}, result=True)}}
    saved = {"data": {"from_node": "max"}, "format": format_, "options": dict(options or {})}
    return {
        "load": load(),
        "max": node("reduce_dimension", data={"from_node": "load"}, dimension="t", reducer=reducer),
        "save": node("save_result", result=True, **saved),
        **extra,
    }


@dataclass
class Worker:
    """A worker in a process of its own."""

    process: subprocess.Popen[bytes]
    output: Path

    def wait_until_ready(self, seconds: float = 240) -> None:
        """Wait until the worker looks for jobs."""
        deadline = time.monotonic() + seconds
        while "is waiting for jobs" not in self.output.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def wait_until_idle(self, seconds: float = 240) -> None:
        """Wait until the worker has no process of a job or part any more."""
        deadline = time.monotonic() + seconds
        while any(child.children() for child in psutil.Process(self.process.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and all that it has started."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End the worker and all that it has started as if the machine was switched off."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(120)

    def stop(self) -> None:
        """End the worker as an operator does."""
        self.process.terminate()
        self.process.wait(120)


@dataclass
class PartsSite:
    """The service: ``config`` splits jobs in parts, ``whole`` does not."""

    config: Config
    user: UUID
    folder: Path
    environment: Mapping[str, str]
    shape: tuple[int, int] = GRID.shape
    servers: list[postgres.Postgres] = field(default_factory=list)

    def start_worker(self, *options: str, config: Config | None = None, cpu: int | None = None) -> Worker:
        """Start a worker in a process of its own, on one CPU if that is given."""
        pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
        command = [*pinned, sys.executable, "-m", "odc_openeo.cli", "worker", *options]
        output = self.folder / f"worker-{uuid4().hex}.log"
        with output.open("w") as file:
            environment = child_environment(config or self.config, **self.environment)
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        return Worker(process, output)

    def start_machine(self, number: int, *options: str, cpu: int | None = None) -> Worker:
        """Start a worker with a data folder of its own, as on a machine of its own."""
        config = self.config.model_copy(update={"data_dir": self.folder / f"machine-{number}"})
        return self.start_worker(*options, config=config, cpu=cpu)

    def write_whole(self, graph: Mapping[str, Any], folder: Path) -> dict[str, Path]:
        """Write what a job that runs whole does, in this process; the files by name."""
        env = make_environment(self.config, self.user, exports=[])
        value = evaluate({"process_graph": graph}, env, limits=GraphLimits.from_config(self.config))
        folder.mkdir(parents=True)
        return {asset.path.name: asset.path for asset in write_outputs(value, env.outputs, folder)}

    def submit(self, graph: Mapping[str, Any], **options: Any) -> str:
        """Create and start a job with job options; its id."""
        extras = {"job_options": options} if options else {}
        id_ = str(jobs.create_job(self.config, self.user, JobDraft({"process_graph": graph}, extras=extras)))
        jobs.start_job(self.config, self.user, id_)
        return id_

    def get_job(self, id_: str) -> Job:
        """The job as it is now."""
        return jobs.get_job(self.config, self.user, id_)

    def list_messages(self, id_: str) -> list[str]:
        """The log of a job."""
        return [f"{e.level}: {e.message}" for e in jobs.list_logs(self.config, self.get_job(id_)).items]

    def wait(self, id_: str, *states: str, seconds: float = 180) -> Job:
        """Wait until the job is in one of the states."""
        deadline = time.monotonic() + seconds
        while (job := self.get_job(id_)).status not in states:
            assert time.monotonic() < deadline, (job.status, self.list_messages(id_))
            time.sleep(0.05)
        return job

    def wait_for_parts(self, id_: str, count: int, seconds: float = 240) -> None:
        """Wait until so many parts are done."""
        deadline = time.monotonic() + seconds
        while True:
            progress = find_parts_progress(self.config, UUID(id_))
            if progress is not None and progress.done >= count:
                return
            assert time.monotonic() < deadline, self.list_messages(id_)
            time.sleep(0.02)

    def fetch_files(self, id_: str, target: Path) -> dict[str, Path]:
        """Copy the result files of a job into a folder, as a client downloads them; by name."""
        results = find_results(self.config, self.get_job(id_))
        assert results is not None
        store = get_storage(self.config)
        target.mkdir(parents=True, exist_ok=True)
        files = {}
        for asset in results.data:
            source = store.find_local_path(f"{results.folder}/{asset.get('path', asset['name'])}")
            assert source is not None
            files[asset["name"]] = target / asset["name"]
            if source.is_dir():
                files[asset["name"]].symlink_to(source)
            else:
                files[asset["name"]].write_bytes(source.read_bytes())
        return files


def compute_expected(dates: int = len(TIMES), shape: tuple[int, int] = GRID.shape) -> np.ndarray:
    """The maximum over the first dates of both bands, (band, y, x), with 0 as no-data."""
    return np.stack([np.max([make_pixels(s + b, shape) for s in range(dates)], axis=0) for b in range(2)])
