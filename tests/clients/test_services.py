"""Secondary web services through real clients: `openeo`, GDAL's WMTS driver, Leaflet and OpenLayers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import openeo
import pystac
import pytest
import rasterio
import requests
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tests.browser import Page, browser, find_program
from tests.clients.truth import Scene, scenes
from tests.support.waiting import wait_for

PRODUCT = "s2_l2a_sample"
BOX = {"west": 679720, "south": 5151080, "east": 680680, "north": 5151920, "crs": 32632}
TIME = ["2022-06-01", "2022-06-03"]
ZOOM = 14
RANGE = [0, 5000]
WORLD = 20037508.342789244


def geobox(zoom: int, column: int, row: int, tiles: int = 1) -> GeoBox:
    size = 2 * WORLD / 2**zoom
    left, top = -WORLD + column * size, WORLD - row * size
    box = (left, top - tiles * size, left + tiles * size, top)
    return GeoBox.from_bbox(box, crs="EPSG:3857", shape=(256 * tiles, 256 * tiles), tight=True)


@pytest.fixture
def tile() -> tuple[int, int]:
    """Column and row of the tile in the middle of the box."""
    point = GeoBox.from_bbox((BOX["west"], BOX["south"], BOX["east"], BOX["north"]), crs=32632, shape=(1, 1))
    left, bottom, right, top = point.extent.to_crs("EPSG:3857").boundingbox.bbox
    size = 2 * WORLD / 2**ZOOM
    return int(((left + right) / 2 + WORLD) // size), int((WORLD - (bottom + top) / 2) // size)


@pytest.fixture
def scene(samples: Path) -> Scene:
    """The first scene of those days; another one, further east, is seconds later."""
    return scenes(samples / PRODUCT, *TIME)[0]


@pytest.fixture
def service(
    connection: openeo.Connection, scene: Scene, request: pytest.FixtureRequest
) -> Iterator[dict[str, Any]]:
    """A service of a band of that scene, of the type in the test's parameter; its metadata."""
    cube = connection.load_collection(PRODUCT, temporal_extent=TIME, bands=["B08"])
    settings = {"range": RANGE, "public": True, "time": scene.time.isoformat(timespec="seconds")}
    kind = getattr(request, "param", "xyz")
    service = connection.create_service(
        cube.flat_graph(), kind, title="Near infrared", configuration=settings
    )
    yield service.describe_service()
    service.delete_service()


def shades(scene: Scene, grid: GeoBox, **opened: Any) -> np.ndarray:
    """What GDAL makes of the file on a grid, as shades; NaN without data."""
    with rasterio.open(scene.bands["B08"], **opened) as file:
        options = {"crs": "EPSG:3857", "transform": grid.transform, "tolerance": 0.001}
        options |= {"height": grid.shape.y, "width": grid.shape.x, "resampling": Resampling.nearest}
        with WarpedVRT(file, **options, nodata=0, src_nodata=0) as warped:
            values = warped.read(1).astype(float)
    return np.where(values == 0, np.nan, np.rint(np.clip(values / RANGE[1], 0, 1) * 255))


def grey(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image.convert("LA")).astype(float)
    return np.where(pixels[..., 1] == 0, np.nan, pixels[..., 0])


def fetch(url: str) -> Image.Image:
    answer = requests.get(url, timeout=60)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def equal(one: np.ndarray, expected: np.ndarray) -> float:
    """The part of the pixels that are the same."""
    return float(np.isclose(one, expected, atol=1, equal_nan=True).mean())


def test_tiles_of_the_python_client(
    connection: openeo.Connection, service: dict[str, Any], scene: Scene, tile: tuple[int, int]
) -> None:
    assert service["id"] in {entry["id"] for entry in connection.list_services()}
    assert service["attributes"]["times"][0].startswith("2022-06")
    seen = grey(fetch(service["url"].format(z=ZOOM, x=tile[0], y=tile[1])))
    assert equal(seen, shades(scene, geobox(ZOOM, *tile))) > 0.98
    assert np.isfinite(seen).mean() > 0.5
    path = f"/services/{service['id']}"
    usage = wait_for(lambda: (usage := connection.get(path).json()["usage"])["tiles"]["value"] >= 1 and usage)
    assert usage["network"]["value"] > 1000


def test_tiles_equal_odc_stac(service: dict[str, Any], scene: Scene, tile: tuple[int, int]) -> None:
    grid = geobox(ZOOM, *tile)
    with rasterio.open(scene.bands["B08"]) as file:
        place = {"proj:shape": list(file.shape), "proj:transform": list(file.transform)[:6]}
    properties = {"proj:code": f"EPSG:{scene.epsg}"}
    item = pystac.Item("scene", None, None, scene.time, properties)
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    item.add_asset("B08", pystac.Asset(str(scene.bands["B08"]), roles=["data"], extra_fields=place))
    loaded = odc.stac.load([item], bands=["B08"], geobox=grid, resampling="nearest", nodata=0)
    values = loaded["B08"].values[0].astype(float)
    expected = np.where(values == 0, np.nan, np.rint(np.clip(values / RANGE[1], 0, 1) * 255))
    assert equal(grey(fetch(service["url"].format(z=ZOOM, x=tile[0], y=tile[1]))), expected) == 1


def test_far_away_tiles_are_read_from_overviews(
    service: dict[str, Any], scene: Scene, tile: tuple[int, int]
) -> None:
    zoom = 11
    x, y = (place >> (ZOOM - zoom) for place in tile)
    seen = grey(fetch(service["url"].format(z=zoom, x=x, y=y)))
    # Pixels of the tile are 5 of the file: the overview of 4 is the coarsest that is fine enough.
    expected = shades(scene, geobox(zoom, x, y), overview_level=1)
    both = np.isfinite(seen) & np.isfinite(expected)
    assert both.sum() > 2000
    assert equal(seen[both], expected[both]) > 0.9
    assert equal(seen[both], shades(scene, geobox(zoom, x, y))[both]) < 0.5


def test_logs_and_errors(connection: openeo.Connection, tile: tuple[int, int]) -> None:
    cube = connection.load_collection(PRODUCT, temporal_extent=TIME)
    service = connection.create_service(cube.flat_graph(), "XYZ")
    url = service.describe_service()["url"].format(z=ZOOM, x=tile[0], y=tile[1])
    picture = requests.get(url, headers={"Accept": "image/webp,image/*,*/*;q=0.8"}, timeout=60)
    assert (picture.status_code, picture.headers["Content-Type"]) == (400, "image/png")
    (entry,) = wait_for(lambda: [entry for entry in service.logs() if entry["level"] == "error"])
    assert "bands" in entry["message"]
    service.delete_service()
    assert requests.get(url, timeout=60).status_code == 404


@pytest.mark.parametrize("service", ["wmts"], indirect=True)
def test_gdal_reads_wmts(
    service: dict[str, Any], scene: Scene, tile: tuple[int, int], tmp_path: Path
) -> None:
    with rasterio.Env(GDAL_DEFAULT_WMS_CACHE_PATH=str(tmp_path), GDAL_HTTP_TIMEOUT="60"):
        options = {"LAYER": "result", "TILEMATRIXSET": "EPSG:3857", "TILEMATRIX": str(ZOOM)}
        with rasterio.open(f"WMTS:{service['url']}", **options) as file:
            assert file.crs.to_epsg() == 3857
            grid = geobox(ZOOM, *tile)
            window = file.window(*grid.boundingbox.bbox).round_offsets().round_lengths()
            read = file.read(1, window=window)
    expected = shades(scene, grid)
    assert read.shape == expected.shape == (256, 256)
    shown = np.isfinite(expected)
    assert equal(read[shown], expected[shown]) > 0.98


# --- Maps in a browser ---------------------------------------------------------------------------

PAGE = """<!doctype html><meta charset="utf-8"><title>map</title><style>html, body {{ margin: 0 }}
#map {{ width: 512px; height: 512px; background: white }}</style><div id="map"></div>{scripts}"""

LEAFLET = """<link rel="stylesheet" href="{modules}/leaflet/dist/leaflet.css">
<script src="{modules}/leaflet/dist/leaflet.js"></script><script>
const map = L.map("map", {{zoomControl: false, attributionControl: false, fadeAnimation: false,
  zoomAnimation: false}});
map.setView(L.CRS.EPSG3857.unproject(L.point({x}, {y})), {zoom});
window.ready = new Promise(done => L.tileLayer({url!r}).on("load", () => done(1)).addTo(map));
</script>"""

OPENLAYERS = """<script src="{modules}/ol/dist/ol.js"></script><script>
window.ready = fetch({url!r}).then(answer => answer.text()).then(text => {{
  const told = new ol.format.WMTSCapabilities().read(text);
  const options = ol.source.WMTS.optionsFromCapabilities(told, {{layer: "result", matrixSet: "EPSG:3857"}});
  const source = new ol.source.WMTS({{...options, transition: 0, interpolate: false}});
  const map = new ol.Map({{target: "map", controls: [], interactions: [], pixelRatio: 1,
    layers: [new ol.layer.Tile({{source}})],
    view: new ol.View({{center: [{x}, {y}], zoom: {zoom}}})}});
  return new Promise(done => map.once("rendercomplete", () => done(1)));
}});
</script>"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A tab of a browser without windows."""
    program = find_program()
    if program is None:
        pytest.skip("Chromium is not installed")
    with browser(program) as opened:
        yield opened


@pytest.mark.parametrize(
    ("service", "scripts"),
    [("xyz", LEAFLET), ("wmts", OPENLAYERS)],
    indirect=["service"],
    ids=["Leaflet", "OpenLayers"],
)
def test_maps_show_the_pixels_of_the_file(
    service: dict[str, Any],
    scripts: str,
    node_modules: Path,
    page: Page,
    scene: Scene,
    tile: tuple[int, int],
    tmp_path: Path,
) -> None:
    grid = geobox(ZOOM, *tile, tiles=2)
    x, y = middle(grid)
    values = {"modules": node_modules.as_uri(), "x": x, "y": y, "zoom": ZOOM, "url": service["url"]}
    path = tmp_path / "map.html"
    path.write_text(PAGE.format(scripts=scripts.format(**values)), encoding="utf-8")
    page.open(path.as_uri())
    page.evaluate("window.ready")
    assert page.problems == []
    picture = Image.open(page.picture(tmp_path / "map.png")).crop((0, 0, 512, 512))
    shown = np.asarray(picture.convert("L")).astype(float)
    expected = shades(scene, grid)
    assert np.isfinite(expected).mean() > 0.3
    assert equal(shown, np.where(np.isfinite(expected), expected, 255)) > 0.98


def middle(grid: GeoBox) -> tuple[float, float]:
    left, bottom, right, top = grid.boundingbox.bbox
    return (left + right) / 2, (bottom + top) / 2
