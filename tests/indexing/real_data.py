"""Index documents for the real scenes beside the project (`../shared/data`); nothing of the data is copied.

from tests.indexing.real_data import DATA, LANDSAT, FIELD, products, write_documents
documents = write_documents(tmp_path)   # {"landsat8_ny": [...], "s2_field": [...]}
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import rasterio
from odc.geo.geobox import GeoBox

from odc_openeo.indexing.documents import Dataset, Measurement

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LANDSAT_SCENES = DATA / "landsat8-ny-2018"
FIELD_SCENES = DATA / "sentinel2-field"
LANDSAT = "landsat8_ny"
FIELD = "s2_field"


def products() -> list[Path]:
    """The product definitions of the real data."""
    return sorted((Path(__file__).parent / "products").glob("*.odc-product.yaml"))


def write_documents(folder: Path) -> dict[str, list[Path]]:
    """Write an EO3 document for each real scene into `folder`; their paths by product."""
    return {product: _write_all(datasets, folder) for product, datasets in _datasets().items()}


def _datasets() -> dict[str, list[Dataset]]:
    dates = sorted({path.name[:10] for path in FIELD_SCENES.glob("*.tif")})
    return {
        LANDSAT: [_landsat(scene) for scene in sorted(LANDSAT_SCENES.iterdir()) if scene.is_dir()],
        FIELD: [_field(day) for day in dates],
    }


def _landsat(scene: Path) -> Dataset:
    _, level, region, day, *_ = scene.name.split("_")
    files = sorted(scene.glob("*.TIF"), key=lambda path: (len(path.stem), path.stem))
    properties = {
        "eo:platform": "landsat-8",
        "eo:instrument": "OLI_TIRS",
        "odc:region_code": region,
        "landsat:wrs_path": int(region[:3]),
        "landsat:wrs_row": int(region[3:]),
        "landsat:processing_level": level,
    }
    time = datetime.strptime(day + "153500", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    bands = {path.stem.rsplit("_", 1)[1]: _measurement(path) for path in files}
    return Dataset(LANDSAT, scene.name, time, bands, properties)


def _field(day: str) -> Dataset:
    bands = {name: _measurement(FIELD_SCENES / f"{day}_{name}.tif") for name in ("B04", "B08", "SCL")}
    properties = {"eo:constellation": "sentinel-2", "eo:instrument": "MSI"}
    time = datetime.fromisoformat(f"{day}T11:10:00+00:00")
    return Dataset(FIELD, f"field_{day}", time, bands, properties)


def _measurement(path: Path) -> Measurement:
    with rasterio.open(path) as source:
        return Measurement(path.as_uri(), GeoBox(source.shape, source.transform, source.crs))


def _write_all(datasets: Iterable[Dataset], folder: Path) -> list[Path]:
    return [dataset.write(folder / f"{dataset.label}.odc-metadata.yaml") for dataset in datasets]
