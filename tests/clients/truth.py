"""What the files say: values read from GeoTIFFs with rasterio, without any of this package's code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import rasterio
import yaml
from rasterio.windows import from_bounds

Box = tuple[float, float, float, float]
"""West, south, east, north in the CRS of the files."""


@dataclass(frozen=True)
class Scene:
    """One dataset: its time, its files by band, and the properties of its document."""

    time: datetime
    bands: dict[str, Path]
    properties: dict
    epsg: int
    id: str


def scenes(folder: Path, start: str, end: str, epsg: int | None = None) -> list[Scene]:
    """The scenes whose documents lie below a folder, acquired in [start, end), in the order of time."""
    scenes = (_scene(path) for path in folder.rglob("*.odc-metadata.yaml"))
    chosen = [s for s in scenes if start <= s.time.isoformat() < end and epsg in (None, s.epsg)]
    return sorted(chosen, key=lambda s: s.time)


def scenes_of(documents: Iterable[Path]) -> list[Scene]:
    """The scenes of the given documents in the order of time."""
    return sorted(map(_scene, documents), key=lambda s: s.time)


def _scene(path: Path) -> Scene:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    properties = document["properties"]
    time = properties["datetime"]
    moment = time if isinstance(time, datetime) else datetime.fromisoformat(str(time).replace("Z", "+00:00"))
    bands = {
        name: path.parent / m["path"].removeprefix("file://") for name, m in document["measurements"].items()
    }
    epsg = rasterio.crs.CRS.from_user_input(document["crs"]).to_epsg() or 0
    return Scene(moment.replace(tzinfo=None), bands, properties, epsg, document["id"])


def pixels(scene: Scene, band: str, box: Box) -> np.ndarray:
    """The values of a band inside a box on its own grid as float64, NaN where there is no data."""
    with rasterio.open(scene.bands[band]) as file:
        window = from_bounds(*box, transform=file.transform).round_offsets().round_lengths()
        values = file.read(1, window=window, boundless=True, fill_value=file.nodata)
        data = values.astype("float64")
        return data if file.nodata is None else np.where(values == file.nodata, np.nan, data)


def series(chosen: Iterable[Scene], band: str, box: Box) -> np.ndarray:
    """A band of many scenes, one after the other: time, y, x."""
    return np.stack([pixels(scene, band, box) for scene in chosen])


def finer(values: np.ndarray, times: int = 2) -> np.ndarray:
    """Each pixel repeated in both directions (the last two axes), as nearest neighbour does."""
    return values.repeat(times, axis=-2).repeat(times, axis=-1)
