"""Datasets of the bridge: recorded ones, and downloaded ones to compare with."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import openeo
import pytest
import xarray as xr
from xarray.backends.plugins import list_engines
from xarray.core.options import OPTIONS
from xarray.namedarray.parallelcompat import list_chunkmanagers

from odc_openeo.indexing.samples import S2_PRODUCT
from tests.bridge.offline import make_offline_dataset

PROJECT = Path(__file__).resolve().parents[2] / "openeo_xarray"
NAMES = {"B04": "red", "B08": "nir", "B11": "swir", "SCL": "scl"}
BOX = (679720.0, 5151080.0, 679920.0, 5151200.0)
PERIOD = ("2022-06-01", "2022-09-01")


def is_installed() -> bool:
    """Whether the distribution of the bridge is there with its entry points."""
    try:
        metadata.distribution("openeo-xarray")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def _entry_points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where the package is not installed, xarray finds its entry points in a folder on the path."""
    if not is_installed():
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        folder = tmp_path_factory.mktemp("distributions")
        info = folder / f"openeo_xarray-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: openeo-xarray\nVersion: {project['version']}\n"
        )
        groups = project["entry-points"].items()
        lines = [
            line
            for group, entries in groups
            for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        sys.path.append(str(folder))
    list_engines.cache_clear()
    list_chunkmanagers.cache_clear()
    return


@pytest.fixture(autouse=True, scope="module")
def _options() -> Iterator[None]:
    """Tests of other subjects have flox again."""
    before = dict(OPTIONS)
    yield
    OPTIONS.update(before)  # type: ignore[typeddict-item]


@pytest.fixture
def offline() -> xr.Dataset:
    """A recorded dataset without a back-end."""
    return make_offline_dataset()


@pytest.fixture(scope="session")
def connection(stack: str) -> openeo.Connection:
    """A connection of the demo user."""
    return openeo.connect(stack).authenticate_basic("demo", "demo")


@pytest.fixture(scope="session")
def recorded(stack: str, connection: openeo.Connection) -> xr.Dataset:
    """A recorded dataset of the running stack."""
    dataset = xr.open_dataset(
        f"{stack}/collections/{S2_PRODUCT}",
        engine="openeo",
        connection=connection,
        bbox=BOX,
        crs=32632,
        time=PERIOD,
        bands=list(NAMES),
    )
    return dataset.rename(NAMES)


@pytest.fixture(scope="session")
def downloaded(connection: openeo.Connection, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The same pixels in memory, by the openEO client and xarray alone."""
    path = tmp_path_factory.mktemp("pixels") / "pixels.nc"
    extent = {**dict(zip(("west", "south", "east", "north"), BOX, strict=True)), "crs": 32632}
    cube = connection.load_collection(
        S2_PRODUCT, spatial_extent=extent, temporal_extent=list(PERIOD), bands=list(NAMES)
    )
    cube.download(path, format="netCDF")
    with xr.open_dataset(path) as file:
        return file.load().rename(t="time", **NAMES)
