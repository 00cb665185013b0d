"""A job of many small parts, while what runs it is killed at random: `python -m tests.parts.storm`.

Two workers, a dask scheduler with a worker and PostgreSQL are killed and started again; one job worker
computes on the cluster, the other one on its own threads. The workers have data folders of their own, as on
two machines: they share the database and the storage only. Once, all is stopped for some seconds while the
job is under way. In the end every part was recorded once, what was done before the stop was not done again,
and the result is right.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

import numpy as np
import rasterio
from sqlalchemy import select

from odc_openeo import db
from odc_openeo.config import child_environment
from odc_openeo.errors import InfrastructureBusy
from odc_openeo.jobs.part_progress import find_parts_progress
from odc_openeo.stack import postgres
from odc_openeo.stack.embedded import free_port
from odc_openeo.storage import get_storage
from tests.parts.jobs.machines import open_site
from tests.parts.jobs.site import PartsSite, Worker, compute_expected, reduce_graph

SHAPE = (7168, 7680)
"""210 blocks of 512 x 512 pixels, each of which is a part."""
STOP_AT, STOP_S = 0.6, 15
MORE_S = 900
"""How long the job may take after the last kill."""
PAUSES = (2, 6)
NO_PAGE = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
VICTIMS = ("job worker", "job worker", "job worker", "dask worker", "dask scheduler", "PostgreSQL")


@dataclass
class StormOutcome:
    """What became of a job in a storm."""

    kills: Counter[str] = field(default_factory=Counter)
    status: str = ""
    parts: int = 0
    twice: int = 0
    tries: int = 0
    done_at_stop: int = 0
    done_again: int = 0
    is_equal: bool = False
    left_over: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether no part was lost or recorded twice, and the result is right."""
        faults = self.twice or self.done_again or self.left_over
        return self.status == "finished" and self.is_equal and not faults

    def report(self) -> str:
        """Return the figures as text."""
        kills = ", ".join(f"{count} x {name}" for name, count in sorted(self.kills.items()))
        return (
            f"killed: {kills}; job {self.status}, {self.parts} parts in {self.tries} tries, {self.twice} "
            f"recorded twice, result equal: {self.is_equal}, files left over: {self.left_over}; stopped when "
            f"{self.done_at_stop} were done, of which {self.done_again} were done again; {self.seconds:.0f} s"
        )


class StormyMachines:
    """What runs a job, each part of which can be killed."""

    def __init__(self, site: PartsSite, dice: random.Random) -> None:
        self.site, self.dice = site, dice
        self.dask: dict[str, subprocess.Popen[bytes]] = {}
        self.workers: dict[int, Worker] = {}
        self.start()

    def start(self) -> None:
        """Start all but the database."""
        for name in ("dask scheduler", "dask worker"):
            self.start_dask(name)
        for number in range(2):
            self.start_worker(number)

    def start_worker(self, number: int) -> None:
        """Start a worker of jobs with a data folder of its own; the second one computes on its threads."""
        self.workers[number] = self.site.start_machine(number, *(["--parts"] if number else []))

    def start_dask(self, name: str) -> None:
        """Start the scheduler, or the worker, of the cluster."""
        address = str(self.site.config.dask_scheduler)
        odc = [sys.executable, "-m", "odc_openeo.cli", "dask-worker", address, "--nthreads", "1"]
        port = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], *NO_PAGE]
        scheduler = [sys.executable, "-m", "dask", "scheduler", *port]
        command = scheduler if name == "dask scheduler" else [*odc, *NO_PAGE]
        environment = child_environment(self.site.config, **self.site.environment)
        with (self.site.folder / f"{name}.log").open("ab") as log:
            self.dask[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def strike(self, victim: str) -> None:
        """Kill something, and start it again."""
        if victim == "PostgreSQL":
            self.kill_database()
            self.start_database()
        elif victim == "job worker":
            number = self.dice.randrange(2)
            self.workers[number].kill()
            self.start_worker(number)
        else:
            kill_group(self.dask[victim])
            self.start_dask(victim)

    def kill_database(self) -> None:
        """Kill the server."""
        self.site.servers[-1].child.kill()

    def start_database(self) -> None:
        """Start the server with the same files."""
        folder = self.site.folder
        self.site.servers.append(postgres.start_server(folder / "server" / "pg", folder / "postgresql.log"))

    def stop(self) -> None:
        """Kill all but the database."""
        for worker in self.workers.values():
            worker.kill()
        for process in self.dask.values():
            kill_group(process)

    def stop_all(self, id_: str, seconds: float) -> dict[int, datetime]:
        """Stop everything for some seconds; return when the parts that were done had ended, by number."""
        self.stop()
        done = list_ends(self.site, id_)
        self.kill_database()
        time.sleep(seconds)
        self.start_database()
        self.start()
        return done


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def run_storm(
    folder: Path,
    seconds: float,
    seed: int,
    say: Callable[[str], None] = print,
    shape: tuple[int, int] = SHAPE,
    pauses: tuple[float, float] = PAUSES,
    stop_s: float = STOP_S,
) -> StormOutcome:
    """Run one job while parts of the service are killed for some seconds, with pauses of random length."""
    dice, outcome = random.Random(seed), StormOutcome()
    settings = {
        "dask_scheduler": f"tcp://127.0.0.1:{free_port()}",
        "storage_url": str(folder / "store"),
        "local_max_bytes": 0,
        "worker_wait_s": 5,
        "job_lost_after_s": 5,
        "job_tries": 100,
    }
    with open_site(folder, shape, **settings) as site:
        id_ = site.submit(reduce_graph("GTiff"))
        machines = StormyMachines(site, dice)
        try:
            site.wait_for_parts(id_, 1)
            start = time.monotonic()
            done = strike_until_end(machines, id_, outcome, seconds, pauses, stop_s, say)
            while not has_ended(site, id_) and time.monotonic() - start < seconds + MORE_S:
                time.sleep(0.5)
            outcome.seconds = time.monotonic() - start
            # Workers clean up after the job has ended.
            for worker in machines.workers.values():
                worker.wait_until_idle()
        finally:
            machines.stop()
        judge(outcome, site, id_, done)
    return outcome


def strike_until_end(
    machines: StormyMachines,
    id_: str,
    outcome: StormOutcome,
    seconds: float,
    pauses: tuple[float, float],
    stop_s: float,
    say: Callable[[str], None],
) -> dict[int, datetime]:
    """Kill one after the other, and all once; return when the parts that were done then had ended."""
    site, start = machines.site, time.monotonic()
    victims: list[str] = []
    done: dict[int, datetime] = {}
    while time.monotonic() - start < seconds and not has_ended(site, id_):
        share = find_share(site, id_)
        when = f"{time.monotonic() - start:5.1f} s, {share:4.0%} done"
        if share >= STOP_AT and not done:
            say(f"{when}: everything stops for {stop_s} s")
            done = machines.stop_all(id_, stop_s)
        victims = victims or machines.dice.sample(VICTIMS, len(VICTIMS))
        victim = victims.pop()
        machines.strike(victim)
        outcome.kills[victim] += 1
        say(f"{when}: killed {victim}")
        time.sleep(machines.dice.uniform(*pauses))
    return done


def has_ended(site: PartsSite, id_: str) -> bool:
    """Whether the job has ended; the database may be down."""
    with contextlib.suppress(InfrastructureBusy):
        return site.get_job(id_).status in ("finished", "error")
    return False


def find_share(site: PartsSite, id_: str) -> float:
    """The share of the parts that are done, 0 if the database cannot be asked."""
    with contextlib.suppress(InfrastructureBusy):
        progress = find_parts_progress(site.config, UUID(id_))
        return progress.done / progress.total if progress else 0
    return 0


def list_ends(site: PartsSite, id_: str) -> dict[int, datetime]:
    """List when the parts that are done had ended, by number."""
    part = db.JobPartRow
    query = select(part.number, part.ended).where(part.job_id == UUID(id_), part.status == "done")
    with db.session(site.config) as session:
        return {row.number: row.ended for row in session.execute(query)}


def judge(outcome: StormOutcome, site: PartsSite, id_: str, done: Mapping[int, datetime]) -> None:
    """Compare the book, the files and the pixels with what they must be."""
    outcome.status = site.get_job(id_).status
    query = select(db.JobPartRow).where(db.JobPartRow.job_id == UUID(id_))
    with db.session(site.config) as session:
        rows = list(session.scalars(query))
    outcome.parts, outcome.tries = len(rows), sum(row.tries for row in rows)
    ends = {row.number: row.ended for row in rows if row.status == "done"}
    outcome.done_at_stop = len(done)
    outcome.done_again = sum(ends.get(number) != ended for number, ended in done.items())
    if outcome.status != "finished":
        print("\n".join(site.list_messages(id_)[-20:]))
        return
    files = site.fetch_files(id_, site.folder / "files")
    # One file of each part that is not the last, and the mosaic.
    outcome.twice = abs(len(files) - len(rows))
    stored = [key for key in get_storage(site.config).walk(f"results/{id_}") if "skeleton" not in key]
    outcome.left_over = len(stored) - len(files)
    with rasterio.open(files["result.vrt"]) as file:
        outcome.is_equal = bool(np.array_equal(file.read(), compute_expected(shape=site.shape)))


def main() -> int:
    """Run, print, and say by the status whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long to kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--shape", type=int, nargs=2, default=SHAPE, help="rows and columns; a part for 512 x 512"
    )
    parser.add_argument(
        "--pauses", type=float, nargs=2, default=PAUSES, help="least and most seconds between kills"
    )
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="odc-openeo-parts-storm-"))
    folder.chmod(0o711)
    try:
        outcome = run_storm(
            folder, given.seconds, given.seed, shape=tuple(given.shape), pauses=tuple(given.pauses)
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(outcome.report())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
