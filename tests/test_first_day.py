"""The pages of the first day: their commands lead to a user, data and a result of one's own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from odc_openeo.stack.embedded import free_port
from odc_openeo.stack.postgres import Postgres
from tests.catalog.scenes import Index
from tests.conftest import SMALL_STACK, CopyDatabase
from tests.support.index_drivers import get_test_driver
from tests.support.page_commands import Reader, read_blocks

PAGES = Path(__file__).resolve().parents[1] / "docs" / "first-day"
PASSWORD = "correct horse"
ACCOUNTS = [Path("/etc/passwd"), Path("/etc/group"), Path("/etc/shadow")]
URL = "postgresql+psycopg2://openeo:secret@db.example.org/"


@pytest.fixture
def home(short_folder: Path, request: pytest.FixtureRequest) -> Path:
    """The home folder of a reader, with a folder for each kind of thing that commands might leave."""
    home = short_folder / request.node.name[:30]
    for name in ("", "work", "tmp"):
        (home / name).mkdir(mode=0o711)
    return home


@pytest.fixture
def data_dir(home: Path, samples: Path) -> Path:
    """The data folder, where the sample scenes are there already."""
    folder = home.with_name(f"{home.name}-data")
    folder.mkdir(mode=0o711)
    (folder / "samples").symlink_to(samples)
    return folder


@pytest.fixture
def reader(home: Path, data_dir: Path) -> Iterator[Reader]:
    """A reader of the pages; port and data folder are the only differences to what they read."""
    port = free_port()
    # Nothing is installed but what the virtual environment has.
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "ODC_OPENEO_DATA_DIR": str(data_dir),
        "ODC_OPENEO_PORT": str(port),
        **SMALL_STACK,
    }
    with Reader(home / "work", environment, {"8080": str(port)}, f"{PASSWORD}\n{PASSWORD}\n") as reader:
        yield reader
    print(f"\n{sum(reader.seconds.values()):.0f} s of commands:")
    for step, seconds in reader.seconds.items():
        print(f"  {seconds:5.1f} s  {step}")


def write_pixels(folder: Path) -> dict[str, np.ndarray]:
    """Write the GeoTIFFs of the scene of the pages."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(5)
    bands = {name: generator.integers(1, 5000, (60, 80)).astype("uint16") for name in ("red", "nir")}
    grid = {
        "height": 60,
        "width": 80,
        "crs": "EPSG:32632",
        "transform": Affine(10, 0, 600000, 0, -10, 5200000),
    }
    for name, pixels in bands.items():
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=1, dtype="uint16", **grid
        ) as file:
            file.write(pixels, 1)
    return bands


def write_data(folder: Path) -> dict[str, np.ndarray]:
    """Write the product and the scene of the first page into a folder; return the pixels."""
    bands = write_pixels(folder / "scenes" / "a")
    for kind, content in read_blocks(PAGES / "embedded.md", {}):
        if kind == "yaml":
            name = re.match(r"# (\S+)\n", content)
            assert name is not None
            (folder / name[1]).write_text(content)
    return bands


def check_result(folder: Path, bands: dict[str, np.ndarray]) -> None:
    """Compare the result of the pages with numpy."""
    red, nir = bands["red"].astype("float64"), bands["nir"].astype("float64")
    with rasterio.open(folder / "ndvi.tif") as file:
        assert file.crs.to_epsg() == 32632
        np.testing.assert_allclose(file.read(1), (nir - red) / (nir + red), rtol=1e-6)


def list_entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_embedded(reader: Reader, home: Path, data_dir: Path) -> None:
    accounts = [path.read_bytes() for path in ACCOUNTS if os.access(path, os.R_OK)]
    bands = write_pixels(reader.folder / "scenes" / "a")
    with reader:
        reader.follow(PAGES / "embedded.md")
        check_result(reader.folder, bands)
    # Everything is in the data folder, for root as well.
    assert accounts == [path.read_bytes() for path in ACCOUNTS if os.access(path, os.R_OK)]
    assert list_entries(home / "work") == {
        *("ndvi.tif", "product.yaml", "scenes", "scenes/a"),
        *(f"scenes/a/{name}" for name in ("dataset.yaml", "red.tif", "nir.tif")),
    }
    assert list_entries(home / "tmp") == set()
    assert {path.name for path in home.iterdir() if path.suffix != ".out"} == {"work", "tmp"}
    assert (data_dir / "tmp").is_dir()


def test_own_servers(
    reader: Reader, home: Path, postgres_server: Postgres, copy_database: CopyDatabase
) -> None:
    bands = write_data(reader.folder)
    port = free_port()
    with copy_database("template0") as ours, copy_database("template0") as index:
        places = {
            f"{URL}openeo": ours,
            f"{URL}datacube": index,
            "scheduler.example.org:8786": f"127.0.0.1:{port}",
            "--port 8786": f"--host 127.0.0.1 --port {port}",
            "/shared/openeo": str(home.with_name(f"{home.name}-shared")),
            "0.0.0.0": "127.0.0.1",
        }
        reader.places = {**places, **reader.places}
        with reader:
            reader.follow(PAGES / "own-servers.md")
            check_result(reader.folder, bands)


def test_own_index(reader: Reader, odc_database: str) -> None:
    bands = write_data(reader.folder)
    index = Index()
    index.add_product(yaml.safe_load((reader.folder / "product.yaml").read_text()))
    dataset = reader.folder / "scenes" / "a" / "dataset.yaml"
    index.add({**yaml.safe_load(dataset.read_text()), "location": dataset.as_uri()})
    index.datacube.close()
    reader.environment = {**reader.environment, "ODC_DEFAULT_INDEX_DRIVER": get_test_driver()}
    reader.places = {f"{URL}datacube": odc_database, **reader.places}
    with reader:
        reader.follow(PAGES / "own-index.md")
        check_result(reader.folder, bands)
        names = reader.terminals[-1].read().split()
    assert {"fields", "s2_l2a_sample"} <= set(names)
