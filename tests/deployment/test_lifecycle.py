"""Containers that are killed, removed, started again and upgraded: what users have stays.

Started by `make compose-test` only, as images are built.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import openeo
import pytest
import requests
import yaml
from rich.console import Console

from odc_openeo.indexing.samples import S2_PRODUCT
from odc_openeo.stack.demo import run_demo
from tests.clients import truth
from tests.clients.test_values import BOX, JUNE, load, netcdf
from tests.deployment.engine import BUILD_S, PASSWORD, ROOT, USER, Project, find_port, measure, run_docker
from tests.support.netcdf import load_raw

pytestmark = pytest.mark.compose

SERVICES = ("api", "job-worker", "dask-worker", "dask-scheduler", "udf-worker", "udf-scheduler", "postgres")
VERSION = "0.2.0"
DOUBLE = """
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    return 2 * cube.max("t")
"""


@pytest.fixture(scope="module")
def highest(samples: Path) -> np.ndarray:
    """The highest values over time, straight from the files."""
    scenes = truth.scenes(samples / S2_PRODUCT, *JUNE)
    chosen = [s for s in scenes if s.epsg == 32632 and "TPS" in str(s.properties["odc:region_code"])]
    values: np.ndarray = np.nanmax(truth.series(chosen, "B04", BOX), axis=0)
    return values


def connect(project: Project) -> openeo.Connection:
    return openeo.connect(project.url).authenticate_basic(USER, PASSWORD)


def make_cube(connection: openeo.Connection) -> openeo.DataCube:
    return load(connection, ["B04"]).max_time()


def compute_values(project: Project, folder: Path) -> np.ndarray:
    """Ask for a small result as soon as the service gives it."""
    deadline = time.monotonic() + 120
    while True:
        try:
            values: np.ndarray = netcdf(make_cube(connect(project)), folder / "sync.nc")["B04"].values
            return values
        except (openeo.rest.OpenEoApiError, openeo.rest.OpenEoRestError, requests.RequestException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def read_results(job: openeo.BatchJob, folder: Path) -> np.ndarray:
    (path,) = (p for p in job.get_results().download_files(folder) if p.suffix == ".nc")
    values: np.ndarray = load_raw(path)["B04"].values
    return values


def run_job(cube: openeo.DataCube) -> openeo.BatchJob:
    job = cube.save_result("netCDF").create_job()
    job.start_and_wait(print=lambda _: None, connection_retry_interval=1, max_poll_interval=1)
    return job


def test_the_demonstration_of_the_client(project: Project, tmp_path: Path) -> None:
    with measure("client's demonstration"):
        run_demo(project.url, tmp_path, USER, PASSWORD, Console(quiet=True))
    assert len(list(tmp_path.iterdir())) >= 2


def test_a_job_and_user_code(project: Project, highest: np.ndarray, tmp_path: Path) -> None:
    connection = connect(project)
    with measure("batch job"):
        job = run_job(make_cube(connection))
    np.testing.assert_array_equal(read_results(job, tmp_path), highest)
    cube = load(connection, ["B04"]).reduce_dimension(dimension="t", reducer=openeo.UDF(DOUBLE))
    with measure("user code"):
        doubled = netcdf(cube, tmp_path / "udf.nc")["B04"].values
    np.testing.assert_array_equal(doubled, 2 * highest)


SERVICE_LIBRARIES = """
import boto3, cql2, dask.array, datacube, distributed, flox, geopandas, h5py, lightgbm, netCDF4, numcodecs
import numpy.testing, obstore, pandas.testing, PIL.Image, psycopg2, pyarrow.dataset, pyarrow.fs
import pyarrow.parquet, pyogrio, pyproj, rasterio, scipy.linalg, scipy.stats, shapely, sklearn.ensemble
import skops, xarray.testing, zarr
from odc_openeo.processes.clouds import _load_model
_load_model()
for name in ("s3", "sts", "rds"):
    boto3.client(name, region_name="eu-central-1")
"""
UDF_LIBRARIES = """
import bottleneck, geopandas, numpy.testing, onnxruntime, openeo.udf, pandas.testing, pip, pyogrio
import scipy.stats, skimage.data, skimage.filters, skimage.measure, sklearn.ensemble, xarray.testing
assert "CPUExecutionProvider" in onnxruntime.get_available_providers()
"""


def test_libraries_are_whole(project: Project) -> None:
    """What was taken out of them is not needed."""
    project.execute("api", "python", "-c", SERVICE_LIBRARIES)
    project.execute("udf-worker", "/opt/udf/bin/python", "-c", UDF_LIBRARIES)


def test_every_container_is_confined(project: Project) -> None:
    for service in (*SERVICES, "secrets", "migrate"):
        container = project.inspect(service)
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["CapDrop"] == ["ALL"], service
        assert host["Init"], service
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, service
        assert not any("PASSWORD=" in line or "SECRET_KEY=" in line for line in container["Config"]["Env"])
    password = project.execute("api", "cat", "/run/secrets/database_password").strip()
    assert len(password) > 30
    for service in ("dask-scheduler", "dask-worker", "udf-worker", "udf-scheduler"):
        assert project.execute(service, "ls", "/run/secrets") == ""
    assert password not in project.compose("logs")
    assert password not in project.compose("config")
    for service in SERVICES[:-1]:
        assert project.execute(service, "touch", "/opt/x", check=False) == ""
        assert "x" not in project.execute(service, "ls", "/opt").split()
        with pytest.raises(AssertionError, match=r"(?i)read-only|permission denied"):
            project.execute(service, "touch", "/opt/odc-openeo/x")


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back(
    project: Project, highest: np.ndarray, tmp_path: Path, service: str
) -> None:
    with measure(f"recovery from a killed {service}"):
        project.kill(service)
        project.wait_until_healthy()
        values = compute_values(project, tmp_path)
    np.testing.assert_array_equal(values, highest)


def test_a_job_outlives_its_worker_and_the_database(
    project: Project, highest: np.ndarray, tmp_path: Path
) -> None:
    job = make_cube(connect(project)).save_result("netCDF").create_job()
    with measure("batch job while its workers and the database are killed"):
        job.start_job()
        project.kill("job-worker")
        project.kill("postgres")
        project.wait_until_healthy()
        while job.status() in ("queued", "running"):
            time.sleep(0.5)
    assert job.status() == "finished", job.logs()
    np.testing.assert_array_equal(read_results(job, tmp_path), highest)


def test_all_containers_are_made_anew(project: Project, highest: np.ndarray, tmp_path: Path) -> None:
    connection = connect(project)
    jobs = [job["id"] for job in connection.list_jobs() if job["status"] == "finished"]
    before = {name: read_results(connection.job(name), tmp_path / "before" / name) for name in jobs}
    assert before
    secrets = project.execute("api", "sh", "-c", "cat /run/secrets/*")
    with measure("down"):
        project.compose("down")
    project.start("up again, with data")
    assert project.execute("api", "sh", "-c", "cat /run/secrets/*") == secrets
    connection = connect(project)
    assert {job["id"] for job in connection.list_jobs()} >= set(jobs)
    for name, values in before.items():
        np.testing.assert_array_equal(read_results(connection.job(name), tmp_path / name), values)
    np.testing.assert_array_equal(compute_values(project, tmp_path), highest)


def test_backup_and_restore(project: Project, highest: np.ndarray, tmp_path: Path) -> None:
    connection = connect(project)
    identity = run_job(make_cube(connection)).job_id
    with measure("backup"):
        project.execute("api", "odc-openeo", "backup", "/data/backups")
    (path,) = project.execute("api", "sh", "-c", "ls -t /data/backups/*.tar | head -1").split()
    connection.job(identity).delete_job()
    project.compose("stop", "api", "job-worker")
    with measure("restore"):
        project.compose(
            "run", "--rm", "--no-deps", "--no-TTY", "api", "odc-openeo", "restore", "--replace", path
        )
    project.start("healthy after the restore")
    np.testing.assert_array_equal(read_results(connect(project).job(identity), tmp_path), highest)


def test_the_password_of_the_database_is_renewed(
    project: Project, highest: np.ndarray, tmp_path: Path
) -> None:
    before = project.execute("api", "cat", "/run/secrets/database_password")
    project.compose("run", "--rm", "secrets", "odc-openeo", "secrets", "/run/secrets", "--renew-password")
    renew_password(project)
    project.compose("up", "--detach", "--no-build", "--force-recreate", "--wait", timeout=900)
    assert project.execute("api", "cat", "/run/secrets/database_password") != before
    np.testing.assert_array_equal(compute_values(project, tmp_path), highest)


def renew_password(project: Project) -> None:
    script = (ROOT / "deploy" / "compose" / "set-password.sh").read_text()
    project.execute("postgres", "sh", "-s", text=script)


def test_nothing_is_left(project: Project) -> None:
    with measure("tear-down"):
        project.stop()
    assert project.list_left() == {"containers": [], "volumes": [], "networks": []}


# --- Upgrade -------------------------------------------------------------------------------------


def find_commit(version: str) -> str | None:
    """Find the last commit of a version in the history, None without it."""
    command = ["git", "log", "--format=%H", f'-S__version__ = "{version}"', "--", "odc_openeo/__init__.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # The newest commit that changes the line ends the version.
    return f"{done.stdout.split()[0]}^" if done.returncode == 0 and done.stdout.strip() else None


@pytest.fixture(scope="module")
def earlier(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service of the earlier version, built from its sources."""
    commit = find_commit(VERSION)
    if commit is None:
        pytest.skip(f"there is no history with version {VERSION}")
    folder = tmp_path_factory.mktemp("earlier")
    archive = folder / "sources.tar"
    subprocess.run(["git", "archive", f"--output={archive}", commit], cwd=ROOT, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    image, port = f"odc-openeo:{VERSION}", find_port()
    with measure(f"build of {VERSION}"):
        run_docker("build", "--tag", image, str(folder), timeout=BUILD_S)
    services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    changes = {name: {"image": image} for name, service in services.items() if "build" in service}
    # The earlier file has a fixed port.
    text = yaml.safe_dump({"services": changes})
    text = text.replace("  api:\n", f"  api:\n    ports: !override ['127.0.0.1:{port}:8080']\n")
    (folder / "changes.yml").write_text(text)
    return Project(
        f"odc-openeo-upgrade-{os.getpid()}",
        port,
        files=(folder / "docker-compose.yml", folder / "changes.yml"),
    )


def test_upgrade_with_data(earlier: Project, samples: Path, highest: np.ndarray, tmp_path: Path) -> None:
    project = Project(earlier.name, earlier.port)
    try:
        earlier.give_samples(samples)
        earlier.compose("up", "--detach", "--no-build", timeout=900)
        earlier.wait_until("samples", lambda state: state["Status"] == "exited" and state["ExitCode"] == 0)
        earlier.wait_until("api", lambda state: state["Health"]["Status"] == "healthy")
        earlier.execute("api", "odc-openeo", "user", "add", USER, "--password-stdin", text=PASSWORD)
        connection = connect(earlier)
        job = run_job(make_cube(connection))
        np.testing.assert_array_equal(read_results(job, tmp_path / "before"), highest)
        connection.save_user_defined_process(
            "twice", {"a": {"process_id": "pi", "arguments": {}, "result": True}}
        )
        connection.upload_file(__file__, "notes/a.py")
        project.build("build again, without changes")
        with measure(f"upgrade from {VERSION} with data"):
            earlier.compose("down")
            # The database still has the password of the earlier version.
            project.compose("up", "--detach", "--no-build", "--wait", "postgres", timeout=900)
            renew_password(project)
            project.start(f"of which: from {VERSION} to healthy")
        check_upgraded(project, job.job_id, highest, tmp_path)
    finally:
        project.stop()


def check_upgraded(project: Project, identity: str, highest: np.ndarray, folder: Path) -> None:
    connection = connect(project)
    assert [job["id"] for job in connection.list_jobs()] == [identity]
    np.testing.assert_array_equal(read_results(connection.job(identity), folder / "after"), highest)
    assert [process["id"] for process in connection.list_user_defined_processes()] == ["twice"]
    (file,) = connection.list_files()
    assert file.metadata["size"] == Path(__file__).stat().st_size
    np.testing.assert_array_equal(read_results(run_job(make_cube(connection)), folder / "new"), highest)
    np.testing.assert_array_equal(compute_values(project, folder), highest)
