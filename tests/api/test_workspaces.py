"""The workspaces extension: providers, workspaces of a user, ownership, files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft7Validator

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.user_data import workspaces
from odc_openeo.user_data.workspaces.store import get_storage
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, code
from tests.api.test_capabilities import as_json_schema, definition

EXTENSION = (
    Path(__file__).parents[2].parent / "shared" / "openeo" / "extensions" / "workspaces" / "openapi.yaml"
)
Headers = dict[str, str]
WORKSPACES = f"{API}/workspaces"


def sign_in(config: Config, name: str) -> Headers:
    token = accounts.issue_token(config, accounts.create_user(config, name, PASSWORD))
    return {"Authorization": f"Bearer basic//{token}"}


def create(client: FlaskClient, bearer: Headers, **body: Any) -> str:
    response = client.post(WORKSPACES, json={"intent": "create", **body}, headers=bearer)
    assert response.status_code == 201, response.text
    assert response.headers["Location"].endswith(f"/workspaces/{response.headers['OpenEO-Identifier']}")
    return response.headers["OpenEO-Identifier"]


def put(config: Config, name: str, id_: str, path: str, content: bytes) -> None:
    """A file in a workspace, as an export makes it."""
    user = next(user.id for user in accounts.list_users(config) if user.name == name)
    workspace = workspaces.get_workspace(config, user, id_)
    get_storage(config, workspace).write(f"{workspace.folder}/{path}", io.BytesIO(content))


def left(config: Config) -> list[str]:
    return sorted(path.name for path in (config.data_dir / "storage").rglob("*") if path.is_file())


def test_create_list_change_delete(client: FlaskClient, bearer: Headers, odc_config: Config) -> None:
    id_ = create(client, bearer, title="My Åre maps", description="All of them", quota=1000, type="STORAGE")
    assert id_ == "my-re-maps"
    put(odc_config, "ada", id_, "a/collection.json", b"{}" * 100)
    assert client.get(f"{WORKSPACES}/{id_}", headers=bearer).get_json() == {
        "id": id_,
        "title": "My Åre maps",
        "description": "All of them",
        "type": "storage",
        "status": "ready",
        "quota": 1000,
        "free": 800,
        "properties": {"used": 200},
        "url": f"http://localhost{WORKSPACES}/{id_}/files",
    }
    changed = client.patch(f"{WORKSPACES}/{id_}", json={"title": "Maps", "description": None}, headers=bearer)
    assert changed.status_code == 204
    again = create(client, bearer, title="my are maps")
    other = create(client, bearer)
    assert {again, other} == {"my-are-maps", "workspace"}
    first = client.get(f"{WORKSPACES}?limit=2", headers=bearer).get_json()
    assert [w["id"] for w in first["workspaces"]] == ["my-are-maps", id_]
    assert first["workspaces"][1]["title"] == "Maps"
    assert "description" not in first["workspaces"][1]
    rest = client.get(first["links"][0]["href"], headers=bearer).get_json()
    assert ([w["id"] for w in rest["workspaces"]], rest["links"]) == (["workspace"], [])
    assert client.delete(f"{WORKSPACES}/{id_}", headers=bearer).status_code == 204
    assert client.get(f"{WORKSPACES}/{id_}", headers=bearer).status_code == 404
    assert left(odc_config) == []


def test_ids_are_not_given_twice(client: FlaskClient, bearer: Headers) -> None:
    one, two = (create(client, bearer, title="Maps") for _ in range(2))
    assert one == "maps"
    assert two.startswith("maps-")


def test_workspace_files_are_listed_and_read(
    client: FlaskClient, bearer: Headers, odc_config: Config
) -> None:
    id_ = create(client, bearer)
    put(odc_config, "ada", id_, "år 1/result.tif", bytes(range(100)))
    url = f"{WORKSPACES}/{id_}/files"
    listed = client.get(url, headers=bearer).get_json()["files"]
    assert listed == [{"path": "år 1/result.tif", "size": 100}]
    whole = client.get(f"{url}/år 1/result.tif", headers=bearer)
    assert (whole.data, whole.mimetype) == (bytes(range(100)), "image/tiff")
    part = client.get(f"{url}/år 1/result.tif", headers={**bearer, "Range": "bytes=3-5"})
    assert (part.status_code, part.data) == (206, bytes([3, 4, 5]))
    for path in ("none", "år 1", "..", "%2e%2e/x", "a/../../x", "%2Fetc/passwd"):
        assert client.get(f"{url}/{path}", headers=bearer).status_code in (404, 308), path


def test_workspaces_of_others_do_not_exist(client: FlaskClient, bearer: Headers, odc_config: Config) -> None:
    id_ = create(client, bearer, title="Secret")
    put(odc_config, "ada", id_, "a.txt", b"secret")
    eve = sign_in(odc_config, "eve")
    assert client.get(WORKSPACES, headers=eve).get_json()["workspaces"] == []
    for method, path, body in (
        ("get", "", None),
        ("patch", "", {"title": "Mine"}),
        ("delete", "", None),
        ("get", "/files", None),
        ("get", "/files/a.txt", None),
    ):
        answers = [
            client.open(f"{WORKSPACES}/{name}{path}", method=method.upper(), json=body, headers=eve)
            for name in (id_, "none")
        ]
        assert [code(answer) for answer in answers] == ["WorkspaceNotFound"] * 2
        assert [answer.status_code for answer in answers] == [404, 404]
    assert create(client, eve, title="Secret") == id_
    assert client.get(f"{WORKSPACES}/{id_}/files", headers=eve).get_json()["files"] == []
    assert client.get(WORKSPACES).status_code == 401


def test_invalid_workspaces_are_refused(client: FlaskClient, bearer: Headers) -> None:
    register = {"intent": "register", "type": "storage", "url": "s3://b", "parameters": {}}
    assert code(client.post(WORKSPACES, json=register, headers=bearer)) == "FeatureUnsupported"
    wrong: list[dict[str, Any]] = [
        {"intent": None},
        {"type": "S3"},
        {"type": 1},
        {"quota": -1},
        {"quota": True},
        {"title": 1},
        {"parameters": {"region": "x"}},
    ]
    for body in wrong:
        answer = client.post(WORKSPACES, json={"intent": "create", **body}, headers=bearer)
        assert code(answer) == "RequestInvalid", body


def test_only_title_and_description_can_change(client: FlaskClient, bearer: Headers) -> None:
    url = f"{WORKSPACES}/{create(client, bearer)}"
    assert code(client.patch(url, json={"status": "ready"}, headers=bearer)) == "PropertyNotEditable"
    assert code(client.patch(url, json={"title": []}, headers=bearer)) == "RequestInvalid"
    assert client.patch(url, json={}, headers=bearer).status_code == 204


# --- Providers -----------------------------------------------------------------------------------


@pytest.fixture
def two_providers(odc_config: Config, tmp_path: Path) -> Flask:
    """The application with a second provider."""
    archive = {
        "title": "Archive",
        "url": str(tmp_path / "archive"),
        "options": {"auto_mkdir": True},
        "public_url": "https://archive.example.org/tree/",
    }
    path = tmp_path / "providers.yaml"
    path.write_text(yaml.safe_dump({"Archive": archive}))
    return create_app(odc_config.model_copy(update={"workspace_providers": path}))


def test_workspaces_at_the_operators_provider(
    two_providers: Flask, bearer: Headers, odc_config: Config, tmp_path: Path
) -> None:
    client, config = two_providers.test_client(), two_providers.extensions["odc_openeo"].config
    document = client.get(f"{API}/workspace_providers").get_json()["providers"]
    assert list(document) == ["storage", "Archive"]
    assert str(tmp_path) not in str(document)
    id_ = create(client, bearer, type="archive")
    put(config, "ada", id_, "a.txt", b"123")
    (file,) = (tmp_path / "archive").rglob("a.txt")
    document = client.get(f"{WORKSPACES}/{id_}", headers=bearer).get_json()
    folder = file.parent.relative_to(tmp_path / "archive").as_posix()
    assert document["url"] == f"https://archive.example.org/tree/{folder}"
    assert document["type"] == "Archive"
    # The operator stops offering it.
    without = create_app(odc_config).test_client()
    gone = without.get(f"{WORKSPACES}/{id_}", headers=bearer).get_json()
    assert gone["status"] == "unavailable"
    assert "Archive" in gone["details"]
    assert code(without.get(f"{WORKSPACES}/{id_}/files", headers=bearer)) == "WorkspaceUnavailable"


@pytest.mark.parametrize("content", ["a: 1", "[", "storage: {title: x, url: /tmp}", "a: {title: x}", None])
def test_invalid_providers_file_is_explained(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "providers.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"providers"):
        workspaces.load_providers(Config(workspace_providers=path))


# --- The extension's schemas ---------------------------------------------------------------------


def test_answers_fit_the_extension(client: FlaskClient, bearer: Headers) -> None:
    if not EXTENSION.exists():
        pytest.skip(f"the workspaces extension is not at {EXTENSION}")
    text = EXTENSION.read_text(encoding="utf-8").replace("../../openapi.yaml#", "#")
    extension = as_json_schema(yaml.load(text, yaml.CSafeLoader))
    components = {**definition()["components"]["schemas"], **extension["components"]["schemas"]}
    id_ = create(client, bearer, title="Maps", quota=5)
    for path, url in (
        ("/workspace_providers", f"{API}/workspace_providers"),
        ("/workspaces", WORKSPACES),
        ("/workspaces/{workspace_id}", f"{WORKSPACES}/{id_}"),
    ):
        answer = extension["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        schema = {**definition(), "components": {"schemas": components}, "allOf": [answer["schema"]]}
        Draft7Validator(schema).validate(client.get(url, headers=bearer).get_json())
    capabilities = client.get(f"{API}/").get_json()
    assert "https://api.openeo.org/extensions/workspaces/0.1.0" in capabilities["conformsTo"]
    offered = {e["path"]: set(e["methods"]) for e in capabilities["endpoints"]}
    for path, operations in extension["paths"].items():
        assert {m.upper() for m in operations if m != "parameters"} <= offered[path]
