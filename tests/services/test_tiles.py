"""Tiles show the values of the files: compared with numpy, GDAL's warp and the files themselves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.catalog.scenes import FINE, Grid, Index, bands_of, scene, write
from tests.services.conftest import DATA, Create, graph, load, node
from tests.support.graphs import child

ZOOM = 14
WORLD = 20037508.342789244


def tile_at(x: float, y: float, zoom: int = ZOOM, epsg: int = 32632) -> tuple[int, int]:
    """Column and row of the tile of the world that holds a point."""
    mx, my = pyproj.Transformer.from_crs(epsg, 3857, always_xy=True).transform(x, y)
    size = 2 * WORLD / 2**zoom
    return int((mx + WORLD) // size), int((WORLD - my) // size)


def centres(zoom: int, column: int, row: int, size: int = 256, epsg: int = 32632) -> tuple[Any, Any]:
    """Where the centres of a tile's pixels are, in another reference system."""
    step = 2 * WORLD / 2**zoom / size
    x = -WORLD + (column * size + np.arange(size) + 0.5) * step
    y = WORLD - (row * size + np.arange(size) + 0.5) * step
    return pyproj.Transformer.from_crs(3857, epsg, always_xy=True).transform(*np.meshgrid(x, y))


def expected(values: np.ndarray, grid: Grid, zoom: int, column: int, row: int, size: int = 256) -> np.ndarray:
    """The value of the pixel in which each centre lies, NaN outside."""
    x, y = centres(zoom, column, row, size, grid.epsg)
    c = np.floor((x - grid.left) / grid.size).astype(int)
    r = np.floor((grid.top - y) / grid.size).astype(int)
    inside = (c >= 0) & (c < values.shape[1]) & (r >= 0) & (r < values.shape[0])
    pixels = values[r.clip(0, values.shape[0] - 1), c.clip(0, values.shape[1] - 1)]
    return np.where(inside, pixels.astype(float), np.nan)


def picture(client: FlaskClient, path: str, **headers: str) -> Image.Image:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return Image.open(io.BytesIO(answer.data))


def grey(image: Image.Image) -> np.ndarray:
    """Shades as floats, NaN where it is transparent."""
    pixels = np.asarray(image.convert("LA")).astype(float)
    return np.where(pixels[..., 1] == 0, np.nan, pixels[..., 0])


def same(actual: np.ndarray, expected: np.ndarray, part: float = 0.99) -> bool:
    """Whether nearly all pixels are equal: GDAL is off by an eighth of a pixel at most."""
    equal = np.isclose(actual, expected, atol=0.5, equal_nan=True)
    return bool(equal.mean() >= part)


HERE = tile_at(600400, 5199700)
RED = graph(load=load(bands=["B04"]), save=node("save_result", format="PNG"))


def test_a_tile_shows_the_values_of_the_file(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(RED)
    values = bands_of(2)["B04"][1]
    expected_values = expected(np.where(values == 0, np.nan, values), FINE, ZOOM, *HERE)
    assert np.isfinite(expected_values).sum() > 5000
    pixels = grey(picture(client, f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    assert pixels.shape == (256, 256)
    assert same(pixels, expected_values)


def test_larger_pixels_than_the_screen_s(two: Any, create: Create, client: FlaskClient) -> None:
    column, row = tile_at(600400, 5199700, 20)
    pixels = grey(picture(client, f"{create(RED)}/20/{column}/{row}"))
    expected_values = expected(bands_of(2)["B04"][1], FINE, 20, column, row)
    assert same(pixels, expected_values)


def test_the_date_can_be_chosen(two: Any, create: Create, client: FlaskClient) -> None:
    address = f"{create(RED)}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"
    values = bands_of(1)["B04"][1]
    expected_values = expected(np.where(values == 0, np.nan, values), FINE, ZOOM, *HERE)
    for time in ("2022-06-01", "2022-06-01T10:00:00Z"):
        assert same(grey(picture(client, f"{address}?time={time}")), expected_values)
    preset = create(RED, time="2022-06-01")
    assert same(grey(picture(client, f"{preset}/{ZOOM}/{HERE[0]}/{HERE[1]}")), expected_values)
    refused = client.get(f"{address}?time=2021-01-01")
    assert refused.status_code == 400
    assert "2 dates" in refused.get_json()["message"]


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_reduced_masked_and_coloured(two: Any, create: Create, client: FlaskClient) -> None:
    mean = child("mean", data=DATA)
    ndvi = graph(
        load=load(bands=["B04", "B08"]),
        index=node("ndvi", nir="B08", red="B04"),
        mean=node("reduce_dimension", "index", dimension="t", reducer=mean),
    )
    path = create(ndvi, range=[-1, 1], colormap=["black", "white"])
    pixels = grey(picture(client, f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    pairs = [(bands_of(seed)["B04"][1].astype(float), bands_of(seed)["B08"][1]) for seed in (1, 2)]
    with np.errstate(invalid="ignore"):
        both = np.stack([(nir - red) / (nir + red) for red, nir in pairs])
    both[:, :5, :7] = np.nan
    expected_values = expected(np.nanmean(both, axis=0), FINE, ZOOM, *HERE)
    shades = np.rint((expected_values + 1) / 2 * 254) / 254 * 255
    close = np.isclose(pixels, shades, atol=1.01, equal_nan=True)
    assert close.mean() > 0.99


def test_a_kernel_sees_pixels_of_the_data(two: Any, create: Create, client: FlaskClient) -> None:
    kernel = [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    shifted = graph(
        load=load(bands=["B04"]),
        max=node("reduce_dimension", dimension="t", reducer=child("max", data=DATA)),
        kernel=node("apply_kernel", "max", kernel=kernel),
        save=node("save_result", "kernel", format="PNG"),
    )
    zoom = ZOOM + 2
    column, row = tile_at(600400, 5199700, zoom)
    pixels = grey(picture(client, f"{create(shifted)}/{zoom}/{column}/{row}.png"))
    values = np.maximum(bands_of(1)["B04"][1], bands_of(2)["B04"][1])
    moved = np.zeros(values.shape)
    moved[:, 1:] = values[:, :-1]
    expected_values = expected(moved, FINE, zoom, column, row)
    assert same(pixels, expected_values)


@pytest.mark.parametrize("extent", [None, {"from_parameter": "spatial_extent"}])
def test_tiles_meet_without_a_seam(extent: Any, two: Any, create: Create, client: FlaskClient) -> None:
    path = create(graph(load=load(bands=["B04"], spatial_extent=extent), s=node("save_result", format="PNG")))
    left, top = tile_at(600100, 5199900, 17)
    for column, row in ((left, top), (left + 1, top), (left + 1, top + 1)):
        pixels = grey(picture(client, f"{path}/17/{column}/{row}.png"))
        expected_values = expected(bands_of(2)["B04"][1], FINE, 17, column, row)
        assert np.isfinite(expected_values).any()
        assert (
            np.isfinite(pixels) == np.isfinite(np.where(expected_values == 0, np.nan, expected_values))
        ).mean() > 0.99
        assert same(pixels, np.where(expected_values == 0, np.nan, expected_values))


def test_pixels_outside_the_extent_are_transparent(two: Any, create: Create, client: FlaskClient) -> None:
    box = {"west": 600200, "east": 600400, "south": 5199600, "north": 5199800, "crs": 32632}
    cut = graph(load=load(bands=["B04"], spatial_extent=box), save=node("save_result", format="PNG"))
    pixels = grey(picture(client, f"{create(cut)}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    x, y = centres(ZOOM, *HERE)
    inside = (x >= 600200) & (x <= 600400) & (y >= 5199600) & (y <= 5199800)
    assert inside.any()
    assert (np.isfinite(pixels) == inside).mean() > 0.995


def test_elsewhere_tiles_are_transparent(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(RED)
    for address in ("3/1/1", "14/0/0"):
        assert np.isnan(grey(picture(client, f"{path}/{address}.png"))).all()
    whole = picture(client, f"{path}/0/0/0.png")
    assert whole.size == (256, 256)


def test_formats_and_sizes(two: Any, create: Create, client: FlaskClient) -> None:
    for format_, type_ in (("jpeg", "image/jpeg"), ("webp", "image/webp")):
        answer = client.get(f"{create(RED, format=format_)}/{ZOOM}/{HERE[0]}/{HERE[1]}")
        assert answer.content_type == type_
        assert Image.open(io.BytesIO(answer.data)).format == format_.upper()
    large = create(RED, tile_size=512)
    pixels = grey(picture(client, f"{large}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    values = bands_of(2)["B04"][1]
    expected_values = expected(np.where(values == 0, np.nan, values), FINE, ZOOM, *HERE, 512)
    assert same(pixels, expected_values)


def test_measured_range_is_the_same_in_all_tiles(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(graph(load=load(bands=["B04"])))
    legend = client.get(f"{path}/legend.json").get_json()
    (band,) = legend["bands"]
    values = bands_of(2)["B04"][1]
    low, high = np.percentile(values[values > 0], (2, 98))
    assert band["minimum"] == pytest.approx(low, abs=4)
    assert band["maximum"] == pytest.approx(high, abs=4)
    pixels = grey(picture(client, f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    expected_values = expected(np.where(values == 0, np.nan, values), FINE, ZOOM, *HERE)
    shades = np.clip((expected_values - band["minimum"]) / (band["maximum"] - band["minimum"]), 0, 1) * 255
    assert same(pixels, shades)
    assert client.get(f"{path}/legend.json").get_json() == legend


def test_classes_and_three_bands(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(graph(load=load(bands=["B04"])), colormap={"7": "#ff0000", "9": "blue"})
    pixels = np.asarray(picture(client, f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png").convert("RGBA"))
    expected_values = expected(bands_of(2)["B04"][1], FINE, ZOOM, *HERE)
    for value, color in ((7, [255, 0, 0, 255]), (9, [0, 0, 255, 255])):
        assert ((pixels == color).all(axis=-1) == (expected_values == value)).mean() > 0.998
    assert client.get(f"{path}/legend.json").get_json()["classes"][0] == {"value": 7.0, "color": "#ff0000"}
    path = create(graph(load=load()), bands=["B08", "B04", "B11"], range=[[0, 255], [0, 255], [0, 255]])
    pixels = np.asarray(picture(client, f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png").convert("RGBA")).astype(
        float
    )
    shown = pixels[..., 3] > 0
    for place, band in enumerate(("B08", "B04", "B11")):
        grid, values = bands_of(2)[band]
        assert same(pixels[shown][:, place], expected(values, grid, ZOOM, *HERE)[shown])
    legend = picture(client, f"{path}/legend.png")
    assert legend.size[0] > 60


def test_errors_say_what_to_change(two: Any, create: Create, client: FlaskClient) -> None:
    address = f"{create(graph(load=load()))}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"
    refused = client.get(address, headers={"Accept": "*/*"})
    assert refused.status_code == 400
    assert "4 bands (B04, B08, B11, SCL)" in refused.get_json()["message"]
    shown = client.get(address, headers={"Accept": "image/avif,image/webp,*/*;q=0.8"})
    assert (shown.status_code, shown.content_type) == (400, "image/png")
    assert shown.headers["Cache-Control"] == "no-store"
    assert Image.open(io.BytesIO(shown.data)).size == (256, 256)
    outside = client.get(address.replace(f"/{ZOOM}/", "/3/"))
    assert (outside.status_code, outside.get_json()["code"]) == (404, "TileOutOfRange")


def test_a_tile_that_reads_too_much_is_refused(two: Any, create: Create, odc_config: Config) -> None:
    strict = create_app(odc_config.model_copy(update={"tile_max_bytes": 10_000})).test_client()
    address = f"{create(RED)}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"
    refused = strict.get(address, headers={"Accept": "*/*"})
    assert (refused.status_code, refused.get_json()["code"]) == (400, "ProcessGraphComplexity")
    assert "Zoom in" in refused.get_json()["message"]


def test_two_zones_on_one_map(index: Index, tmp_path: Path, create: Create, client: FlaskClient) -> None:
    far = Grid(300000, 5200000, 10, (60, 80), 32633)
    here = Grid(700000, 5200000, 10, (60, 80), 32632)
    for grid in (here, far):
        values = np.full(grid.shape, 100 if grid is here else 200, np.uint8)
        bands = dict.fromkeys(("B04", "B08", "B11", "SCL"), (grid, values))
        index.add(write(tmp_path / str(grid.epsg), bands, nodata=None))
    path = create(RED)
    for grid, value in ((here, 100), (far, 200)):
        column, row = tile_at(grid.left + 400, grid.top - 300, ZOOM, grid.epsg)
        pixels = grey(picture(client, f"{path}/{ZOOM}/{column}/{row}.png"))
        expected_values = expected(np.full(grid.shape, value), grid, ZOOM, column, row)
        assert np.isfinite(expected_values).sum() > 1000
        assert same(pixels, expected_values)


def test_new_scenes_and_changes_show_at_once(
    two: Any, index: Index, tmp_path: Path, create: Create, client: FlaskClient, app: Flask, bearer: Any
) -> None:
    path = create(RED)
    address = f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"
    first = client.get(address)
    app.extensions["odc_openeo_tiles"].forget_state()
    assert client.get(address, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    index.add(scene(tmp_path / "s3", 3, "2022-06-07T10:00:00Z"))
    app.extensions["odc_openeo_tiles"].forget_state()
    newer = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert newer.status_code == 200
    values = bands_of(3)["B04"][1]
    expected_values = expected(np.where(values == 0, np.nan, values), FINE, ZOOM, *HERE)
    assert same(grey(Image.open(io.BytesIO(newer.data))), expected_values)
    change = {
        "process": {"process_graph": graph(load=load(bands=["B08"]), s=node("save_result", format="PNG"))}
    }
    id_ = path.split("/")[2]
    assert client.patch(f"/openeo/1.3/services/{id_}", json=change, headers=bearer).status_code == 204
    changed = client.get(address, headers={"If-None-Match": newer.headers["ETag"]})
    values = bands_of(3)["B08"][1]
    expected_values = expected(np.where(values == 0, np.nan, values), FINE, ZOOM, *HERE)
    assert same(grey(Image.open(io.BytesIO(changed.data))), expected_values)
