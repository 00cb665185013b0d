"""The service in containers: user code through the client, and hostile code in a stock container.

Started by `make compose-test` only, as images are built.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import openeo
import pytest
import xarray as xr

from odc_openeo.indexing.samples import S2_PRODUCT
from tests.clients import truth
from tests.clients.test_values import BOX, JUNE, load, netcdf
from tests.deployment.engine import PASSWORD, ROOT, USER, Project, measure, run_docker
from tests.udf.escapes import ATTEMPTS, LAX

pytestmark = pytest.mark.compose

RANGE = """
import os
import numpy
import xarray
from openeo.udf import inspect

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    inspect(data={"host": os.uname().nodename, "numpy": numpy.__version__}, message="where", code="HOST")
    return context["factor"] * (cube.max("t") - cube.min("t"))
"""
SLOW = RANGE.replace("    return", "    import time\n    time.sleep(10)\n    return")
REACH = """
import json, socket, sys
reached = []
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), 3).close()
        reached.append(host)
    except OSError:
        pass
print(json.dumps(reached))
"""
PYTHON = "/opt/udf/bin/python"


@pytest.fixture(scope="module")
def connection(project: Project) -> openeo.Connection:
    return openeo.connect(project.url).authenticate_basic(USER, PASSWORD)


@pytest.fixture(scope="module")
def expected(samples: Path) -> np.ndarray:
    """The range of values over time, straight from the files."""
    scenes = truth.scenes(samples / S2_PRODUCT, *JUNE)
    chosen = [s for s in scenes if s.epsg == 32632 and "TPS" in str(s.properties["odc:region_code"])]
    values = truth.series(chosen, "B04", BOX)
    return 2 * (np.nanmax(values, axis=0) - np.nanmin(values, axis=0))


def compute_range(connection: openeo.Connection, code: str = RANGE) -> openeo.DataCube:
    cube = load(connection, ["B04"])
    return cube.reduce_dimension(dimension="t", reducer=openeo.UDF(code, context={"factor": 2}))


def run_job(cube: openeo.DataCube, folder: Path) -> tuple[openeo.BatchJob, xr.Dataset]:
    job = cube.save_result("netCDF").create_job()
    job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    (path,) = (p for p in job.get_results().download_files(folder) if p.suffix == ".nc")
    return job, xr.load_dataset(path, engine="netcdf4")


def test_user_code_in_requests_and_jobs(
    project: Project, connection: openeo.Connection, expected: np.ndarray, tmp_path: Path
) -> None:
    with measure("request"):
        sync = netcdf(compute_range(connection), tmp_path / "sync.nc")
    np.testing.assert_allclose(sync["B04"].values, expected, rtol=1e-6)
    with measure("job"):
        job, result = run_job(compute_range(connection), tmp_path)
    np.testing.assert_array_equal(result["B04"].values, sync["B04"].values)
    hosts = {entry["data"]["host"] for entry in job.logs() if entry.get("code") == "HOST"}
    assert hosts == {project.inspect("udf-worker")["Config"]["Hostname"]}


def test_jobs_survive_the_loss_of_the_worker(
    project: Project, connection: openeo.Connection, expected: np.ndarray, tmp_path: Path
) -> None:
    cube = compute_range(connection, SLOW)
    job = cube.save_result("netCDF").create_job()
    job.start_job()
    for _ in range(120):
        if job.status() == "running":
            break
        time.sleep(0.5)
    time.sleep(5)
    project.compose("restart", "--timeout", "1", "udf-worker")
    while job.status() in ("queued", "running"):
        time.sleep(1)
    assert job.status() == "finished", job.logs()
    (path,) = (p for p in job.get_results().download_files(tmp_path) if p.suffix == ".nc")
    result = xr.load_dataset(path, engine="netcdf4")
    np.testing.assert_allclose(result["B04"].values, expected, rtol=1e-6)


def test_runtimes_and_doctor_show_the_level(project: Project, connection: openeo.Connection) -> None:
    (runtime,) = connection.list_udf_runtimes().values()
    libraries = runtime["versions"][runtime["default"]]["libraries"]
    assert {"numpy", "xarray", "scipy", "scikit-image", "onnxruntime", "openeo"} <= set(libraries)
    assert "odc-openeo" not in libraries
    assert "level filters" in runtime["description"]
    report = project.execute("api", "odc-openeo", "doctor")
    (line,) = (line for line in report.splitlines() if "ok   user-defined functions" in line)
    assert f"on the workers of tcp://udf-scheduler:8786: {PYTHON}: level filters" in line


def test_other_workers_refuse_user_code(project: Project) -> None:
    code = (
        "from odc_openeo.udf.calls import UdfCode, UdfSettings, call_udf\n"
        "try:\n"
        f"    settings = UdfSettings(pythons=('{PYTHON}',))\n"
        "    code = UdfCode('def call(header, arrays): return {1: 2}, []\\n', style='plain')\n"
        "    print(call_udf(settings, 'anna', code, {}, []).header)\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    for service in ("dask-worker", "job-worker", "api"):
        assert "to workers of their own" in project.execute(service, "python", "-c", code)
    assert "{'1': 2}" in project.execute("udf-worker", "python", "-c", code)


def test_workers_of_user_code_are_confined(project: Project) -> None:
    status = project.execute("udf-worker", "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"
    assert int(fields["Uid"].split()[0]) != 0
    container = project.inspect("udf-worker")
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["Memory"] > 0
    assert container["HostConfig"]["PidsLimit"] > 0
    mounts = [mount for mount in container["Mounts"] if mount["Type"] != "tmpfs"]
    assert [(mount["Destination"], mount["RW"]) for mount in mounts] == [("/udf-cache", False)]
    assert project.execute("udf-worker", "touch", "/udf-cache/x", check=False) == ""
    environment = "\n".join(container["Config"]["Env"]) + project.execute("udf-worker", "env")
    assert project.execute("udf-worker", "ls", "/run/secrets") == ""
    for secret in ("DATABASE_URL", "DB_URL", "SECRET", "PASSWORD"):
        assert secret not in environment
    for folder in ("/opt/udf", "/usr/lib", "/", "/etc"):
        assert project.execute("udf-worker", "touch", f"{folder}/x", check=False) == ""
        assert "x" not in project.execute("udf-worker", "ls", folder).split()


def test_workers_of_user_code_reach_their_scheduler_only(project: Project) -> None:
    names = [
        ["postgres", 5432],
        ["dask-scheduler", 8786],
        ["api", 8080],
        ["1.1.1.1", 443],
        ["udf-scheduler", 8786],
    ]
    for service in ("api", "postgres", "dask-scheduler", "dask-worker", "job-worker"):
        port = {"postgres": 5432, "api": 8080}.get(service, 8786)
        networks = project.inspect(service)["NetworkSettings"]["Networks"].values()
        names += [[network["IPAddress"], port] for network in networks]
        names += [[network["Gateway"], 22] for network in networks if network["Gateway"]]
    answer = project.execute("udf-worker", "python", "-c", REACH, json.dumps(names))
    assert json.loads(answer) == ["udf-scheduler"]
    # The question can be answered otherwise: the API reaches them.
    answer = project.execute("api", "python", "-c", REACH, json.dumps(names[:3]))
    assert json.loads(answer) == ["postgres", "dask-scheduler", "api"]


# --- Hostile code --------------------------------------------------------------------------------

STOCK = ("run", "--rm", "--volume", f"{ROOT / 'tests'}:/repo/tests:ro", "--workdir", "/repo")
ESCAPE = ("python", "-B", "-m", "tests.udf.attempt_escapes", "filters", PYTHON, "")


def attempt_escapes(project: Project, kind: str) -> dict[str, Any]:
    """Run hostile code in a container with the engine's own profiles, or in that of the service."""
    script = f"mkdir /tmp/attempts && exec {shlex.join([*ESCAPE, '/tmp/attempts'])}"
    if kind == "service":
        more = ("--volume", f"{ROOT / 'tests'}:/repo/tests:ro", "--workdir", "/repo", "--env", "HOME=/tmp")
        text = project.compose(
            "run", "--rm", "--no-deps", "--no-TTY", *more, "udf-worker", "sh", "-c", script
        )
    else:
        user = {"root": "0", "ordinary": "1000"}[kind]
        text = run_docker(*STOCK, "--user", user, "odc-openeo", "sh", "-c", script, timeout=900)
    result: dict[str, Any] = json.loads(text)
    return result


@pytest.fixture(scope="module", params=["root", "ordinary", "service"])
def attempts(request: pytest.FixtureRequest, project: Project) -> dict[str, Any]:
    """What became of all attempts in one kind of container."""
    with measure(f"escapes, {request.param}"):
        return attempt_escapes(project, request.param)


def test_user_code_does_not_escape(attempts: dict[str, Any]) -> None:
    assert attempts["level"] == "filters", attempts.get("reason")
    outcomes = attempts["outcomes"]
    assert set(outcomes) == set(ATTEMPTS)
    assert {name: outcome["got"] for name, outcome in outcomes.items() if outcome["got"]} == {}
    wrong = {
        name: outcome
        for name, outcome in outcomes.items()
        if not outcome["well"]
        or (outcome["error"] or ATTEMPTS[name].errors)
        and outcome["error"] not in ATTEMPTS[name].errors
    }
    assert wrong == {}


def test_nothing_is_changed_or_left(attempts: dict[str, Any]) -> None:
    assert attempts["unchanged"]
    assert attempts["left"] == {"processes": [], "folders": []}


def test_attempts_succeed_without_a_sandbox(attempts: dict[str, Any]) -> None:
    assert {name: count > 0 for name, count in attempts["lax"].items()} == dict.fromkeys(LAX, True)
