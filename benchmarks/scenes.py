"""Scenes large enough to measure with: a tile of 20 km, 12 dates, five bands, the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import yaml
from odc.geo.geobox import GeoBox
from pystac import Asset, Item

from odc_openeo.indexing.cog import write_cog
from odc_openeo.indexing.documents import Dataset, Measurement

PRODUCT = "bench_s2"
SIZE = 2048
EPSG = 32632
WEST, NORTH = 680000.0, 5160000.0
GRID = GeoBox.from_bbox(
    (WEST, NORTH - 10 * SIZE, WEST + 10 * SIZE, NORTH), crs=f"EPSG:{EPSG}", shape=(SIZE, SIZE), tight=True
)
FINE = ("B02", "B03", "B04", "B08")
FIRST = datetime(2022, 5, 4, 10, 20, tzinfo=UTC)
DOCUMENT = "dataset.odc-metadata.yaml"


def product(folder: Path) -> Path:
    """Write the product definition; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    bands = [{"name": name, "dtype": "uint16", "nodata": 0, "units": "1"} for name in FINE]
    definition = {
        "name": PRODUCT,
        "description": "Scenes to measure with",
        "metadata_type": "eo3",
        "metadata": {"product": {"name": PRODUCT}},
        "measurements": [*bands, {"name": "SCL", "dtype": "uint8", "nodata": 0, "units": "1"}],
    }
    path = folder / f"{PRODUCT}.odc-product.yaml"
    path.write_text(yaml.safe_dump(definition), encoding="utf-8")
    return path


def times(dates: int = 12) -> list[datetime]:
    """When the scenes were taken: every five days."""
    return [FIRST + timedelta(days=5 * n) for n in range(dates)]


def make(folder: Path, dates: int = 12) -> list[Path]:
    """Write the scenes, unless they are there; the paths of their EO3 documents."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda n: _scene(folder, n), range(dates)))


def _scene(folder: Path, number: int) -> Path:
    time = times(number + 1)[-1]
    target = folder / f"{time:%Y-%m-%d}"
    document = target / DOCUMENT
    if document.exists():
        return document
    target.mkdir(parents=True, exist_ok=True)
    grids = {**dict.fromkeys(FINE, GRID), "SCL": GRID.zoom_out(2)}
    for name, values in _bands(number):
        write_cog(target / f"{name}.tif", values, grids[name], 0, averaged=name != "SCL", title=name)
    measurements = {name: Measurement(f"{name}.tif", grid) for name, grid in grids.items()}
    properties = {"eo:cloud_cover": 20.0, "eo:platform": "sentinel-2a", "eo:instrument": "MSI"}
    return Dataset(PRODUCT, f"BENCH_{time:%Y%m%d}", time, measurements, properties).write(document)


def _bands(number: int) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype("float32")
    land = np.sin(rows / 97) * np.cos(columns / 131) + np.sin((rows + columns) / 41) / 3
    for place, name in enumerate(FINE):
        noise = random.normal(0, 40, (SIZE, SIZE)).astype("float32")
        yield name, (1800 + 500 * place + 600 * land + 30 * number + noise).clip(1, 12000).astype("uint16")
    half = SIZE // 2
    rows, columns = np.mgrid[0:half, 0:half]
    clouds = np.sin(rows / 60 + number) * np.sin(columns / 75 - number) > 0.55
    yield "SCL", np.where(clouds, 9, 4).astype("uint8")


def items(documents: list[Path]) -> list[Item]:
    """The same scenes as STAC Items, as a person would have them from a catalogue."""
    return [_item(path, time) for path, time in zip(documents, times(len(documents)), strict=True)]


def _item(document: Path, time: datetime) -> Item:
    outline = GRID.extent.to_crs("EPSG:4326")
    bounds = list(outline.boundingbox.bbox)
    item = Item(
        f"bench-{time:%Y%m%d}", outline.json, bounds, time, {"proj:epsg": EPSG, "proj:code": f"EPSG:{EPSG}"}
    )
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    for name in (*FINE, "SCL"):
        grid = GRID.zoom_out(2) if name == "SCL" else GRID
        fields = {"proj:shape": list(grid.shape.yx), "proj:transform": list(grid.affine[:6])}
        fields["raster:bands"] = [{"nodata": 0, "data_type": "uint8" if name == "SCL" else "uint16"}]
        item.add_asset(
            name,
            Asset(
                str(document.parent / f"{name}.tif"),
                media_type="image/tiff",
                roles=["data"],
                extra_fields=fields,
            ),
        )
    return item
