"""The work of runners for services, in the process of the test: where it can be measured, stepped through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from odc_openeo.api.services.tiles import EXTENSION
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.services import Tiles
from tests.api.conftest import API
from tests.catalog.scenes import FINE, bands_of
from tests.services.conftest import DATA, Create, graph, load, node
from tests.services.test_tiles import HERE, RED, ZOOM, expected, grey, picture, same
from tests.support.graphs import child


@pytest.fixture
def app(odc_config: Config) -> Flask:
    """The application; its tiles are made by the process that answers."""
    application = create_app(odc_config)

    def run_here(task: Any, *arguments: Any, user: str) -> Any:
        return task(odc_config, *arguments)

    catalog = application.extensions["odc_openeo"].catalog
    application.extensions[EXTENSION] = Tiles(odc_config, catalog, run_here)
    return application


def red_of(seed: int, zoom: int = ZOOM, column: int = HERE[0], row: int = HERE[1]) -> np.ndarray:
    """The red band of a scene at the centres of the pixels of a tile."""
    values = bands_of(seed)["B04"][1]
    return expected(np.where(values == 0, np.nan, values), FINE, zoom, column, row)


def test_values_dates_and_transparency(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(RED)
    tile = f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"
    assert same(grey(picture(client, tile)), red_of(2))
    assert same(grey(picture(client, f"{tile}?time=2022-06-01")), red_of(1))
    assert np.isnan(grey(picture(client, f"{path}/{ZOOM}/0/0.png"))).all()
    assert np.isnan(grey(picture(client, f"{path}/3/1/1.png"))).all()
    refused = client.get(f"{tile}?time=2021-01-01")
    assert refused.status_code == 400
    assert "2 dates" in refused.get_json()["message"]


def test_the_range_of_colours_is_measured_and_shown(two: Any, create: Create, client: FlaskClient) -> None:
    path = create(graph(load=load(bands=["B04"])))
    (band,) = client.get(f"{path}/legend.json").get_json()["bands"]
    values = bands_of(2)["B04"][1]
    assert [band["minimum"], band["maximum"]] == pytest.approx(
        np.percentile(values[values > 0], (2, 98)), abs=4
    )
    shades = (red_of(2) - band["minimum"]) / (band["maximum"] - band["minimum"])
    pixels = grey(picture(client, f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    assert same(pixels, np.clip(shades, 0, 1) * 255)
    assert picture(client, f"{path}/legend.png").size[0] > 10


def test_extents_of_graphs_bound_tiles(two: Any, create: Create, client: FlaskClient) -> None:
    ring = [[600200, 5199600], [600400, 5199600], [600400, 5199800], [600200, 5199800], [600200, 5199600]]
    area = {
        "type": "Polygon",
        "coordinates": [ring],
        "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
    }
    for extent in (area, {"west": 600200, "east": 600400, "south": 5199600, "north": 5199800, "crs": 32632}):
        cut = graph(load=load(bands=["B04"], spatial_extent=extent), save=node("save_result", format="PNG"))
        pixels = grey(picture(client, f"{create(cut)}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
        shown = np.isfinite(pixels)
        assert 0 < shown.sum() < 20_000
        assert np.isclose(pixels[shown], red_of(2)[shown], atol=0.5).mean() > 0.95


def test_three_bands_and_classes(two: Any, create: Create, client: FlaskClient) -> None:
    colours = create(graph(load=load(bands=["B04", "B08", "B11"])), range=[0, 255])
    image = picture(client, f"{colours}/{ZOOM}/{HERE[0]}/{HERE[1]}.png").convert("RGBA")
    shown = np.asarray(image)[..., 3] > 0
    assert same(np.asarray(image)[..., 0][shown].astype(float), red_of(2)[shown])
    reducer = child("max", data=DATA)
    largest = graph(load=load(bands=["B04"]), max=node("reduce_dimension", dimension="t", reducer=reducer))
    classes = create(largest, colormap={"7": "red", "8": "#00ff0080"})
    legend = client.get(f"{classes}/legend.json").get_json()
    assert len(legend["classes"]) == 2
    picture(client, f"{classes}/{ZOOM}/{HERE[0]}/{HERE[1]}.png")


def test_errors_are_logged_for_the_owner(
    two: Any, create: Create, client: FlaskClient, bearer: dict[str, str]
) -> None:
    path = create(graph(load=load(bands=["B04"]), text=node("dimension_labels", dimension="t")))
    answer = client.get(f"{path}/{ZOOM}/{HERE[0]}/{HERE[1]}.png")
    assert answer.status_code == 400, answer.get_data(as_text=True)
    (service,) = client.get(f"{API}/services", headers=bearer).get_json()["services"]
    logs = client.get(f"{API}/services/{service['id']}/logs", headers=bearer).get_json()["logs"]
    assert answer.get_json()["code"] in {entry.get("code") for entry in logs}
