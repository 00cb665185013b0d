"""One job in parts on one "machine" and on two: `python -m benchmarks.parts_machines`; prints the ratio.

A machine is a worker (`odc-openeo worker --parts`) on one CPU, with a data folder of its own; machines share
the database and the storage only.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from odc_openeo import db
from tests.parts.jobs.machines import open_site
from tests.parts.jobs.site import PartsSite, Worker, compute_expected, reduce_graph


def start_machine(site: PartsSite, number: int) -> Worker:
    """Start a worker with a folder of its own."""
    config = site.config.model_copy(update={"data_dir": site.folder / f"machine-{number}"})
    return site.start_worker("--parts", config=config, cpu=number)


def measure_job(site: PartsSite, machines: int) -> float:
    """Run a job; the seconds from its start to its end. The workers wait for it already."""
    workers = [start_machine(site, number) for number in range(machines)]
    try:
        for worker in workers:
            worker.wait_until_ready()
        start = time.monotonic()
        id_ = site.submit(reduce_graph("GTiff"))
        job = site.wait(id_, "finished", "error", seconds=600)
        seconds = time.monotonic() - start
        assert job.status == "finished", site.list_messages(id_)
        files = site.fetch_files(id_, Path(tempfile.mkdtemp(dir=site.folder)))
        with rasterio.open(files["result.vrt"]) as file:
            np.testing.assert_array_equal(file.read(), compute_expected(shape=site.shape))
        return seconds
    finally:
        for worker in workers:
            worker.kill()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="odc-openeo-machines-"))
    folder.chmod(0o711)
    try:
        with open_site(folder, (given.rows, given.columns), storage_url=str(folder / "store")) as site:
            seconds = [measure_job(site, machines) for machines in (1, 2)]
            db.dispose_engine(site.config)
        print(f"one machine {seconds[0]:.1f} s, two machines {seconds[1]:.1f} s, ", end="")
        print(f"ratio {seconds[1] / seconds[0]:.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
