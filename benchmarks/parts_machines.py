"""One job in parts on one "machine" and on two: `python -m benchmarks.parts_machines`; prints the ratio.

A machine is a worker (`odc-openeo worker --parts`) on one CPU, with a data folder of its own; machines share
the database and the storage only. Planning and completing the results are the work of one machine, so that
the ratio of the parts alone is printed, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from sqlalchemy import func, select

from odc_openeo import db
from odc_openeo.jobs import Job
from tests.parts.jobs.machines import open_site
from tests.parts.jobs.site import PartsSite, compute_expected, reduce_graph


@dataclass(frozen=True)
class JobTimes:
    """Seconds: of the whole job, until it is planned, until its parts are done, the CPU of all its runs."""

    total: float
    planned: float
    parts: float
    cpu: float

    def describe_times(self) -> str:
        """Return the figures as text."""
        rest = self.total - self.planned - self.parts
        stages = f"plan {self.planned:.1f}, parts {self.parts:.1f}, results {rest:.1f}"
        return f"{self.total:.1f} s ({stages}; CPU {self.cpu:.0f})"


def measure_job(site: PartsSite, machines: int) -> JobTimes:
    """Run a job, for which workers wait already."""
    workers = [site.start_machine(number, "--parts", cpu=number) for number in range(machines)]
    try:
        for worker in workers:
            worker.wait_until_ready()
        start = time.monotonic()
        id_ = site.submit(reduce_graph("GTiff"))
        job = site.wait(id_, "finished", "error", seconds=600)
        total = time.monotonic() - start
        assert job.status == "finished", site.list_messages(id_)
        files = site.fetch_files(id_, Path(tempfile.mkdtemp(dir=site.folder)))
        with rasterio.open(files["result.vrt"]) as file:
            np.testing.assert_array_equal(file.read(), compute_expected(shape=site.shape))
        return find_times(site, job, total)
    finally:
        for worker in workers:
            worker.kill()


def find_times(site: PartsSite, job: Job, total: float) -> JobTimes:
    """Find in the book when the first part of a job began and the last but the results ended."""
    part = db.JobPartRow
    span = select(func.min(part.started), func.max(part.ended)).where(part.job_id == job.id, ~part.is_last)
    queued = select(db.JobRow.queued).where(db.JobRow.id == job.id)
    with db.session(site.config) as session:
        began, ended = session.execute(span).one()
        planned = (began - session.scalars(queued).one()).total_seconds()
    cpu = (job.usage or {})["cpu"]["value"]
    return JobTimes(total, planned, (ended - began).total_seconds(), cpu)


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
            one, two = (measure_job(site, machines) for machines in (1, 2))
            db.dispose_engine(site.config)
        print(f"one machine: {one.describe_times()}\ntwo machines: {two.describe_times()}")
        print(f"ratio {two.total / one.total:.2f}, of the parts {two.parts / one.parts:.2f}", end="; ")
        print("load " + " ".join(f"{value:.1f}" for value in os.getloadavg()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
