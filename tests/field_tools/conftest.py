"""Environments of tools that are not installed beside the tests, and results of jobs for them to read."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openeo
import pytest

from tests.clients.truth import scenes, series

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = "s2_l2a_sample"
BOX = {"west": 679720, "south": 5150080, "east": 681000, "north": 5151360, "crs": 32632}
TIME = ["2022-06-01", "2022-06-09"]
BANDS = ["B04", "B08"]
REGION = "32TPS"


@dataclass(frozen=True)
class Results:
    """The results of a job: GeoTIFFs, and a Zarr store with the dimensions time, y and x."""

    job: openeo.BatchJob
    collection: str
    """Signed link to the STAC Collection."""
    files: dict[str, str]
    """Signed links by name."""

    @property
    def zarr(self) -> str:
        """Signed link to the Zarr store."""
        return next(href for name, href in self.files.items() if name.endswith(".zarr"))


def find_python(name: str) -> Path:
    """The Python of an environment that `make tools` makes; skip without it."""
    python = ROOT / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no environment {name}: run `make tools`")
    return python


def run_script(python: Path, script: str, *arguments: str, **environment: str) -> str:
    """Run a script of this folder with another Python; return what it prints."""
    command = [str(python), "-W", "ignore", str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def connection(stack: str) -> openeo.Connection:
    """A connection of the demo user."""
    return openeo.connect(stack).authenticate_basic("demo", "demo")


@pytest.fixture(scope="session")
def results(connection: openeo.Connection) -> Results:
    """A finished job."""
    cube = connection.load_collection(
        PRODUCT,
        spatial_extent=BOX,
        temporal_extent=TIME,
        bands=BANDS,
        properties={"odc:region_code": lambda region: region == REGION},
    )
    images = cube.save_result("GTiff")
    store = cube.rename_dimension("t", "time").save_result("Zarr")
    job = connection.create_job([images, store], title="For tools of the field")
    job.start_and_wait(print=lambda message: None)
    described = job.get_results().get_metadata()
    collection = next(link["href"] for link in described["links"] if link["rel"] == "canonical")
    return Results(job, collection, {name: asset["href"] for name, asset in described["assets"].items()})


@pytest.fixture(scope="session")
def pixels(samples: Path) -> dict[str, np.ndarray]:
    """What the files say in the box: digital numbers time, y, x for each band, NaN without data."""
    dates = scenes(samples / PRODUCT / REGION, *TIME)
    window = (BOX["west"], BOX["south"], BOX["east"], BOX["north"])
    return {band: series(dates, band, window) for band in BANDS}
