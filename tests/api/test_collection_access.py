"""Collections that not everybody may read: for others, each answer is that of a missing collection."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from flask import Flask, Response, request
from flask.testing import FlaskClient

from odc_openeo import db
from odc_openeo.api.pages.forms import SESSION_COOKIE
from odc_openeo.api.services import tiles
from odc_openeo.app import create_app
from odc_openeo.catalog import Catalog, Query
from odc_openeo.cli import cli
from odc_openeo.config import Config
from odc_openeo.errors import CollectionNotFound
from odc_openeo.graph import evaluate
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.users import accounts, browser_sessions
from odc_openeo.users.accounts import Account
from odc_openeo.users.oidc import Identity
from odc_openeo.worker.provenance import RecordingCatalog
from tests.api.conftest import API, PASSWORD
from tests.catalog.scenes import PRODUCT, Index, product, scene
from tests.services.test_tiles import ZOOM, tile_at

ISSUER: Final = "https://login.example.org"
OVERRIDES: Final = """
tiny_s2:
  aliases: [SECRET_S2]
  thumbnail: https://example.org/picture.png
  access:
    roles: [planet]
    claims: [{claim: [realm, groups], values: ["eo:*"]}]
members:
  access: signed-in
"""
EVERYWHERE: Final = {"spatial_extent": None, "temporal_extent": None}


@pytest.fixture
def overrides(tmp_path: Path) -> Path:
    file = tmp_path / "overrides.yaml"
    file.write_text(OVERRIDES)
    return file


@pytest.fixture
def restricted(odc_config: Config, overrides: Path) -> Iterator[Config]:
    """A configuration with restricted collections."""
    config = odc_config.model_copy(update={"collection_overrides": overrides, "serves_assets": True})
    yield config
    db.dispose_engine(config)


@pytest.fixture
def document(odc_database: str, tmp_path: Path) -> dict[str, Any]:
    """One scene of the restricted product; one product is for members, one for all."""
    index = Index()
    for definition in (PRODUCT, product("members"), product("open")):
        index.add_product(definition)
    document = scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z")
    index.add(document)
    index.datacube.close()
    return document


@pytest.fixture
def app(restricted: Config, document: dict[str, Any]) -> Flask:
    return create_app(restricted)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def sign_in(config: Config, user: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {accounts.issue_token(config, user)}"}


def add_user(config: Config, name: str, *roles: str) -> Account:
    return accounts.create_user(config, name, PASSWORD, roles)


def meet(config: Config, subject: str, *groups: str) -> Account:
    """A user of a provider as they make a request with these groups in their token."""
    identity = Identity(ISSUER, subject, subject, claims={"realm": {"groups": list(groups)}})
    return accounts.get_or_create_user(config, identity, Catalog(config).list_claim_rules())


def list_ids(client: FlaskClient, headers: dict[str, str]) -> list[str]:
    return [c["id"] for c in client.get(f"{API}/collections", headers=headers).get_json()["collections"]]


def load_graph(id_: str) -> dict[str, Any]:
    load = {"process_id": "load_collection", "arguments": {"id": id_, **EVERYWHERE}}
    bands = {"process_id": "filter_bands", "arguments": {"data": {"from_node": "load"}, "bands": ["B04"]}}
    latest = {"process_id": "drop_dimension", "arguments": {"data": {"from_node": "bands"}, "name": "t"}}
    save = {"process_id": "save_result", "arguments": {"data": {"from_node": "latest"}, "format": "GTiff"}}
    nodes = {"load": load, "bands": bands, "latest": latest, "save": {**save, "result": True}}
    return {"process_graph": nodes}


def ask_everything(client: FlaskClient, id_: str, item: str, headers: dict[str, str]) -> list[Any]:
    """The answers of all addresses that name or search a collection, with its id replaced."""
    answers = [
        client.get(f"{API}/collections/{id_}", headers=headers),
        client.get(f"{API}/collections/{id_}/queryables", headers=headers),
        client.get(f"{API}/collections/{id_}/items", headers=headers),
        client.get(f"{API}/collections/{id_}/items/{item}", headers=headers),
        client.get(f"{API}/collections/{id_}/items.parquet", headers=headers),
        client.get(f"{API}/search?collections={id_}", headers=headers),
        client.post(f"{API}/search", json={"collections": [id_]}, headers=headers),
        client.get(f"/assets/{id_}/{item}/B04/B04.tif", headers=headers),
        client.get(f"/collections/{id_}"),
        client.get(f"/previews/{id_}"),
        client.post(f"{API}/validation", json=load_graph(id_), headers=headers),
    ]
    if headers:
        answers.append(client.post(f"{API}/result", json={"process": load_graph(id_)}, headers=headers))
    return [(answer.status_code, blank(answer, id_)) for answer in answers]


def blank(answer: Any, id_: str) -> str:
    text = answer.data.decode("latin-1").replace(answer.headers["X-Request-Id"], "").replace(id_, "ID")
    body = answer.get_json(silent=True)
    if isinstance(body, dict) and "code" in body:
        return json.dumps({**body, "id": None}).replace(id_, "ID")
    return text


def test_no_address_is_left_out(app: Flask, client: FlaskClient) -> None:
    """Every address with the id of a collection is among those that the tests here ask."""
    named = {rule.endpoint for rule in app.url_map.iter_rules() if "collection_id" in rule.arguments}
    asked_endpoints = set()

    def record(response: Response) -> Response:
        asked_endpoints.add(request.endpoint)
        return response

    app.after_request_funcs.setdefault(None, []).append(record)
    ask_everything(client, "absent", "00000000-0000-0000-0000-000000000000", {})
    # Only collections of users can be deleted.
    assert named - asked_endpoints == {"collections.delete_collection"}


def test_who_sees_what(client: FlaskClient, restricted: Config) -> None:
    readers = {
        "nobody": ({}, ["open"]),
        "member": (sign_in(restricted, add_user(restricted, "bob")), ["members", "open"]),
        "role": (sign_in(restricted, add_user(restricted, "ada", "planet")), ["members", "open", "tiny_s2"]),
        "claim": (sign_in(restricted, meet(restricted, "1", "eo:sar")), ["members", "open", "tiny_s2"]),
        "other claim": (sign_in(restricted, meet(restricted, "2", "neo:sar", "eo")), ["members", "open"]),
        "other role": (sign_in(restricted, add_user(restricted, "eve", "planets")), ["members", "open"]),
    }
    for who, (headers, ids) in readers.items():
        assert (who, list_ids(client, headers)) == (who, ids)
        items = client.get(f"{API}/search", headers=headers).get_json()["features"]
        assert len(items) == ("tiny_s2" in ids)


def test_a_restricted_collection_does_not_exist_for_others(
    client: FlaskClient, restricted: Config, document: dict[str, Any]
) -> None:
    for headers in ({}, sign_in(restricted, add_user(restricted, "bob"))):
        absent = ask_everything(client, "absent", document["id"], headers)
        assert all(status in (200, 404) for status, _ in absent)
        for id_ in ("tiny_s2", "SECRET_S2"):
            assert ask_everything(client, id_, document["id"], headers) == absent
        if not headers:
            assert ask_everything(client, "members", document["id"], headers) == absent


def test_everything_is_there_for_those_who_may(
    client: FlaskClient, restricted: Config, document: dict[str, Any]
) -> None:
    ada = add_user(restricted, "ada", "planet")
    client.set_cookie(SESSION_COOKIE, browser_sessions.begin(restricted, ada))
    for id_ in ("tiny_s2", "SECRET_S2"):
        answers = ask_everything(client, id_, document["id"], sign_in(restricted, ada))
        assert [status for status, _ in answers] == [200] * len(answers), answers
    document_of_collection = client.get(f"{API}/collections/tiny_s2", headers=sign_in(restricted, ada))
    assert document_of_collection.get_json()["assets"]["thumbnail"]["type"] == "image/png"
    assert "Authorization" in document_of_collection.vary
    assert document_of_collection.cache_control.private
    page = client.get("/collections/tiny_s2")
    assert "Cookie" in page.vary
    assert not client.get("/previews/tiny_s2").cache_control.public


def test_the_start_page_shows_what_the_visitor_may_read(client: FlaskClient, restricted: Config) -> None:
    assert "tiny_s2" not in client.get("/", headers={"Accept": "text/html"}).text
    ada = add_user(restricted, "ada", "planet")
    client.set_cookie(SESSION_COOKIE, browser_sessions.begin(restricted, ada))
    assert "tiny_s2" in client.get("/", headers={"Accept": "text/html"}).text


@pytest.mark.parametrize("kind", ["shared", "recording"])
def test_runs_read_what_their_user_may_read_then(
    restricted: Config, document: dict[str, Any], kind: str
) -> None:
    user = meet(restricted, "1", "eo:sar")

    def run() -> Any:
        catalog = RecordingCatalog(restricted) if kind == "recording" else None
        environment = make_environment(restricted, user.id, catalog=catalog)
        graph = load_graph("tiny_s2")["process_graph"]
        value = evaluate({"process_graph": {"load": {**graph["load"], "result": True}}}, environment)
        return value, catalog

    value, catalog = run()
    assert value.sizes["t"] == 1
    if catalog is not None:
        assert list(catalog.scenes) == [document["id"]]
    meet(restricted, "1", "something else")
    with pytest.raises(CollectionNotFound):
        run()
    meet(restricted, "1", "eo:sar")
    run()
    accounts.disable_user(restricted, str(user.id))
    with pytest.raises(CollectionNotFound):
        run()


def test_services_show_what_their_owner_may_read(
    app: Flask, client: FlaskClient, restricted: Config, overrides: Path
) -> None:
    column, row = tile_at(600400, 5199700)
    addresses = {}
    for name, id_ in (("ada", "tiny_s2"), ("bob", "tiny_s2"), ("eve", "absent")):
        user = add_user(restricted, name, *(["planet"] if name == "ada" else []))
        load = {**load_graph(id_)["process_graph"]["load"], "result": True}
        settings = {"range": [0, 255], "public": True, "bands": ["B04"]}
        body = {"type": "XYZ", "process": {"process_graph": {"load": load}}, "configuration": settings}
        created = client.post(f"{API}/services", json=body, headers=sign_in(restricted, user))
        assert created.status_code == 201, created.get_json()
        service = f"/services/{created.headers['OpenEO-Identifier']}"
        addresses[name] = [f"{service}/{ZOOM}/{column}/{row}.png", service, f"{service}/legend.json"]

    def ask(name: str) -> list[Any]:
        app.extensions[tiles.EXTENSION].forget_state()
        answers = [client.get(address) for address in addresses[name]]
        return [(answer.status_code, blank(answer, "tiny_s2").replace("absent", "ID")) for answer in answers]

    full = ask("ada")
    missing = ask("eve")
    assert ask("bob")[0] == missing[0]
    assert full[0] != missing[0]
    accounts.set_roles(restricted, "ada", [])
    assert ask("ada")[0] == missing[0]
    # A change of the operator's file shows at once, too.
    overrides.write_text("open: {title: Open}")
    os.utime(overrides, ns=(1, 1))
    assert ask("ada")[0] == full[0]
    assert ask("bob")[0] == full[0]


def test_a_bad_token_is_refused_only_where_it_matters(client: FlaskClient, overrides: Path) -> None:
    headers = {"Authorization": "Bearer basic//nonsense"}
    assert client.get(f"{API}/search", headers=headers).status_code == 403
    overrides.write_text("open: {title: Open}")
    os.utime(overrides, ns=(1, 1))
    assert client.get(f"{API}/search", headers=headers).status_code == 200


def test_the_check_of_a_file(
    restricted: Config, document: dict[str, Any], overrides: Path, tmp_path: Path
) -> None:
    environment = {
        "ODC_OPENEO_DATABASE_URL": restricted.database_url.get_secret_value(),
        "ODC_OPENEO_DATA_DIR": str(tmp_path),
    }
    good = CliRunner().invoke(cli, ["collections", "check", str(overrides)], env=environment)
    assert good.output == "No problems: 3 collections are visible, 2 of them not to everybody\n"
    overrides.write_text("tiny_s2: {bands: {B99: {}}}\nnone: {title: None}")
    bad = CliRunner().invoke(cli, ["collections", "check", str(overrides)], env=environment)
    assert bad.exit_code == 1
    assert "there is no product 'none'" in bad.output
    assert "there is no band 'B99'" in bad.output


def test_claim_values_are_not_kept(restricted: Config, document: dict[str, Any]) -> None:
    """Only that a rule applies is stored, not what the token said."""
    user = meet(restricted, "1", "eo:sar", "eo:private")
    with db.session(restricted) as session:
        row = session.get(db.User, user.id)
        assert row is not None
        assert row.grants == ['[["realm", "groups"], ["eo:*"]]']
    assert Catalog(restricted).search_scenes("tiny_s2", Query()) != []
