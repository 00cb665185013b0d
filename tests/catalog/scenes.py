"""Tiny real scenes: GeoTIFFs with EO3 documents, indexed in a real Open Data Cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import rasterio
from affine import Affine
from datacube import Datacube
from datacube.index.hl import Doc2Dataset
from datacube.utils import changes

NAMESPACE = UUID("5f0f7ad0-39bb-4c4c-a5b5-5d2cd4b3f1a0")

PRODUCT: dict[str, Any] = {
    "name": "tiny_s2",
    "description": "Tiny scenes like those of Sentinel-2.",
    "license": "CC-BY-4.0",
    "metadata_type": "eo3",
    "metadata": {"product": {"name": "tiny_s2"}, "properties": {"eo:instrument": "MSI"}},
    "measurements": [
        {
            "name": "B04",
            "aliases": ["red"],
            "dtype": "uint16",
            "nodata": 0,
            "units": "1",
            "scale_factor": 0.0001,
            "add_offset": -0.1,
            "spectral_definition": {"wavelength": [649, 665, 681], "response": [0.5, 1, 0.5]},
        },
        {"name": "B08", "aliases": ["nir", "infrared"], "dtype": "uint16", "nodata": 0, "units": "1"},
        {"name": "B11", "aliases": ["swir16"], "dtype": "uint16", "nodata": 0, "units": "1"},
        {"name": "SCL", "dtype": "uint8", "nodata": 255, "units": "1"},
    ],
}


@dataclass(frozen=True)
class Grid:
    """A north-up grid: left and top edge, pixel size, rows and columns, EPSG code."""

    left: float
    top: float
    size: float
    shape: tuple[int, int]
    epsg: int = 32632

    @property
    def transform(self) -> Affine:
        """From (column, row) to (x, y)."""
        return Affine(self.size, 0, self.left, 0, -self.size, self.top)


FINE = Grid(600000, 5200000, 10, (60, 80))
COARSE = Grid(600000, 5200000, 20, (30, 40))


def product(name: str, **changes: Any) -> dict[str, Any]:
    """The product definition under another name, with changes."""
    metadata = {**PRODUCT["metadata"], "product": {"name": name}}
    return {**PRODUCT, "name": name, "metadata": metadata, **changes}


def pixels(grid: Grid, seed: int, dtype: str = "uint16", nodata: float | None = 0) -> np.ndarray:
    """Distinct values, with some no-data in the upper left corner."""
    values = np.random.default_rng(seed).integers(1, 200, grid.shape).astype(dtype)
    if nodata is not None:
        values[:5, :7] = nodata
    return values


def write(
    path: Path,
    bands: Mapping[str, tuple[Grid, np.ndarray]],
    name: str = "tiny_s2",
    time: str = "2022-06-01T10:00:00Z",
    nodata: float | None = 0,
    **properties: Any,
) -> dict[str, Any]:
    """Write a file for each band and return the EO3 document of the scene."""
    path.mkdir(parents=True, exist_ok=True)
    grids: dict[str, Grid] = {}
    measurements = {}
    for band, (grid, values) in bands.items():
        key = next((k for k, g in grids.items() if g == grid), f"g{len(grids)}" if grids else "default")
        grids[key] = grid
        measurements[band] = {"path": f"{band}.tif", "grid": key}
        options = {"height": values.shape[0], "width": values.shape[1], "crs": f"EPSG:{grid.epsg}"}
        with rasterio.open(
            path / f"{band}.tif",
            "w",
            driver="GTiff",
            count=1,
            dtype=values.dtype,
            transform=grid.transform,
            nodata=nodata,
            tiled=True,
            blockxsize=16,
            blockysize=16,
            **options,
        ) as file:
            file.write(values, 1)
    return document(path, measurements, grids, name, time, **properties)


def document(
    path: Path,
    measurements: Mapping[str, Any],
    grids: Mapping[str, Grid],
    name: str,
    time: str,
    **properties: Any,
) -> dict[str, Any]:
    """An EO3 document."""
    return {
        "$schema": "https://schemas.opendatacube.org/dataset",
        "id": str(uuid5(NAMESPACE, f"{path} {name} {time}")),
        "product": {"name": name},
        "location": (path / "scene.odc-metadata.yaml").as_uri(),
        "crs": f"epsg:{next(iter(grids.values())).epsg}",
        "grids": {k: {"shape": list(g.shape), "transform": list(g.transform)} for k, g in grids.items()},
        "measurements": dict(measurements),
        "properties": {
            "datetime": time,
            "odc:processing_datetime": time,
            "odc:file_format": "GeoTIFF",
            "eo:instrument": "MSI",
            **{key.replace("__", ":"): value for key, value in properties.items()},
        },
        "lineage": {},
    }


def scene(path: Path, seed: int, time: str, left: float = 600000, **properties: Any) -> dict[str, Any]:
    """A scene with all bands of the product; the values are those of `bands_of` with the same seed."""
    return write(path, bands_of(seed, left), time=time, nodata=None, **properties)


def bands_of(seed: int, left: float = 600000) -> dict[str, tuple[Grid, np.ndarray]]:
    """Grids and values of the four bands."""
    fine, coarse = (Grid(left, g.top, g.size, g.shape) for g in (FINE, COARSE))
    return {
        "B04": (fine, pixels(fine, seed)),
        "B08": (fine, pixels(fine, seed + 1000)),
        "B11": (coarse, pixels(coarse, seed + 2000)),
        "SCL": (coarse, pixels(coarse, seed + 3000, "uint8", 255)),
    }


class Index:
    """What the `datacube` command does, without a process for each call, over its own connection."""

    def __init__(self, datacube: Datacube | None = None) -> None:
        self.datacube = datacube or Datacube(app="test")
        self.index = self.datacube.index

    @classmethod
    def of(cls, url: str, driver: str) -> Index:
        """The index in a database, whichever is the default one."""
        return cls(Datacube(raw_config={"default": {"db_url": url, "index_driver": driver}}, app="test"))

    def add_product(self, definition: Mapping[str, Any]) -> None:
        """`datacube product add`."""
        self.index.products.add_document(dict(definition))

    def update_product(self, definition: Mapping[str, Any]) -> None:
        """`datacube product update --allow-unsafe`."""
        product = self.index.products.from_doc(dict(definition))
        self.index.products.update(product, allow_unsafe_updates=True)

    def dataset(self, document: Mapping[str, Any]) -> Any:
        """The document as a dataset."""
        resolve = Doc2Dataset(self.index, skip_lineage=True)
        dataset, error = resolve(dict(document), document["location"])
        assert error is None, error
        return dataset

    def add(self, *documents: Mapping[str, Any]) -> None:
        """`datacube dataset add`."""
        for document in documents:
            self.index.datasets.add(self.dataset(document), with_lineage=False)

    def update(self, document: Mapping[str, Any]) -> None:
        """`datacube dataset update --allow-any`."""
        self.index.datasets.update(self.dataset(document), updates_allowed={(): changes.allow_any})

    def archive(self, *documents: Mapping[str, Any]) -> None:
        """`datacube dataset archive`."""
        self.index.datasets.archive([d["id"] for d in documents])

    def restore(self, *documents: Mapping[str, Any]) -> None:
        """`datacube dataset restore`."""
        self.index.datasets.restore([d["id"] for d in documents])
