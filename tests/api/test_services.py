"""The endpoints of secondary web services for those who are signed in."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from odc_openeo.config import Config
from odc_openeo.users import accounts
from tests.api.conftest import API, addition, code
from tests.services.conftest import graph, load

SERVICES = f"{API}/services"
GRAPH = graph(load=load(id="nowhere"))


def body(**changes: Any) -> dict[str, Any]:
    return {"type": "xyz", "process": {"process_graph": GRAPH}, **changes}


@pytest.fixture
def service(client: FlaskClient, bearer: dict[str, str]) -> str:
    """The address of a new service."""
    answer = client.post(SERVICES, json=body(title="One", extra=[1]), headers=bearer)
    assert answer.status_code == 201
    id_ = answer.headers["OpenEO-Identifier"]
    assert answer.headers["Location"] == f"http://localhost{SERVICES}/{id_}"
    return f"{SERVICES}/{id_}"


def test_service_types_are_described(client: FlaskClient) -> None:
    types = client.get(f"{API}/service_types").get_json()
    assert set(types) == {"XYZ", "WMTS"}
    for entry in types.values():
        assert {p["name"] for p in entry["process_parameters"]} == {"spatial_extent"}
        assert {"public", "bands", "range", "colormap", "format"} <= set(entry["configuration"])
        assert all(s["description"] for s in entry["configuration"].values())


def test_service_description_is_complete(client: FlaskClient, bearer: dict[str, str], service: str) -> None:
    shown = client.get(service, headers=bearer).get_json()
    assert (shown["type"], shown["title"], shown["enabled"], shown["extra"]) == ("XYZ", "One", True, [1])
    assert shown["process"] == {"process_graph": GRAPH}
    assert shown["configuration"] == {}
    assert "{z}/{x}/{y}" in shown["url"]
    assert shown["attributes"]["layers"] == ["result"]
    assert "nowhere" in shown["attributes"]["error"]
    assert shown["usage"]["tiles"] == {"value": 0, "unit": "tiles"}
    assert None not in shown.values()


def test_lists_page_by_page(client: FlaskClient, bearer: dict[str, str]) -> None:
    ids = [
        client.post(SERVICES, json=body(title=f"{n}"), headers=bearer).headers["OpenEO-Identifier"]
        for n in range(3)
    ]
    whole = client.get(SERVICES, headers=bearer).get_json()
    assert [entry["id"] for entry in whole["services"]] == ids[::-1]
    assert all("process" not in entry and "configuration" not in entry for entry in whole["services"])
    first = client.get(f"{SERVICES}?limit=2", headers=bearer).get_json()
    (following,) = first["links"]
    rest = client.get(following["href"].removeprefix("http://localhost"), headers=bearer).get_json()
    assert [entry["id"] for entry in first["services"] + rest["services"]] == ids[::-1]
    assert rest["links"] == []


NULLS = dict.fromkeys(("title", "description", "configuration", "enabled", "plan", "budget", "log_level"))


def test_null_of_what_is_optional_is_absent(client: FlaskClient, bearer: dict[str, str]) -> None:
    answer = client.post(SERVICES, json=body(**NULLS), headers=bearer)
    assert answer.status_code == 201
    service = answer.headers["Location"].removeprefix("http://localhost")
    settings = {"configuration": {"format": "jpeg"}, "enabled": False, "log_level": "debug"}
    assert client.patch(service, json=settings, headers=bearer).status_code == 204
    assert client.patch(service, json={**NULLS, "process": None}, headers=bearer).status_code == 204
    shown = client.get(service, headers=bearer).get_json()
    assert shown["process"] == {"process_graph": GRAPH}
    assert shown["configuration"]["format"].lower() == "jpeg"
    assert (shown["enabled"], shown["log_level"]) == (False, "debug")


def test_service_can_be_changed(client: FlaskClient, bearer: dict[str, str], service: str) -> None:
    assert client.patch(service, json={}, headers=bearer).status_code == 204
    change = {"title": None, "enabled": False, "configuration": {"format": "jpeg"}, "budget": 5, "more": 2}
    assert client.patch(service, json=change, headers=bearer).status_code == 204
    shown = client.get(service, headers=bearer).get_json()
    assert "title" not in shown
    assert (shown["enabled"], shown["budget"], shown["more"], shown["extra"]) == (False, 5, 2, [1])
    assert shown["configuration"] == {"format": "JPEG"}
    for wrong, expected in (
        ({"type": "WMTS"}, "PropertyNotEditable"),
        ({"url": "x"}, "PropertyNotEditable"),
        ({"enabled": "yes"}, "RequestInvalid"),
        ({"configuration": 1}, "RequestInvalid"),
        ({"log_level": "loud"}, "RequestInvalid"),
        ({"configuration": {"speed": 1}}, "ServiceConfigUnsupported"),
        ({"configuration": {"range": [5, 1]}}, "ServiceConfigInvalid"),
        ({"configuration": {"range": "wide"}}, "ServiceConfigInvalid"),
        ({"configuration": {"colormap": "no such"}}, "ServiceConfigInvalid"),
        ({"configuration": {"colormap": ["red", "rot"]}}, "ServiceConfigInvalid"),
        ({"configuration": {"colormap": {"a": "red"}}}, "ServiceConfigInvalid"),
        ({"configuration": {"format": "gif"}}, "ServiceConfigInvalid"),
        ({"process": {}}, "ProcessGraphMissing"),
        ({"process": {"process_graph": {"a": {"process_id": "no", "arguments": {}}}}}, None),
        ({"plan": "gold"}, "BillingPlanInvalid"),
    ):
        answer = client.patch(service, json=wrong, headers=bearer)
        assert answer.status_code == 400, wrong
        assert expected is None or code(answer) == expected, wrong


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"type": "WMS"}, "ServiceUnsupported"),
        ({"type": None}, "RequestInvalid"),
        ({"process": 1}, "ProcessInvalid"),
        ({"process": {"process_graph": {"a": {"process_id": "add", "arguments": {}, "result": True}}}}, None),
    ],
)
def test_invalid_services_are_refused(
    client: FlaskClient, bearer: dict[str, str], wrong: Any, expected: str | None
) -> None:
    answer = client.post(SERVICES, json=body(**wrong), headers=bearer)
    assert answer.status_code == 400
    assert expected is None or code(answer) == expected


def test_others_do_not_have_it(
    client: FlaskClient, bearer: dict[str, str], service: str, odc_config: Config
) -> None:
    eve = accounts.issue_token(odc_config, accounts.create_user(odc_config, "eve", "correct horse"))
    foreign = {"Authorization": f"Bearer basic//{eve}"}
    unknown = f"{SERVICES}/00000000-0000-0000-0000-000000000000"
    for address, headers in ((service, foreign), (unknown, bearer), (f"{SERVICES}/nonsense", bearer)):
        for answer in (
            client.get(address, headers=headers),
            client.patch(address, json={"title": "mine"}, headers=headers),
            client.delete(address, headers=headers),
            client.get(f"{address}/logs", headers=headers),
        ):
            assert (answer.status_code, code(answer)) == (404, "ServiceNotFound")
    assert client.get(SERVICES, headers=foreign).get_json()["services"] == []
    assert client.get(service).status_code == 401
    assert client.get(service, headers=bearer).get_json()["title"] == "One"


def test_deleted_service_is_gone(client: FlaskClient, bearer: dict[str, str], service: str) -> None:
    assert client.delete(service, headers=bearer).status_code == 204
    assert client.get(service, headers=bearer).status_code == 404
    assert client.get(SERVICES, headers=bearer).get_json()["services"] == []


def test_logs_and_usage(client: FlaskClient, bearer: dict[str, str]) -> None:
    shown = {"process": {"process_graph": {"a": {**addition()["process_graph"]["add"]}}}}
    id_ = client.post(SERVICES, json=body(**shown), headers=bearer).headers["OpenEO-Identifier"]
    url = client.get(f"{SERVICES}/{id_}", headers=bearer).get_json()["url"].removeprefix("http://localhost")
    for place in (1, 2, 3):
        assert client.get(url.format(z=9, x=place, y=1)).status_code == 400
    logs = client.get(f"{SERVICES}/{id_}/logs", headers=bearer).get_json()
    (entry,) = logs["logs"]
    assert (entry["level"], entry["code"]) == ("error", "FormatUnsuitable")
    assert "raster cube" in entry["message"]
    after = client.get(f"{SERVICES}/{id_}/logs?offset={entry['id']}", headers=bearer).get_json()
    assert after["logs"] == []
    empty = body(process={"process_graph": graph(load=load(id="nowhere"))}, log_level="error")
    answer = client.post(SERVICES, json=empty, headers=bearer)
    logs = client.get(f"{SERVICES}/{answer.headers['OpenEO-Identifier']}/logs", headers=bearer).get_json()
    assert (logs["level"], logs["logs"]) == ("error", [])
