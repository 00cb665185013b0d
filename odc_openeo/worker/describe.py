"""What a run has made and of what, as plain JSON: kept with the results, shown as STAC."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from odc_openeo import __version__, db
from odc_openeo.catalog import Catalog, Query, Scene
from odc_openeo.config import Config
from odc_openeo.formats import Asset

MOST_INPUTS: Final = 1000
"""Datasets that are listed by id; the rest is only counted."""

LIBRARIES: Final = ("datacube", "odc-loader", "xarray", "dask", "numpy", "rasterio")


class RecordingCatalog(Catalog):
    """A catalogue that remembers which scenes it has given."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.given: dict[str, Scene] = {}

    def search(self, id_: str, query: Query, limit: int = 10_000) -> list[Scene]:
        """As `Catalog.search`."""
        found = super().search(id_, query, limit)
        self.given.update((scene.id, scene) for scene in found)
        return found


def describe(asset: Asset) -> dict[str, Any]:
    """A file, or a folder of files, as the results remember it."""
    known = {
        "name": asset.path.name,
        "type": asset.media_type,
        "title": asset.title,
        "roles": list(asset.roles),
        "bands": [dict(band) for band in asset.bands],
        "datetime": asset.datetime,
        "start_datetime": asset.start_datetime,
        "end_datetime": asset.end_datetime,
        "bbox": list(asset.bbox) if asset.bbox else None,
        "geometry": asset.geometry,
        "projection": dict(asset.projection),
        "folder": asset.path.is_dir(),
        "file:size": size(asset.path),
        "file:checksum": None if asset.path.is_dir() else multihash(asset.path),
    }
    return {name: value for name, value in known.items() if value not in (None, [], {})}


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files: Iterable[Path] = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def multihash(path: Path) -> str:
    """The SHA-256 of a file as the STAC file extension wants it: a multihash in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return f"12{digest.digest_size:02x}{digest.hexdigest()}"


def details(catalog: RecordingCatalog, config: Config) -> dict[str, Any]:
    """Provenance: software, input datasets, their times, licence and providers."""
    scenes = sorted(catalog.given.values(), key=lambda s: (s.product, s.time, s.id))
    collections = [catalog.collection(name) for name in sorted({s.product for s in scenes})]
    licences = {c.get("license", "other") for c in collections}
    return {
        "processed": _rfc3339(db.now()),
        "software": {
            "odc-openeo": __version__,
            "Python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        "facility": config.title,
        "interval": [_rfc3339(f(s.time for s in scenes)) for f in (min, max)] if scenes else None,
        "inputs": [
            {"collection": s.product, "id": s.id, "datetime": _rfc3339(s.time)} for s in scenes[:MOST_INPUTS]
        ],
        "input_count": len(scenes),
        "license": licences.pop() if len(licences) == 1 else "other",
        "providers": _distinct(p for c in collections for p in c.get("providers") or ()),
    }


def _distinct(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({provider["name"]: provider for provider in found}.values())


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
