"""Descriptions of the files of a run and their provenance, as plain JSON that is stored with the results."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from odc_openeo import __version__, db
from odc_openeo.catalog import Catalog, Query, Scene
from odc_openeo.config import Config
from odc_openeo.formats import Asset
from odc_openeo.timestamps import format_rfc3339

MOST_INPUTS: Final = 1000
"""Datasets that are listed by id; further ones are only counted."""

LIBRARIES: Final = ("datacube", "odc-loader", "xarray", "dask", "numpy", "rasterio")


class RecordingCatalog(Catalog):
    """A catalogue that records the scenes it returns."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.scenes: dict[str, Scene] = {}

    def search_scenes(self, id_: str, query: Query, limit: int = 10_000) -> list[Scene]:
        """Search as `Catalog.search_scenes` does, and record the scenes."""
        scenes = super().search_scenes(id_, query, limit)
        self.scenes.update((scene.id, scene) for scene in scenes)
        return scenes


def describe_asset(asset: Asset) -> dict[str, Any]:
    """Describe a file, or a folder of files, as it is stored with the results."""
    is_folder = asset.path.is_dir()
    checksum = None if is_folder else compute_multihash(asset.path)
    return describe_stored_asset(asset, count_bytes(asset.path), checksum, is_folder=is_folder)


def describe_stored_asset(
    asset: Asset, size: int, checksum: str | None = None, *, is_folder: bool = False
) -> dict[str, Any]:
    """Describe a file or folder of known size in bytes, which need not be on this machine."""
    properties = {
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
        "folder": is_folder,
        "file:size": size,
        "file:checksum": checksum,
    }
    return {name: value for name, value in properties.items() if value not in (None, [], {})}


def count_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    files: Iterable[Path] = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def compute_multihash(path: Path) -> str:
    """Return the SHA-256 of a file as a multihash in hexadecimal digits, for the STAC file extension."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return f"12{digest.digest_size:02x}{digest.hexdigest()}"


def collect_provenance(catalog: RecordingCatalog, config: Config) -> dict[str, Any]:
    """Return the provenance: software, input datasets, their times, licence and providers."""
    scenes = sorted(catalog.scenes.values(), key=lambda s: (s.product, s.time, s.id))
    collections = [catalog.get_collection(name) for name in sorted({s.product for s in scenes})]
    licences = {c.get("license", "other") for c in collections}
    return {
        "processed": format_rfc3339(db.now()),
        "software": {
            "odc-openeo": __version__,
            "Python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        "facility": config.title,
        "interval": [format_rfc3339(f(s.time for s in scenes)) for f in (min, max)] if scenes else None,
        "inputs": [
            {"collection": s.product, "id": s.id, "datetime": format_rfc3339(s.time)}
            for s in scenes[:MOST_INPUTS]
        ],
        "input_count": len(scenes),
        "license": licences.pop() if len(licences) == 1 else "other",
        "providers": _drop_duplicates(p for c in collections for p in c.get("providers") or ()),
    }


def _drop_duplicates(providers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({provider["name"]: provider for provider in providers}.values())
