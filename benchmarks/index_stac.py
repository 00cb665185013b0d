"""STAC Items from a stac-geoparquet file into the index, the same again, and out of it: items per second."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table

from benchmarks.running import Service, empty_service_with_driver
from benchmarks.scenes import Scenes
from odc_openeo.catalog.items_parquet import write_items
from odc_openeo.config import child_environment
from odc_openeo.indexing.index import index_products

SOME, MANY = 20_000, 1_000_000
BANDS: Final = {f"B{number:02}": "uint16" for number in range(1, 13)}
GRID: Final = GeoBox.from_bbox((600_000, 5_190_240, 709_800, 5_300_040), "EPSG:32632", resolution=10)
PRODUCT: Final = Scenes("bench_stac", GRID, 1, BANDS, lambda n, band, shape: np.ones(shape))
START: Final = datetime(2015, 7, 1, tzinfo=UTC)


def iter_items(count: int) -> Iterator[dict[str, Any]]:
    """Iterate over Items of twelve bands, at a hundred places."""
    for number in range(count):
        west, south = 5 + number % 10, 44 + number // 10 % 10
        ring = [[west, south], [west + 1.4, south], [west + 1.4, south + 1], [west, south + 1], [west, south]]
        moment = START + timedelta(minutes=3 * number)
        yield {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [],
            "id": f"scene-{number}",
            "collection": PRODUCT.product,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": [west, south, west + 1.4, south + 1],
            "properties": {
                "datetime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
                "proj:code": "EPSG:32632",
                "eo:cloud_cover": number % 1000 / 10,
                "platform": "sentinel-2a",
            },
            "links": [],
            "assets": {
                name: {
                    "href": f"s3://scenes/{number}/{name}.tif",
                    "type": "image/tiff; application=geotiff",
                    "roles": ["data"],
                    "proj:shape": list(GRID.shape),
                    "proj:transform": list(GRID.transform[:6]),
                }
                for name in BANDS
            },
        }


def measure_command(running: Service, *arguments: str) -> float:
    """Measure the seconds of a command of `odc-openeo`."""
    environment = child_environment(running.stack.config, **running.stack.odc_environment)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "odc_openeo.cli", *arguments], env=environment, check=True)
    return time.monotonic() - start


def main() -> None:
    """Write a file, index it twice, export it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, help=f"default {SOME:,}")
    parser.add_argument("--full", action="store_true", help=f"{MANY:,} items")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--index-driver", choices=["postgres", "postgis"], default="postgres")
    options = parser.parse_args()
    count: int = options.items or (MANY if options.full else SOME)
    table = Table(title=f"{count:,} items of 12 bands, index driver {options.index_driver}")
    for name in ("step", "s", "items/s"):
        table.add_column(name, justify="left" if name == "step" else "right")
    with (
        tempfile.TemporaryDirectory(prefix="odc-openeo-bench-") as name,
        empty_service_with_driver(options.index_driver) as running,
    ):
        folder, processes = Path(name), str(options.processes)
        environment = child_environment(running.stack.config, **running.stack.odc_environment)
        index_products([PRODUCT.write_definition(folder)], environment)
        start = time.monotonic()
        write_items(iter_items(count), folder / "items.parquet")
        seconds = {"write the file": time.monotonic() - start}
        command = ("index", "stac", str(folder / "items.parquet"), "--processes", processes)
        seconds["index"] = measure_command(running, *command)
        seconds["index again"] = measure_command(running, *command)
        target = str(folder / "exported.parquet")
        seconds["export"] = measure_command(running, "export", "items", PRODUCT.product, target)
    for step, duration in seconds.items():
        table.add_row(step, f"{duration:.1f}", f"{count / duration:,.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
