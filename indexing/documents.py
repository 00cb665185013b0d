"""EO3 dataset documents: what the Open Data Cube index stores of a scene."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

EO3_SCHEMA = "https://schemas.opendatacube.org/dataset"
# Any fixed namespace works: the same product and label give the same id on every machine.
_NAMESPACE = uuid.UUID("5f0f6b1c-9c4b-5d7e-8a56-0d6c0e0b3a11")


@dataclass(frozen=True)
class Measurement:
    """One band of a dataset: its file (relative to the document, or an absolute URI) and its grid."""

    path: str
    geobox: GeoBox


@dataclass(frozen=True)
class Dataset:
    """The content of an EO3 document. `footprint`, in the CRS of the grids, is the area with valid pixels."""

    product: str
    label: str
    time: datetime
    measurements: Mapping[str, Measurement]
    properties: Mapping[str, Any] = field(default_factory=dict)
    footprint: Geometry | None = None

    @property
    def id(self) -> uuid.UUID:
        """The id, determined by product and label."""
        return uuid.uuid5(_NAMESPACE, f"{self.product}/{self.label}")

    def to_document(self) -> dict[str, Any]:
        """Make the EO3 document. The grid that most measurements share is the default grid."""
        grids = _name_grids(self.measurements)
        names = {geobox: name for name, geobox in grids.items()}
        crs = next(iter(grids.values())).crs
        stamp = self.time.strftime("%Y-%m-%dT%H:%M:%SZ")
        document: dict[str, Any] = {
            "$schema": EO3_SCHEMA,
            "id": str(self.id),
            "label": self.label,
            "product": {"name": self.product},
            "crs": str(crs),
            "grids": {name: _describe_grid(geobox) for name, geobox in grids.items()},
            "measurements": {
                band: {"path": m.path} | ({} if names[m.geobox] == "default" else {"grid": names[m.geobox]})
                for band, m in self.measurements.items()
            },
            "properties": {
                "datetime": stamp,
                "odc:processing_datetime": stamp,
                "odc:file_format": "GeoTIFF",
                **self.properties,
            },
            "lineage": {},
        }
        if self.footprint is not None:
            document["geometry"] = self.footprint.json
        return document

    def write(self, path: Path) -> Path:
        """Write the document as YAML to `path`."""
        path.write_text(yaml.safe_dump(self.to_document(), sort_keys=False), encoding="utf-8")
        return path


def _name_grids(measurements: Mapping[str, Measurement]) -> dict[str, GeoBox]:
    geoboxes = [m.geobox for m in measurements.values()]
    by_use = sorted(dict.fromkeys(geoboxes), key=geoboxes.count, reverse=True)
    return {_grid_name(number, geobox): geobox for number, geobox in enumerate(by_use)}


def _grid_name(number: int, geobox: GeoBox) -> str:
    return "default" if number == 0 else f"r{geobox.resolution.x:g}".replace(".", "_")


def _describe_grid(geobox: GeoBox) -> dict[str, list[float]]:
    return {
        "shape": list(geobox.shape.yx),
        "transform": [float(v) for v in geobox.affine[:6]] + [0.0, 0.0, 1.0],
    }
