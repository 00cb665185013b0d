"""What operators do with the `datacube` command shows at once; broken files are told by their dataset."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import numpy as np
import openeo
import pytest
import rasterio
import requests
import yaml
from odc.geo.geobox import GeoBox
from openeo.rest import OpenEoApiError

from odc_openeo.indexing.cog import write_cog
from odc_openeo.indexing.documents import Dataset, Measurement
from odc_openeo.indexing.index import index_datasets, index_products, run_datacube

GRID = GeoBox.from_bbox((500000, 5000000, 500640, 5000640), crs="EPSG:32632", shape=(64, 64), tight=True)


class Operator:
    """Somebody with a product, its files and the `datacube` command."""

    def __init__(self, product: str, folder: Path, environment: dict[str, str]) -> None:
        self.product = product
        self.folder = folder
        self.environment = environment
        definition = {
            "name": self.product,
            "description": "One band of one operator",
            "metadata_type": "eo3",
            "metadata": {"product": {"name": product}},
            "measurements": [{"name": "height", "dtype": "int16", "nodata": -1, "units": "m"}],
        }
        path = folder / "product.odc-product.yaml"
        path.write_text(yaml.safe_dump(definition))
        index_products([path], environment)

    def scene(self, day: int, value: int, cloud: float = 0.0) -> Dataset:
        """A scene of July 2021 that has one value everywhere, with its file."""
        path = self.folder / f"{day}.tif"
        write_cog(path, np.full((64, 64), value, "int16"), GRID, -1, averaged=True, title="height")
        time = datetime(2021, 7, day, tzinfo=UTC)
        bands = {"height": Measurement(path.name, GRID)}
        return Dataset(self.product, f"day{day}", time, bands, {"eo:cloud_cover": cloud})

    def write(self, dataset: Dataset) -> Path:
        """The document of a scene."""
        return dataset.write(self.folder / f"{dataset.label}.odc-metadata.yaml")

    def add(self, *datasets: Dataset) -> None:
        """`datacube dataset add`."""
        index_datasets([self.write(d) for d in datasets], self.environment)

    def run(self, *arguments: str) -> None:
        """`datacube` with any arguments."""
        run_datacube(list(arguments), self.environment)


@pytest.fixture
def operator(short_folder: Path, stack_environment: dict[str, str]) -> Operator:
    product = f"operator_{uuid4().hex[:8]}"
    folder = short_folder / product
    folder.mkdir()
    return Operator(product, folder, stack_environment)


def days(connection: openeo.Connection, product: str) -> tuple[str, str]:
    """First and last day of the collection."""
    described = requests.get(f"{connection.root_url}/collections/{product}", timeout=60).json()
    start, end = described["extent"]["temporal"]["interval"][0]
    return start[8:10], end[8:10]


def load(connection: openeo.Connection, product: str, path: Path, **more: object) -> np.ndarray:
    """The sum of all dates."""
    cube = connection.load_collection(product, fetch_metadata=False, **more)
    cube.reduce_dimension(dimension="t", reducer="sum").download(path, format="GTiff", validate=False)
    with rasterio.open(path) as file:
        return file.read(1)


def test_datacube_commands_take_effect_at_once(
    connection: openeo.Connection, operator: Operator, tmp_path: Path
) -> None:
    first, second = operator.scene(1, 1), operator.scene(20, 10)
    operator.add(first)
    assert days(connection, operator.product) == ("01", "01")
    assert (load(connection, operator.product, tmp_path / "1.tif") == 1).all()

    operator.add(second)
    assert days(connection, operator.product) == ("01", "20")
    assert (load(connection, operator.product, tmp_path / "2.tif") == 11).all()

    operator.run("dataset", "archive", str(second.id))
    assert days(connection, operator.product) == ("01", "01")
    assert (load(connection, operator.product, tmp_path / "3.tif") == 1).all()

    operator.run("dataset", "restore", str(second.id))
    assert days(connection, operator.product) == ("01", "20")
    assert (load(connection, operator.product, tmp_path / "4.tif") == 11).all()

    clouded = operator.write(operator.scene(20, 10, cloud=90.0))
    operator.run("dataset", "update", "--allow-any", "properties", str(clouded))
    only_clear = {"eo:cloud_cover": lambda value: value <= 50}
    assert (load(connection, operator.product, tmp_path / "5.tif", properties=only_clear) == 1).all()


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_broken_file_is_reported_by_dataset(
    connection: openeo.Connection, operator: Operator, tmp_path: Path, damage: str
) -> None:
    day = {"missing": 25, "corrupt": 26}[damage]
    scene = operator.scene(day, 5)
    operator.add(operator.scene(1, 1), scene)
    file = operator.folder / f"{day}.tif"
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 3 :] = b"\x55" * (len(content) - len(content) // 3)
        file.write_bytes(content)
    extent = [f"2021-07-{day}", f"2021-07-{day + 1}"]
    with pytest.raises(OpenEoApiError) as caught:
        load(connection, operator.product, tmp_path / "broken.tif", temporal_extent=extent)
    assert str(scene.id) in caught.value.message
    assert str(operator.folder) not in caught.value.message
    fine = ["2021-07-01", "2021-07-02"]
    assert (load(connection, operator.product, tmp_path / "fine.tif", temporal_extent=fine) == 1).all()
