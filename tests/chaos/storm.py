"""The stack with parts that get killed and started again, jobs running meanwhile, and what became of them."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import psutil
import requests
from rasterio.io import MemoryFile
from sqlalchemy import func, select

from odc_openeo import db
from odc_openeo.config import Config, child_environment
from odc_openeo.indexing.samples import S2_PRODUCT
from odc_openeo.stack import postgres
from odc_openeo.stack.embedded import SCHEDULER, Stack, free_port
from odc_openeo.stack.gunicorn_command import gunicorn_command
from odc_openeo.storage import get_storage
from odc_openeo.storage.scratch_folders import is_abandoned
from odc_openeo.udf import folders
from odc_openeo.worker.cleaning import remove_old_files
from tests.clients import truth

BOX = (679720.0, 5151080.0, 680680.0, 5151920.0)
SEASON = ("2022-05-01", "2022-09-01")
USER_CODE = "process of user code"
VICTIMS = ("API", "job worker", "job worker", "dask worker", "dask cluster", "PostgreSQL")
UDF_VICTIMS = (*[USER_CODE] * 10, "dask worker", "job worker")
ALL_VICTIMS = (*VICTIMS, *[USER_CODE] * 3)
LONGEST_WAIT = 240.0
ADD = """
import time
import xarray

calls = []

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    calls.append(1)
    time.sleep(0.2)
    return cube + context["add"]
"""
"""Slow, so that its process is often killed during a call."""
Say = Callable[[str], None]


class FragileStack(Stack):
    """A stack whose parts can be killed; they are started again at once."""

    def strike(self, what: str, dice: random.Random, patience: float) -> bool:
        """Kill a part without warning; False if there was none of user code to kill for some seconds."""
        if what == USER_CODE:
            return self._kill_user_code(dice, patience)
        if what == "dask worker":
            self._kill_dask_worker(dice)
        elif what == "dask cluster":
            self._restart_dask()
        elif what == "PostgreSQL":
            self._restart_database()
        elif what == "API":
            self._again("HTTP server", gunicorn_command(self.config))
        else:
            number = dice.randint(1, self.config.job_workers)
            self._kill(f"job worker {number}", whole=dice.random() < 0.5)
            self._start_job_worker(number)
        return True

    def _kill_dask_worker(self, dice: random.Random) -> None:
        # All workers end with one that is killed before it has started.
        with distributed.Client(str(self.config.dask_scheduler), set_as_default=False) as client:
            client.wait_for_workers(self.config.workers, timeout=LONGEST_WAIT)
        part = next(part for part in self.parts if part.name == "dask workers")
        computing = [
            p for p in psutil.Process(part.process.pid).children() if "spawn_main" in str(p.cmdline())
        ]
        dice.choice(computing).kill()

    def _kill_user_code(self, dice: random.Random, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if running := self.find_user_code():
                with suppress(psutil.NoSuchProcess):
                    dice.choice(running).kill()
                    return True
            time.sleep(0.05)
        return False

    def find_user_code(self) -> list[psutil.Process]:
        """The processes of user-defined functions that parts of the stack have started."""
        running = []
        for part in self.parts:
            with suppress(psutil.NoSuchProcess):
                running += psutil.Process(part.process.pid).children(recursive=True)
        return [process for process in running if is_user_code(process)]

    def _again(self, name: str, command: list[str]) -> None:
        self._kill(name, whole=True)
        self._start_part(name, command, self._environment())

    def _kill(self, name: str, *, whole: bool) -> None:
        part = next(part for part in self.parts if part.name == name)
        if whole:
            part.kill()
        else:
            # What it has started is left to notice it.
            part.process.kill()
            part.process.wait()
        self.parts.remove(part)

    def _start_job_worker(self, number: int) -> None:
        command = [sys.executable, "-m", "odc_openeo.cli", "worker"]
        self._start_part(f"job worker {number}", command, self._environment())

    def _environment(self) -> dict[str, str]:
        return child_environment(self.config, **self._odc)

    def _restart_dask(self) -> None:
        """Scheduler and workers go together; new ones come at the same address."""
        for name in (SCHEDULER, "dask workers"):
            self._kill(name, whole=True)
        self._start_dask(str(self.config.dask_scheduler).rpartition(":")[2])

    def _restart_database(self) -> None:
        assert self._server is not None
        self.parts.remove(self._server.child)
        self._server.child.kill()
        self._server = postgres.start_server(
            self.config.data_dir / "postgresql", self.logs / "postgresql.log"
        )
        self.parts.append(self._server.child)


def is_user_code(process: psutil.Process) -> bool:
    """Whether a process runs the code of users."""
    with suppress(psutil.Error):
        return any("odc_openeo_udf" in word for word in process.cmdline())
    return False


@dataclass
class Outcome:
    """What became of the jobs."""

    kills: Counter[str]
    states: Counter[str]
    wrong: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: int = 0
    tries: int = 0
    orphans: int = 0
    swept: int = 0
    left_over: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every job ended, with right values or a reason, and nothing is left over."""
        ended = set(self.states) <= {"finished", "error"}
        return ended and not (self.wrong or self.unexplained or self.lost or self.orphans or self.left_over)


def report(outcome: Outcome) -> str:
    """The figures as text."""
    kills = ", ".join(f"{count} x {name}" for name, count in sorted(outcome.kills.items()))
    states = ", ".join(f"{count} {name}" for name, count in sorted(outcome.states.items()))
    return (
        f"killed: {kills}\njobs: {states}; runs begun: {outcome.tries}\n"
        f"wrong values: {len(outcome.wrong)}, errors without a log: {len(outcome.unexplained)}, "
        f"lost: {outcome.lost}, orphan folders: {outcome.orphans} (swept at the end: {outcome.swept}), "
        f"processes and folders of user code left over: {outcome.left_over}\n"
        f"seconds until the last job ended: {outcome.seconds:.0f}\n"
        f"reasons of errors: {'; '.join(outcome.errors) or 'none'}"
    )


def storm(
    folder: Path,
    *,
    jobs: int,
    seconds: float,
    seed: int,
    say: Say,
    samples: Path | None = None,
    victims: Sequence[str] = VICTIMS,
    pauses: tuple[float, float] = (3, 7),
    user_code: Container[int] = (),
    patience: float = 1,
) -> Outcome:
    """Run ``jobs`` jobs on two workers while parts are killed for ``seconds``, and each of ``victims`` once.

    The jobs with the numbers ``user_code`` run user-defined functions, whose processes are waited for some
    seconds, ``patience``, to be killed.
    """
    dice = random.Random(seed)
    data_dir = folder / "storm"
    data_dir.mkdir()
    if samples is not None:
        (data_dir / "samples").symlink_to(samples)
    config = Config(
        data_dir=data_dir,
        port=free_port(),
        job_workers=2,
        gunicorn_workers=1,
        job_lost_after_s=4,
        job_tries=20,
        jobs_per_user=2,
        local_max_bytes=0,
        demo_user=True,
    )
    with FragileStack(config, say=say) as stack:
        client = Client(stack.url)
        ids = [client.submit(number, user_code=number in user_code) for number in range(jobs)]
        begun = time.monotonic()
        kills: Counter[str] = Counter()
        for what in _draw_victims(victims, seconds, dice):
            if stack.strike(what, dice, patience):
                kills[what] += 1
                say(f"{time.monotonic() - begun:5.1f} s: killed {what}")
            time.sleep(dice.uniform(*pauses))
        states = client.wait(ids)
        outcome = Outcome(kills, Counter(states.values()), seconds=time.monotonic() - begun)
        outcome.lost = jobs - len(states)
        _judge(outcome, client, states, ids, data_dir / "samples")
        _count_files(outcome, stack.config, states)
        processes = stack.find_user_code()
    gone, alive = psutil.wait_procs(processes, 10)
    # Others on this machine have theirs elsewhere.
    outcome.left_over = len(alive) + len(find_abandoned_folders(data_dir / "tmp"))
    return outcome


def _draw_victims(victims: Sequence[str], seconds: float, dice: random.Random) -> Iterator[str]:
    """Draw all victims in random order, and again until the seconds have passed."""
    begun = time.monotonic()
    yield from dice.sample(victims, len(victims))
    while time.monotonic() - begun < seconds:
        yield from dice.sample(victims, len(victims))


def find_abandoned_folders(temporary: Path) -> list[Path]:
    """Working folders of user code whose owners have ended, once those that can be removed are."""
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        folders.remove_abandoned_folders()
    finally:
        tempfile.tempdir = before
    top = temporary / f"odc-openeo-udf-{os.geteuid()}"
    return [f for f in top.iterdir() if is_abandoned(f)] if top.is_dir() else []


class Client:
    """Asks the service, patiently: it is down now and then."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/openeo/1.3"
        token = self._ask("GET", "/credentials/basic", auth=("demo", "demo")).json()["access_token"]
        self.headers = {"Authorization": f"Bearer basic//{token}"}

    headers: dict[str, str] | None = None

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = requests.request(
                    method, f"{self.url}{path}", headers=self.headers, timeout=20, **more
                )
                if answer.status_code < 500:
                    return answer
                problem = answer.text
            except requests.RequestException as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise AssertionError(f"no answer: {problem}")
            time.sleep(0.3)

    def submit(self, number: int, *, user_code: bool = False) -> str:
        """Create and start a job."""
        body = {"process": graph(number, user_code=user_code), "title": str(number)}
        id_ = self._ask("POST", "/jobs", json=body).headers["OpenEO-Identifier"]
        assert self._ask("POST", f"/jobs/{id_}/results").status_code == 202
        return id_

    def wait(self, ids: list[str]) -> dict[str, str]:
        """The states of the jobs once all have ended."""
        deadline = time.monotonic() + LONGEST_WAIT + 30 * len(ids)
        while True:
            listed = {job["id"]: job["status"] for job in self._ask("GET", "/jobs").json()["jobs"]}
            states = {id_: listed[id_] for id_ in ids if id_ in listed}
            if set(states.values()) <= {"finished", "error"} or time.monotonic() > deadline:
                return states
            time.sleep(1)

    def pixels(self, id_: str) -> np.ndarray:
        """The result of a job."""
        (asset,) = self._ask("GET", f"/jobs/{id_}/results").json()["assets"].values()
        data = requests.get(asset["href"], timeout=20).content
        assert len(data) == asset["file:size"]
        with MemoryFile(data) as memory, memory.open() as file:
            return file.read(1)

    def logs(self, id_: str) -> list[dict[str, Any]]:
        """The log of a job."""
        return list(self._ask("GET", f"/jobs/{id_}/logs").json()["logs"])


def graph(number: int, *, user_code: bool = False) -> dict[str, Any]:
    """The maximum of a season, plus a number of the job's own, by a user-defined function or without one."""
    area = dict(zip(("west", "south", "east", "north"), BOX, strict=True))
    load = {
        "id": S2_PRODUCT,
        "spatial_extent": {**area, "crs": "EPSG:32632"},
        "temporal_extent": list(SEASON),
        "bands": ["B04"],
    }
    longest = {"process_graph": {"m": _node("max", {"data": {"from_parameter": "data"}}, result=True)}}
    add = _node("add", {"x": {"from_parameter": "x"}, "y": number}, result=True)
    if user_code:
        udf = {"udf": ADD, "runtime": "Python", "context": {"add": number}}
        add = _node("run_udf", {"data": {"from_parameter": "x"}, **udf}, result=True)
    more = {"process_graph": {"p": add}}
    nodes = {
        "load": _node("load_collection", load),
        "max": _node(
            "reduce_dimension", {"data": {"from_node": "load"}, "dimension": "t", "reducer": longest}
        ),
        "add": _node("apply", {"data": {"from_node": "max"}, "process": more}),
        "save": _node("save_result", {"data": {"from_node": "add"}, "format": "GTiff"}, result=True),
    }
    return {"process_graph": nodes}


def _node(process: str, arguments: dict[str, Any], *, result: bool = False) -> dict[str, Any]:
    return {"process_id": process, "arguments": arguments, **({"result": True} if result else {})}


def _judge(outcome: Outcome, client: Client, states: dict[str, str], ids: list[str], samples: Path) -> None:
    scenes = truth.scenes(samples / S2_PRODUCT, *SEASON)
    chosen = [s for s in scenes if s.epsg == 32632 and "TPS" in str(s.properties["odc:region_code"])]
    expected = np.nanmax(truth.series(chosen, "B04", BOX), axis=0)
    for number, id_ in enumerate(ids):
        entries = client.logs(id_)
        if states.get(id_) == "finished":
            if not np.allclose(client.pixels(id_), expected + number, equal_nan=True):
                outcome.wrong.append(id_)
            continue
        errors = [entry["message"] for entry in entries if entry["level"] == "error"]
        outcome.errors += errors[-1:]
        if not errors:
            outcome.unexplained.append(id_)


def _count_files(outcome: Outcome, config: Config, states: dict[str, str]) -> None:
    """Folders of attempts must be those of finished jobs, once lost workers' leftovers are swept."""
    with db.session(config) as session:
        outcome.tries = int(session.scalar(select(func.sum(db.JobRow.tries))) or 0)
    outcome.swept = remove_old_files(config)
    store = get_storage(config)
    kept = [(job, a) for job in store.list_folders("results") for a in store.list_folders(f"results/{job}")]
    finished = sorted(id_ for id_, state in states.items() if state == "finished")
    outcome.orphans = 0 if sorted(job for job, _ in kept) == finished else abs(len(kept) - len(finished)) or 1
    db.dispose_engine(config)
