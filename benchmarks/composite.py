"""What openEO costs: a cloud-masked median NDVI composite, over HTTP and with odc-stac by hand.

Both run on one dask cluster, both write a COG, both are warmed; median of five.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import odc.stac
import openeo
import rasterio
from dask.distributed import Client
from odc.geo.cog import save_cog_with_dask
from rich.console import Console
from rich.table import Table

from benchmarks import scenes
from odc_openeo.config import Config, child_environment
from odc_openeo.embedded import Stack, free_port
from odc_openeo.indexing.index import index_datasets, index_products

RUNS = 5


def by_hand(documents: list[Path], target: Path) -> None:
    """What a person writes: the chunks are those that are best for this machine."""
    found = scenes.items(documents)
    cube = odc.stac.load(
        found,
        bands=["B04", "B08", "SCL"],
        geobox=scenes.GRID,
        chunks={"x": scenes.SIZE, "y": scenes.SIZE // 2},
        resampling="nearest",
    )
    cube = cube.chunk({"time": -1, "y": 512, "x": scenes.SIZE})
    red, nir = (cube[name].where(cube[name] != 0).astype("float32") for name in ("B04", "B08"))
    clear = ~cube["SCL"].isin([3, 8, 9, 10])
    ndvi = ((nir - red) / (nir + red)).where(clear).median("time")
    cog = ndvi.odc.assign_crs(f"EPSG:{scenes.EPSG}")
    save_cog_with_dask(cog, str(target), predictor=False).compute()


def with_openeo(connection: openeo.Connection, target: Path) -> None:
    """The same through HTTP."""
    west, south, east, north = scenes.GRID.boundingbox.bbox
    extent = {"west": west, "south": south, "east": east, "north": north, "crs": f"EPSG:{scenes.EPSG}"}
    cube = connection.load_collection(
        scenes.PRODUCT,
        spatial_extent=extent,
        temporal_extent=["2022-05-01", "2022-07-01"],
        bands=["B04", "B08", "SCL"],
    )
    red, nir, scl = cube.band("B04"), cube.band("B08"), cube.band("SCL")
    clouds = (scl == 3) | (scl == 8) | (scl == 9) | (scl == 10)
    ndvi = ((nir - red) / (nir + red)).mask(clouds).reduce_dimension(dimension="t", reducer="median")
    ndvi.download(target, format="GTiff", validate=False)


def median_time(action: Callable[[], None]) -> float:
    """The median wall time in seconds of several runs after a first one."""
    action()
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference of the first bands of two files; infinite if no-data differs."""
    with rasterio.open(one) as a, rasterio.open(other) as b:
        first, second = a.read(1), b.read(1)
    if (np.isnan(first) != np.isnan(second)).any():
        return float("inf")
    return float(np.nanmax(np.abs(first - second)))


def index(stack: Stack, product: Path, documents: list[Path]) -> None:
    """Index the scenes with the `datacube` command."""
    environment = child_environment(stack.config, **stack.odc_environment)
    index_products([product], environment)
    index_datasets(documents, environment)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        documents = scenes.make(folder / "scenes")
        config = Config(data_dir=folder / "data", port=free_port(), threads_per_worker=1)
        with Stack(config, samples=False, say=lambda text: None) as stack:
            index(stack, scenes.product(folder), documents)
            hand, ours = folder / "hand.tif", folder / "ours.tif"
            connection = openeo.connect(stack.url).authenticate_basic("demo", "demo")
            with Client(stack.config.dask_scheduler):
                baseline = median_time(lambda: by_hand(documents, hand))
            measured = median_time(lambda: with_openeo(connection, ours))
            show(baseline, measured, largest_difference(hand, ours))


def show(baseline: float, measured: float, difference: float) -> None:
    """Print the table."""
    table = Table("masked median NDVI, 12 dates of 2048 x 2048", "seconds", "ratio")
    table.add_row("by hand: odc-stac, xarray, dask", f"{baseline:.2f}", "1.00")
    table.add_row("openEO over HTTP", f"{measured:.2f}", f"{measured / baseline:.2f}")
    Console(width=100).print(table, f"largest difference of values: {difference:.2g}")


if __name__ == "__main__":
    main()
