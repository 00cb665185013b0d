"""Who sees tiles: everybody those of public services, else who has a signed link that is still good."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from odc_openeo import db
from odc_openeo.api.runner_calls import run_for_view
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.services import Tiles, store
from odc_openeo.services.links import sign_service
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD
from tests.services.conftest import Create, graph, load

GRAPH = graph(load=load(bands=["B04"]))
PLACES = ["/9/1/1.png", "", "/legend.png", "/legend.json", "/WMTSCapabilities.xml", "/wmts/EPSG:3857/9/1/1"]


def id_of(path: str) -> UUID:
    return UUID(path.split("/")[2])


def test_private_service_opens_by_signed_link(
    two: Any, create: Create, client: FlaskClient, odc_config: Config
) -> None:
    path, other = create(GRAPH, range=[0, 255]), create(GRAPH, range=[0, 255])
    assert client.get(f"{path}/9/1/1.png").status_code == 200
    plain, key = path.split("/signed/")
    id_ = id_of(path)
    old = int(time.time()) - 10
    expires, signed = key.split("-")
    wrong = {
        "expired": f"{old}-{sign_service(odc_config, id_, old)}",
        "prolonged": f"{int(expires) + 3600}-{signed}",
        "forged": f"{expires}-{'0' * 40}",
        "cut off": key[:-1],
        "of another service": other.split("/signed/")[1],
        "nonsense": "abc",
    }
    for what, bad in wrong.items():
        for place in PLACES:
            answer = client.get(f"{plain}/signed/{bad}{place}")
            assert (what, answer.status_code) == (what, 410)
    said = client.get(f"{plain}/signed/{wrong['expired']}/9/1/1.png").get_json()
    assert said["code"] == "ResultLinkExpired"
    assert "expired" in said["message"]
    for place in PLACES:
        answer = client.get(f"{plain}{place}")
        assert answer.status_code == 404, place


def test_the_owner_s_token_opens_the_plain_address(
    two: Any, create: Create, client: FlaskClient, odc_config: Config, bearer: dict[str, str]
) -> None:
    plain = create(GRAPH, range=[0, 255]).partition("/signed/")[0]
    answer = client.get(f"{plain}/9/1/1.png", headers=bearer)
    assert answer.status_code == 200
    assert "private" in answer.headers["Cache-Control"]
    eve = accounts.issue_token(odc_config, accounts.create_user(odc_config, "eve", "correct horse"))
    foreign = client.get(f"{plain}/9/1/1.png", headers={"Authorization": f"Bearer basic//{eve}"})
    nothing = client.get(f"/services/{UUID(int=7)}/9/1/1.png")
    assert (foreign.status_code, nothing.status_code) == (404, 404)
    assert foreign.get_json()["code"] == nothing.get_json()["code"] == "ServiceNotFound"


def test_public_disabled_deleted(
    two: Any, create: Create, client: FlaskClient, bearer: dict[str, str], odc_config: Config
) -> None:
    path = create(GRAPH, public=True, max_age=60, range=[0, 255])
    assert "signed" not in path
    answer = client.get(f"{path}/9/1/1.png", headers={"Origin": "https://maps.example.org"})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    assert {"public", "max-age=60"} <= set(answer.headers["Cache-Control"].split(", "))
    assert client.head(f"{path}/9/1/1.png").headers["ETag"] == answer.headers["ETag"]
    assert client.get(f"{path}/9/1/1.png?unknown=1").headers["ETag"] == answer.headers["ETag"]
    url = f"{API}/services/{id_of(path)}"
    assert client.patch(url, json={"enabled": False}, headers=bearer).status_code == 204
    off = client.get(f"{path}/9/1/1.png")
    assert (off.status_code, off.get_json()["code"]) == (403, "ServiceDisabled")
    on = {"enabled": True, "configuration": {"public": False, "range": [0, 255]}}
    assert client.patch(url, json=on, headers=bearer).status_code == 204
    assert client.get(f"{path}/9/1/1.png").status_code == 404
    link = client.get(url, headers=bearer).get_json()["url"].removeprefix("http://localhost")
    assert client.get(link.format(z=9, x=1, y=1)).status_code == 200
    accounts.disable_user(odc_config, "ada")
    assert client.get(link.format(z=9, x=1, y=1)).status_code == 404
    accounts.disable_user(odc_config, "ada", disabled=False)
    assert client.get(link.format(z=9, x=1, y=1)).status_code == 200
    token = accounts.issue_token(odc_config, accounts.verify_password(odc_config, "ada", PASSWORD))
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.delete(url, headers=bearer).status_code == 204
    assert client.get(link.format(z=9, x=1, y=1)).status_code == 404


def test_tiles_of_changeable_processes_are_not_cached(
    two: Any, create: Create, client: FlaskClient, bearer: dict[str, str], app: Flask
) -> None:
    stored = {"process_graph": graph(load=load(bands=["B04"]))}
    assert client.put(f"{API}/process_graphs/red", json=stored, headers=bearer).status_code == 200
    path = create(graph(call={"process_id": "red", "arguments": {}}), range=[0, 255])
    first = client.get(f"{path}/14/8661/5766.png")
    assert first.status_code == 200
    again = client.get(f"{path}/14/8661/5766.png", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    stored = {"process_graph": graph(load=load(bands=["B08"]))}
    assert client.put(f"{API}/process_graphs/red", json=stored, headers=bearer).status_code == 200
    app.extensions["odc_openeo_tiles"].forget_state()
    changed = client.get(f"{path}/14/8661/5766.png", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.data != first.data
    foreign = graph(
        load={"process_id": "load_url", "arguments": {"url": "http://127.0.0.1:9/x.tif", "format": "GTiff"}}
    )
    refused = client.get(f"{create(foreign)}/9/1/1.png")
    assert refused.status_code == 400
    assert refused.headers["Cache-Control"] == "no-store"
    tiles = app.extensions["odc_openeo_tiles"]
    uncertain = store.get_active_service(tiles.config, id_of(create(foreign)))
    assert tiles.compute_tag(uncertain, 1) is None


@pytest.mark.parametrize("limit", [0, 10_000])
def test_the_cache_is_bounded(limit: int, odc_config: Config) -> None:
    tiles = Tiles(
        odc_config.model_copy(update={"tile_cache_bytes": limit}), Catalog(odc_config), run_for_view
    )
    for number in range(100):
        tiles._cache_tile(f"tag {number}", b"x" * 500)
    assert tiles._cached_tiles.currsize <= limit
    assert len(tiles._cached_tiles) == limit // 500
    db.dispose_engine(odc_config)
