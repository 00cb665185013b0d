"""Damaged files of each input format, read as those of users are, pixels included."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask
import geopandas
import numpy as np
import rasterio
import shapely
import xarray as xr
from rasterio.transform import from_origin

from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.read import get_input_format
from odc_openeo.load import build
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.untrusted.rasters import LocalFolder
from tests.fuzz.trials import Report, run_in_runners

DEADLINE_S = 60.0
MEMORY = 2**30
"""Memory of the runner."""

Case = tuple[str, bytes]
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKENS = (
    "NaN",
    "null",
    "1e308",
    "-1e308",
    "[]",
    "{}",
    '""',
    "\\u0000",
    "-1",
    "99999999999999999999",
    "\\ud800",
)


# --- Sound files ---------------------------------------------------------------------------------


def _raster(path: Path, driver: str, **options: Any) -> bytes:
    values = np.random.default_rng(1).integers(0, 200, (2, 40, 50)).astype("uint8")
    grid = {"crs": "EPSG:32632", "transform": from_origin(680_000, 5_152_000, 10, 10), "nodata": 7}
    profile = {"driver": driver, "width": 50, "height": 40, "count": 2, "dtype": "uint8", **options}
    with rasterio.open(path, "w", **profile, **grid) as file:
        file.write(values)
        file.descriptions = ("B04", "B08")
    return path.read_bytes()


def _cube(dtype: str = "float32") -> xr.DataArray:
    values = np.random.default_rng(2).random((2, 2, 8, 9)).astype(dtype)
    coords = {
        "t": np.array(["2022-01-01", "2022-02-01"], "datetime64[ns]"),
        "bands": ["a", "b"],
        "y": 100.0 - 10 * np.arange(8),
        "x": 10.0 * np.arange(9),
    }
    return xr.DataArray(values, dims=("t", "bands", "y", "x"), coords=coords).odc.assign_crs("EPSG:32632")


def _frame() -> geopandas.GeoDataFrame:
    shapes = [shapely.Point(11, 46), shapely.box(11, 46, 11.1, 46.1), None]
    columns = {"name": ["a", "b", None], "value": [1, 2.5, None]}
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=4326)


def _netcdf(folder: Path) -> bytes:
    (asset,) = write_outputs(None, [Output.from_data(_cube(), "netCDF")], folder)
    return asset.path.read_bytes()


def _classic_netcdf(folder: Path) -> bytes:
    path = folder / "classic.nc"
    dataset = xr.Dataset({"v": (("lat", "lon"), np.ones((5, 6), "i2"))})
    dataset = dataset.assign_coords(lat=50.0 - np.arange(5), lon=10.0 + np.arange(6))
    dataset.to_netcdf(path, format="NETCDF3_64BIT", engine="netcdf4")
    return path.read_bytes()


def _parquet(folder: Path) -> bytes:
    _frame().dropna().to_parquet(folder / "a.parquet")
    return (folder / "a.parquet").read_bytes()


def _item(folder: Path) -> bytes:
    _raster(folder / "image.tif", "GTiff")
    asset = {
        "href": str(folder / "image.tif"),
        "type": "image/tiff; application=geotiff",
        "bands": [{"name": "B04", "eo:common_name": "red"}, {"name": "B08", "raster:scale": 0.1}],
        "proj:shape": [40, 50],
        "proj:transform": [10, 0, 680000, 0, -10, 5152000],
        "proj:code": "EPSG:32632",
    }
    ring = [[11.3, 46.4], [11.4, 46.4], [11.4, 46.5], [11.3, 46.4]]
    document = {
        "type": "Feature",
        "id": "i",
        "properties": {"datetime": "2022-06-01T10:00:00Z", "eo:cloud_cover": 1},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [11.3, 46.4, 11.4, 46.5],
        "assets": {"data": asset},
    }
    return json.dumps(document).encode()


SOUND: dict[str, Callable[[Path], bytes]] = {
    "GTiff": lambda folder: _raster(folder / "a.tif", "GTiff", tiled=True, blockxsize=16, blockysize=16),
    "GTiff deflate": lambda folder: _raster(folder / "b.tif", "GTiff", compress="deflate"),
    "GTiff COG": lambda folder: _raster(folder / "c.tif", "COG"),
    "JPEG 2000": lambda folder: _raster(folder / "a.jp2", "JP2OpenJPEG"),
    "netCDF": _netcdf,
    "netCDF classic": _classic_netcdf,
    "GeoJSON": lambda folder: _frame().dropna().to_json().encode(),
    "Parquet": _parquet,
    "CSV": lambda folder: b'name,geometry\na,POINT (11 46)\n"b","POLYGON ((0 0, 1 0, 1 1, 0 0))"\n',
    "CSV points": lambda folder: b"lon,lat,v\n11,46,1\n11.5,46.5,\n",
    "STAC Item": _item,
}
TEXTS = {"GeoJSON", "CSV", "CSV points", "STAC Item"}


@cache
def read_sound_files() -> dict[str, bytes]:
    """A sound file of each kind; the image of the Item stays where it is."""
    folder = Path(tempfile.mkdtemp(prefix="odc-openeo-fuzz-"))
    return {kind: make(folder) for kind, make in SOUND.items()}


# --- Damage ----------------------------------------------------------------------------------------


def flip_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes, most often those at the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 2, 8, 64))):
        end = min(len(changed), chance.choice((64, 512, len(changed))))
        changed[chance.randrange(end)] = chance.randrange(256)
    return bytes(changed)


def lie_about_sizes(content: bytes, chance: random.Random) -> bytes:
    """Replace a number by an extreme one."""
    changed = bytearray(content)
    width = chance.choice((1, 2, 4, 8))
    place = chance.randrange(max(min(len(changed), chance.choice((512, len(changed)))) - width, 1))
    number = chance.choice(EXTREMES) & (2 ** (8 * width) - 1)
    changed[place : place + width] = number.to_bytes(width, chance.choice(("little", "big")))
    return bytes(changed)


def truncate(content: bytes, chance: random.Random) -> bytes:
    """Cut off the end."""
    return content[: chance.randrange(len(content))]


def cut_out(content: bytes, chance: random.Random) -> bytes:
    """Remove, double or move a piece."""
    start = chance.randrange(len(content))
    piece = content[start : start + chance.choice((1, 4, 100))]
    rest = content[:start] + content[start + len(piece) :]
    target = chance.randrange(len(rest) + 1)
    return rest[:target] + piece * chance.choice((0, 1, 3)) + rest[target:]


def splice(content: bytes, chance: random.Random) -> bytes:
    """Go on with another file."""
    other = chance.choice(list(read_sound_files().values()))
    return content[: chance.randrange(len(content))] + other[chance.randrange(len(other)) :]


def replace_values(content: bytes, chance: random.Random) -> bytes:
    """Replace numbers and strings of a text by odd ones."""
    text = content.decode(errors="replace")
    for _ in range(chance.choice((1, 1, 3))):
        places = list(re.finditer(r'-?\d+(\.\d+)?|"[^"]*"|\[|\{', text))
        if places:
            place = chance.choice(places)
            text = text[: place.start()] + chance.choice(TOKENS) + text[place.end() :]
    return text.encode(errors="surrogatepass")


BINARY = (flip_bytes, flip_bytes, lie_about_sizes, lie_about_sizes, truncate, cut_out, splice)


def generate_cases(number: int, seed: int) -> Iterator[Case]:
    """Damaged files by kind."""
    chance = random.Random(seed)
    for _ in range(number):
        kind, content = chance.choice(list(read_sound_files().items()))
        for _ in range(chance.choice((1, 1, 2))):
            damages = (*BINARY, *(replace_values,) * 8) if kind in TEXTS else BINARY
            content = chance.choice(damages)(content or b"\0", chance)
        yield kind, content


# --- Trial -----------------------------------------------------------------------------------------


def read_file(config: Config, case: Case) -> None:
    """Read a file as for a request, and compute what it holds."""
    kind, content = case
    with tempfile.TemporaryDirectory(prefix="odc-openeo-fuzz-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        try:
            _compute(_read(kind, path))
        except OpenEOError:
            raise
        except Exception as error:
            explained = explain_read_failure(error)
            if explained is None:
                raise
            raise explained from error


def _read(kind: str, path: Path) -> Any:
    if kind == "JPEG 2000":
        asset = {"href": str(path), "type": "image/jp2"}
        item = {"id": "i", "properties": {"datetime": "2022-01-01T00:00:00Z"}, "assets": {"a": asset}}
        return _load_item(item, path.parent)
    if kind == "STAC Item":
        try:
            item = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return None
        images = {
            Path(str(href)).parent
            for href in re.findall(r'"href": "([^"]+)"', path.read_text(errors="replace"))
        }
        return _load_item(item, next(iter(images), path.parent))
    return get_input_format(kind.split()[0]).read([path])


def _load_item(item: Any, folder: Path) -> Any:
    bands, scenes = read_items([item], LocalFolder(folder))
    return build.load(scenes, bands)


def _compute(value: Any) -> None:
    if isinstance(value, xr.DataArray | xr.Dataset):
        estimate = value.nbytes
        if estimate > MEMORY:
            return
        dask.compute(value, scheduler="synchronous")


def run(cases: int, seed: int) -> Report:
    """Try that many damaged files."""
    return run_cases(Report("files", seed), generate_cases(cases, seed))


def run_cases(report: Report, cases: Iterable[Case]) -> Report:
    """Try cases in a runner."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-fuzz-") as folder:
        config = Config(data_dir=folder, runner_memory=MEMORY)
        return run_in_runners(report, cases, read_file, config=config, deadline_s=DEADLINE_S)
